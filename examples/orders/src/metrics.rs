//! What Prometheus fetches from `/metrics`.

use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::interval;

/// From a lock that is free to the longest wait of a policy. Histograms and not quantiles: those of
/// several instances can be added up.
const SECONDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// What is counted is drained this often, also when no scraper fetches it.
const DRAIN: Duration = Duration::from_secs(5);

/// Records metrics from here on; to be called before anything is made that has some.
pub(crate) fn install() -> anyhow::Result<PrometheusHandle> {
    let builder = PrometheusBuilder::new();
    let builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS);
    let handle = builder?
        .install_recorder()
        .context("another recorder of metrics is installed")?;
    let drained = handle.clone();
    tokio::spawn(async move {
        let mut ticks = interval(DRAIN);
        loop {
            ticks.tick().await;
            drained.run_upkeep();
        }
    });
    Ok(handle)
}
