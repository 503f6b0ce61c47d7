//! Who leads, as any candidate learns.

use lock_core::memory::MemoryBackend;
use lock_core::{Holder, LockProvider};

use crate::leading::{NAME, elected};

fn named(store: &MemoryBackend, instance: &str) -> LockProvider {
    LockProvider::new(store.clone().with_instance(instance).unwrap())
}

#[tokio::test]
async fn every_candidate_is_told_who_leads_and_then_who_leads_next() {
    let store = MemoryBackend::new();
    let (one, other) = (named(&store, "10.0.0.5:80"), named(&store, "10.0.0.6:80"));
    let mut first = one.leader(NAME).unwrap();
    assert_eq!(first.current().await.unwrap(), None);
    elected(&mut first).await;
    let mut second = other.leader(NAME).unwrap();
    for asked in [&first, &second] {
        let leader = asked.current().await.unwrap().unwrap();
        assert_eq!(leader.instance(), Some("10.0.0.5:80"));
    }
    drop(first);
    elected(&mut second).await;
    let leader = second.current().await.unwrap();
    assert_eq!(
        leader.as_ref().and_then(Holder::instance),
        Some("10.0.0.6:80")
    );
}

#[tokio::test]
async fn who_leads_is_not_known_while_the_store_is_down() {
    let store = MemoryBackend::new();
    let leader = named(&store, "10.0.0.5:80").leader(NAME).unwrap();
    store.set_available(false);
    let error = leader.current().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(error.lock(), Some(leader.name()));
}
