//! The dashboard shows metrics that there are. The only test of its program: there is one recorder in
//! each.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lock_core::postgres::PostgresBackend;
use lock_core::{LockProvider, LossReason};
use lock_tests::scripted_backend::{Play, ScriptedBackend};
use lock_tests::servers::PostgresServer;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../docs/grafana/distributed-locks.json");

/// Series by their names, with the names of their labels.
type Exported = BTreeMap<String, BTreeSet<String>>;

/// Makes everything happen that is counted.
async fn live() {
    let scripted = ScriptedBackend::new();
    let locks = scripted.client();
    let lock = locks.lock("order:process:42").unwrap();
    let guard = lock.acquire(Duration::ZERO).await.unwrap();
    assert!(
        lock.try_acquire(Duration::from_millis(5))
            .await
            .unwrap()
            .is_none()
    );
    scripted.lose(lock.name(), LossReason::Revoked);
    assert!(!guard.is_valid());
    drop(guard);
    scripted.every_release(Play::Fail("down"));
    lock.run(Duration::from_secs(1), async {}).await.unwrap();

    let server = PostgresServer::start().await;
    let backend = PostgresBackend::connect(&server.url()).await.unwrap();
    // A heartbeat, which renews the lease.
    assert!(LockProvider::new(backend).health().await.is_up());
}

/// What is exported, as it is scraped.
fn exported(scraped: &str) -> Exported {
    let mut exported = Exported::new();
    for line in scraped.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, _)) = line.rsplit_once(' ') else {
            continue;
        };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split("\",");
        let labels = labels.filter_map(|label| label.split_once('='));
        exported
            .entry(name.to_owned())
            .or_default()
            .extend(labels.map(|(label, _)| label.to_owned()));
    }
    exported
}

/// The words of a query that are metrics of ours, each with the labels that it selects by.
fn metrics_of(query: &str) -> Vec<(String, Vec<String>)> {
    let starts = query.match_indices("distributed_lock_").map(|(at, _)| at);
    starts
        .map(|at| {
            let rest = &query[at..];
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let selected = rest[end..]
                .strip_prefix('{')
                .map_or("", |selectors| selectors.split_once('}').unwrap().0);
            let labels = selected.split("\",").filter(|label| !label.is_empty());
            let labels = labels.map(|label| label.split(['=', '!']).next().unwrap().to_owned());
            (rest[..end].to_owned(), labels.collect())
        })
        .collect()
}

/// The labels that a query groups by.
fn groups_of(query: &str) -> BTreeSet<String> {
    let groups = query.split("by (").skip(1);
    groups
        .flat_map(|rest| rest.split_once(')').unwrap().0.split(','))
        .map(|label| label.trim().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_dashboard_finds_its_metric_and_its_labels() {
    let buckets = Matcher::Suffix("_seconds".to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(buckets, &[0.1, 1.0]);
    let recorder = builder.unwrap().install_recorder().unwrap();
    live().await;
    let exported = exported(&recorder.render());

    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let queries: Vec<&str> = targets
        .map(|target| target["expr"].as_str().unwrap())
        .chain(
            variables
                .iter()
                .map(|variable| variable["query"].as_str().unwrap()),
        )
        .collect();
    let mut shown = BTreeSet::new();
    for query in &queries {
        let metrics = metrics_of(query);
        let mut known = BTreeSet::new();
        for (metric, labels) in metrics {
            let has = exported
                .get(&metric)
                .unwrap_or_else(|| panic!("{metric} is not exported"));
            for label in labels {
                assert!(
                    has.contains(&label),
                    "{metric} has no label {label}: {query}"
                );
            }
            known.extend(has.iter().cloned());
            shown.insert(metric);
        }
        assert!(groups_of(query).is_subset(&known), "{query}");
    }
    // And each metric is shown in some form.
    for metric in exported
        .keys()
        .filter(|name| name.starts_with("distributed_lock_"))
    {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| metric.strip_suffix(suffix))
            .unwrap_or(metric);
        assert!(
            shown.iter().any(|shown| shown.starts_with(base)),
            "{metric} is not shown"
        );
    }
    assert_eq!(
        exported
            .keys()
            .filter(|name| name.starts_with("distributed_lock_"))
            .count(),
        13
    );
    for title in [
        "Acquisition rate",
        "Contention rate",
        "Wait until acquired",
        "Hold time",
        "Jobs skipped",
        "Losses",
        "Renew headroom",
    ] {
        assert!(
            panels.iter().any(|panel| panel["title"] == title),
            "{title}"
        );
    }
}
