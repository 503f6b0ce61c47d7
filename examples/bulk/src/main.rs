//! Many workers in several processes share a large data set: see the README beside this.

mod data_set;
mod worker;

use std::env;
use std::io::{Write, stdout};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lock_core::LockProvider;
use lock_core::file::FileBackend;
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::data_set::DataSet;

/// The time between two looks at what all processes have done.
const LOOK: Duration = Duration::from_millis(200);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let directory = arguments
        .next()
        .context("usage: bulk DIRECTORY [PARTS] [WORKERS]")?;
    let parts = arguments.next().map_or(Ok(1_000), |parts| parts.parse())?;
    let workers = arguments.next().map_or(Ok(4), |workers| workers.parse())?;
    let directory = Path::new(&directory);
    let data = Arc::new(DataSet::open(directory, parts)?);
    let locks = LockProvider::new(FileBackend::open(directory.join("locks"))?);

    let bars = MultiProgress::new();
    let style = ProgressStyle::with_template("{prefix:>9} {bar:40} {pos}/{len} {msg}")?;
    let bar = |prefix: String| {
        let bar = bars.add(ProgressBar::new(parts.into()));
        bar.with_style(style.clone()).with_prefix(prefix)
    };
    let all = bar("all".to_owned());
    let mut working: JoinSet<anyhow::Result<u32>> = (1..=workers)
        .map(|number: u32| {
            let bar = bar(format!("worker {number}"));
            worker::work(Arc::clone(&data), locks.clone(), bar)
        })
        .collect();

    let mut done_here = 0;
    let mut looks = interval(LOOK);
    loop {
        tokio::select! {
            done = working.join_next() => match done {
                Some(done) => done_here += done??,
                None => break,
            },
            _ = looks.tick() => all.set_position(data.finished()?),
        }
    }
    all.finish();
    locks.shutdown(Duration::ZERO).await;
    let primes = data.total()?;
    writeln!(
        stdout(),
        "{done_here} of {parts} parts were done here; {primes} primes"
    )?;
    Ok(())
}
