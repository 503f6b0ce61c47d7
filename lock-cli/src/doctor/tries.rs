//! Uses the store as a service does.

use std::time::Duration;

use lock_core::{LockError, LockName, LockProvider};
use tokio::time::Instant;

use super::findings::Findings;

/// How many exchanges are measured.
const EXCHANGES: usize = 50;

/// A store that takes longer is near its limits: an answer is waited for for 2 s.
const SLOW: Duration = Duration::from_millis(500);

/// How long exchanges with the store take, one after the other.
pub(super) async fn round_trips(locks: &LockProvider, findings: &Findings) {
    let mut took = Vec::with_capacity(EXCHANGES);
    for _ in 0..EXCHANGES {
        let started = Instant::now();
        if !locks.health().await.is_up() {
            // The look at its health says why.
            return;
        }
        took.push(started.elapsed());
    }
    took.sort_unstable();
    let at = |percent: usize| took[(EXCHANGES * percent / 100).min(EXCHANGES - 1)];
    let (half, most) = (at(50), at(99));
    let found = format!("half within {half:.1?}, the slowest of {EXCHANGES} in {most:.1?}");
    match most > SLOW {
        false => findings.passed("round trip", &found),
        true => findings.warning(
            "round trip",
            &format!("{found}: choose a store that is nearer, or look at its load"),
        ),
    }
}

/// Takes a lock that no service has, twice, with all that belongs to it.
pub(super) async fn lock(locks: &LockProvider, findings: &Findings) -> Result<(), LockError> {
    let name = LockName::job(&format!("dlock-doctor-{}", std::process::id()))?;
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let started = Instant::now();
        let guard = locks.acquire(&name, Duration::from_secs(2)).await?;
        tokens.push(guard.fencing_token().await?);
        let holder = locks.holder(&name).await;
        guard.release().await?;
        if tokens.len() == 2 {
            continue;
        }
        let took = started.elapsed();
        findings.passed(
            "lock",
            &format!("acquired, fenced and released in {took:.1?}"),
        );
        match holder {
            Ok(Some(holder)) => findings.passed(
                "holder",
                &format!(
                    "this process is found as {}",
                    holder.instance().unwrap_or("an unnamed one")
                ),
            ),
            Ok(None) => findings.failed("holder", "the store does not know of a lock that is held"),
            Err(error) => findings.warning("holder", &error.to_string()),
        }
    }
    match tokens[0] < tokens[1] {
        true => findings.passed(
            "fencing token",
            &format!("{}, and greater with the next holder", tokens[0]),
        ),
        false => findings.failed(
            "fencing token",
            &format!("{} was not followed by a greater one", tokens[0]),
        ),
    }
    Ok(())
}
