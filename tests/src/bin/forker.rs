//! A process that has a child from a fork without `exec` while it holds a lock: `forker ADDRESS NAME`.
//!
//! The child drops its copy of the guard, tries another name, and says what it was answered. Both end when
//! the standard input does.

#![allow(clippy::unwrap_used, reason = "a test fails when its child does")]

use std::error::Error;
use std::io::{self, Read, Write};
use std::time::Duration;

use fork::Fork;
use lock_tests::address;
use tokio::runtime::Builder;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, name] = arguments.as_slice() else {
        return Err("usage: forker ADDRESS NAME".into());
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (locks, guard) = runtime.block_on(async {
        let locks = address::open(address).await?.locks;
        let guard = locks.lock(name.as_str())?.acquire(Duration::ZERO).await?;
        Ok::<_, Box<dyn Error + Send + Sync>>((locks, guard))
    })?;
    say("ready");
    if fork::fork()? == Fork::Child {
        // What a runtime has is not for two processes: a new one.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        drop(guard);
        let tried = runtime.block_on(locks.lock("order:process:7")?.try_acquire(Duration::ZERO));
        say(match tried {
            Err(error) if error.is_unavailable() => "unanswered",
            _ => "answered",
        });
        io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(guard);
    Ok(())
}

fn say(line: &str) {
    let mut output = io::stdout().lock();
    output.write_all(format!("{line}\n").as_bytes()).unwrap();
    output.flush().unwrap();
}
