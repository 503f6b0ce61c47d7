//! Answers of several that are asked together, and of which some may be silent.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout_at};

/// How long the others have at least, when one has answered.
const GRACE: Duration = Duration::from_millis(250);

/// All answers, in the order of those who are asked.
///
/// When one has said what is enough, the others have as long again, and counts for silent what has not
/// answered then: an address that leads nowhere costs a whole timeout.
pub(super) async fn gather<T, F: Future<Output = T>>(
    asking: impl Iterator<Item = F>,
    silent: impl Fn() -> T,
    mut is_enough: impl FnMut(&T) -> bool,
) -> Vec<T> {
    let asking = asking.enumerate();
    let asking: FuturesUnordered<_> = asking
        .map(|(at, asking)| async move { (at, asking.await) })
        .collect();
    let mut answers: Vec<T> = (0..asking.len()).map(|_| silent()).collect();
    let take = |(at, answer), _: &mut _| {
        let is_enough = is_enough(&answer);
        answers[at] = answer;
        is_enough
    };
    take_in_time(asking, take).await;
    answers
}

/// The same, where an answer can tell of others that are to be asked: `take` adds these, and says whether it has
/// seen enough.
pub(super) async fn take_in_time<F: Future>(
    mut asking: FuturesUnordered<F>,
    mut take: impl FnMut(F::Output, &mut FuturesUnordered<F>) -> bool,
) {
    let started = Instant::now();
    let mut until = None;
    loop {
        let next = async {
            match until {
                Some(until) => timeout_at(until, asking.next()).await.ok().flatten(),
                None => asking.next().await,
            }
        };
        let Some(answer) = next.await else {
            return;
        };
        if take(answer, &mut asking) {
            let again = started.elapsed().max(GRACE);
            until.get_or_insert_with(|| Instant::now() + again);
        }
    }
}
