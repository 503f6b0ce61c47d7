//! Fencing tokens: each holder has a greater one than those before it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use super::{take, wait_for};
use crate::{Harness, eventually};

/// A thousand holders of one lock, from four clients.
pub async fn tokens_grow_over_a_thousand_acquisitions_from_four_clients(harness: Harness) {
    let (name, tokens) = (harness.name(), Arc::new(Mutex::new(Vec::new())));
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let (client, name, tokens) = (harness.client().await, name.clone(), Arc::clone(&tokens));
        clients.spawn(async move {
            for _ in 0..250 {
                let guard = wait_for(&client, &name).await;
                let token = guard.fencing_token().await.unwrap();
                // In the order of the holds: the lock is held here.
                tokens.lock().unwrap().push(token);
                guard.release().await.unwrap();
            }
        });
    }
    clients.join_all().await;
    let tokens = tokens.lock().unwrap();
    assert_eq!(tokens.len(), 1_000);
    assert!(
        tokens.is_sorted_by(|earlier, later| earlier < later),
        "{tokens:?}"
    );
}

/// Asked twice, or by several together, a guard has one token.
pub async fn a_guard_has_one_token_however_often_it_is_asked(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    let guard = take(&here, &name).await;
    let (first, second) = tokio::join!(guard.fencing_token(), guard.fencing_token());
    let token = first.unwrap();
    assert_eq!(second.unwrap(), token);
    assert_eq!(guard.fencing_token().await.unwrap(), token);
    assert_eq!(token.to_string().parse(), Ok(token.get()));
    guard.release().await.unwrap();

    // One who never asked does not hold the others up.
    wait_for(&there, &name).await.release().await.unwrap();
    let next = wait_for(&there, &name).await.fencing_token().await.unwrap();
    assert!(next > token, "{next} after {token}");
}

/// A holder that lost the lock could be given a greater token than the next holder.
pub async fn a_token_is_refused_after_the_loss(harness: Harness) {
    // Of two clients: what one of them has is lost together, in a session.
    let (client, name) = (harness.client().await, harness.name());
    let (asked, unasked) = (take(&client, &name).await, harness.name());
    let unasked = (take(&harness.client().await, &unasked).await, unasked);
    asked.fencing_token().await.unwrap();
    harness.store.lose(&name).await;
    harness.store.lose(&unasked.1).await;
    eventually("the losses are seen", || async {
        !asked.is_valid() && !unasked.0.is_valid()
    })
    .await;
    assert!(asked.fencing_token().await.unwrap_err().is_lost());
    assert!(unasked.0.fencing_token().await.unwrap_err().is_lost());
}

/// Holders of different locks are not to be compared, but no two holds have the same number.
pub async fn no_two_holds_of_a_lock_have_one_token_also_after_a_loss(harness: Harness) {
    let (here, there, name) = (
        harness.client().await,
        harness.client().await,
        harness.name(),
    );
    let mut tokens = BTreeSet::new();
    for client in [&here, &there, &here] {
        let guard = wait_for(client, &name).await;
        let token = guard.fencing_token().await.unwrap();
        assert!(
            tokens.last().is_none_or(|last| *last < token),
            "{token} after {tokens:?}"
        );
        tokens.insert(token);
        harness.store.lose(&name).await;
    }
    assert_eq!(tokens.len(), 3);
}
