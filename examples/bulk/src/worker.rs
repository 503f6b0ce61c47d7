//! One worker: claim a part, do it, until all are done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use lock_core::{LockError, LockGuard, LockName, LockProvider};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::data_set::DataSet;

/// So many parts are asked for at a time. A claim of all would be a long question for one part.
const WINDOW: usize = 16;

/// How long to leave parts alone that others are at.
const PAUSE: Duration = Duration::from_millis(50);

/// Works until every part is done, by whomever; returns how many were done here.
pub(crate) async fn work(
    data: Arc<DataSet>,
    locks: LockProvider,
    bar: ProgressBar,
) -> anyhow::Result<u32> {
    let mut open: Vec<u32> = data.parts().collect();
    // Workers that begin at the same end get in each other's way.
    fastrand::shuffle(&mut open);
    let mut open = VecDeque::from(open);
    let mut done = 0;
    while !open.is_empty() {
        let window = next_window(&data, &mut open);
        let claimed = claim_one(&locks, &window).await?;
        let Some((mine, guard)) = claimed else {
            open.extend(window);
            sleep(PAUSE).await;
            continue;
        };
        open.extend(window.into_iter().filter(|&part| part != mine));
        // Done by another, perhaps, before the lock was ours.
        if !data.is_done(mine) {
            bar.set_message(format!("part {mine}"));
            let data = Arc::clone(&data);
            let work = spawn_blocking(move || data.process(mine));
            guard.protect(work).await???;
            done += 1;
            bar.inc(1);
        }
        guard.release().await?;
    }
    bar.finish_with_message("done");
    Ok(done)
}

/// The next few that are not done.
fn next_window(data: &DataSet, open: &mut VecDeque<u32>) -> Vec<u32> {
    let mut window = Vec::new();
    while window.len() < WINDOW
        && let Some(part) = open.pop_front()
    {
        if !data.is_done(part) {
            window.push(part);
        }
    }
    window
}

/// Locks one of these parts that no other worker has.
async fn claim_one(
    locks: &LockProvider,
    window: &[u32],
) -> Result<Option<(u32, LockGuard)>, LockError> {
    let names: Result<Vec<_>, _> = window
        .iter()
        .map(|part| LockName::new("part", "count", part))
        .collect();
    let names = names?;
    let Some(guard) = locks.claim(names.clone(), 1).await?.pop() else {
        return Ok(None);
    };
    let claimed = names
        .iter()
        .zip(window)
        .find(|(name, _)| *name == guard.name());
    Ok(claimed.map(|(_, part)| (*part, guard)))
}
