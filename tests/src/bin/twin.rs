//! Two processes that begin alike, from a fork, as any that this program starts: `twin ADDRESS NAME`.
//!
//! Each says `granted` or `contended` for one try of the lock, keeps it, and ends when the standard
//! input does.

#![allow(clippy::unwrap_used, reason = "a test fails when its child does")]

use std::error::Error;
use std::io::{self, Read, Write};
use std::time::Duration;

use lock_tests::address;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::runtime::Runtime;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, name] = arguments.as_slice() else {
        return Err("usage: twin ADDRESS NAME".into());
    };
    say("ready");
    // As an application that wants repeatable runs.
    fastrand::seed(7);
    // The state of the generator is copied to both; before it is used it would be made in each.
    fastrand::u8(..);
    fork::fork()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Runtime::new()?.block_on(async {
        let locks = address::open(address).await?.locks;
        let guard = locks
            .lock(name.as_str())?
            .try_acquire(Duration::ZERO)
            .await?;
        say(if guard.is_some() {
            "granted"
        } else {
            "contended"
        });
        tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await??;
        Ok(())
    })
}

fn say(line: &str) {
    let mut output = io::stdout().lock();
    output.write_all(format!("{line}\n").as_bytes()).unwrap();
    output.flush().unwrap();
}
