//! Who holds a lock, as the store says.

use std::time::{Duration, SystemTime};

use lock_core::{LockMode, LockName, LockProvider};

use super::{PATIENCE, take, wait_for};
use crate::{Harness, eventually, is_held};

/// By how much the clock of a store, or what a file system keeps of it, may differ from ours.
const APART: Duration = Duration::from_millis(100);

/// The process that holds it: what an instance is called by default ends with its number.
async fn holding_process(client: &LockProvider, name: &LockName) -> Option<u32> {
    let holder = client.holder(name).await.unwrap()?;
    let instance = holder.instance().expect("all of this version say it");
    let (_, process) = instance.rsplit_once(':').unwrap();
    Some(process.parse().unwrap())
}

/// From the grant to the release, by whichever client is asked.
pub async fn a_lock_names_its_holder_while_it_is_held(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    assert_eq!(here.holder(&name).await.unwrap(), None);
    let asked = SystemTime::now();
    let guard = take(&here, &name).await;
    for client in [&here, &there] {
        let holder = client.holder(&name).await.unwrap().unwrap();
        let us = format!(":{}", std::process::id());
        assert!(holder.instance().unwrap().ends_with(&us), "{holder:?}");
        assert_eq!(holder.mode(), LockMode::Exclusive);
        if let Some(since) = holder.since() {
            assert!(since + APART >= asked, "{holder:?}");
            assert!(since <= SystemTime::now() + APART, "{holder:?}");
        }
        assert_eq!(client.holder(harness.name()).await.unwrap(), None);
    }
    assert!(guard.is_valid());
    guard.release().await.unwrap();
    assert_eq!(there.holder(&name).await.unwrap(), None);

    // A guard that is dropped is released in the background.
    drop(take(&here, &name).await);
    eventually("it is free", || async {
        there.holder(&name).await.unwrap().is_none()
    })
    .await;
}

/// What a refused try and a waiter leave in the store takes nothing from it.
pub async fn a_lock_that_is_waited_for_names_its_holder_and_then_the_next(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    let us = Some(std::process::id());
    for _ in 0..3 {
        let guard = wait_for(&here, &name).await;
        assert!(is_held(&there, &name).await);
        assert_eq!(holding_process(&there, &name).await, us);
        let lock = there.lock(&name).unwrap();
        let waiting = tokio::spawn(async move { lock.acquire(PATIENCE).await });
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(holding_process(&here, &name).await, us);
        guard.release().await.unwrap();
        let guard = waiting.await.unwrap().unwrap();
        assert_eq!(holding_process(&here, &name).await, us);
        guard.release().await.unwrap();
    }
}

/// Many ask together, for locks that are held, and for such as are not.
pub async fn holders_of_many_locks_are_told_apart(harness: Harness) {
    let (here, there) = (harness.client().await, harness.client().await);
    let names: Vec<_> = (0..300).map(|_| harness.name()).collect();
    let held: Vec<_> = names.iter().step_by(3).cloned().collect();
    let guards = here.claim(held.clone(), held.len()).await.unwrap();
    assert_eq!(guards.len(), held.len());
    let asked = names.iter().map(|name| there.holder(name));
    let answers = futures_util::future::join_all(asked).await;
    for (at, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap().is_some(), at % 3 == 0, "{at}");
    }
    drop(guards);
}

/// It is named from elsewhere, and not any more once its lock is free.
pub async fn a_holder_in_another_process_is_named_until_its_end(harness: Harness) {
    let (client, name) = (harness.client().await, harness.name());
    let mut child = harness.child().await;
    child.hold(&name).await;
    assert_eq!(holding_process(&client, &name).await, Some(child.id()));
    child.release().await;
    assert_eq!(client.holder(&name).await.unwrap(), None);
    child.hold(&name).await;
    assert_eq!(holding_process(&client, &name).await, Some(child.id()));
    child.kill().await;
    // Where its lock ends with its lease it is named until then.
    eventually("it is free", || async {
        client.holder(&name).await.unwrap().is_none()
    })
    .await;
    let guard = take(&client, &name).await;
    let us = Some(std::process::id());
    assert_eq!(holding_process(&client, &name).await, us);
    guard.release().await.unwrap();
}

/// It is an error, and not a lock that is free.
pub async fn who_holds_a_lock_is_not_told_after_a_shutdown(harness: Harness) {
    let (client, name) = (harness.client().await, harness.name());
    client.shutdown(Duration::ZERO).await;
    let error = client.holder(&name).await.unwrap_err();
    assert!(error.is_closed(), "{error}");
    assert_eq!(error.lock(), Some(&name));
}
