//! The store in Redis: servers that are no place for records.

use std::time::Duration;

use bytes::Bytes;
use lock_core::LockProvider;
use lock_core::memory::MemoryBackend;
use lock_idempotency::{Fingerprint, IdempotencyStore, Record, RecordKey, RedisStore};
use lock_tests::servers::RedisServer;

use crate::support::{Answer, Service, layer_over};

const LONG: Duration = Duration::from_secs(24 * 60 * 60);

fn record() -> Record {
    let response = axum::http::Response::new(Bytes::from_static(b"paid"));
    Record::new(Fingerprint::from_bytes([0; 32]), response)
}

/// A replica answers what it knows, which may be old, and stores nothing: each retry would run again.
#[tokio::test]
async fn a_replica_runs_nothing() {
    let server = RedisServer::start().await;
    let replica = server.replica().await;
    let refused = RedisStore::connect(&replica.url()).await.unwrap_err();
    assert!(refused.is_misconfigured(), "{refused:?}");
    assert!(refused.to_string().contains("connect to its master"));
    let store = RedisStore::new(replica.connection().await);
    let locks = LockProvider::new(MemoryBackend::new());
    let service = Service::start(layer_over(locks, store)).await;
    let down = Answer::of(service.payment()).await;
    assert_eq!(
        (down.status, &*down.reason(), service.runs()),
        (503, "idempotency-store-unavailable", 0)
    );
    replica.promote().await;
    assert_eq!(Answer::of(service.payment()).await.status, 201);
    assert!(Answer::of(service.payment()).await.is_replay());
}

/// The look would be answered and the record refused: each retry would run again.
#[tokio::test]
async fn a_server_whose_memory_is_full_replays_and_runs_nothing() {
    let server = RedisServer::start().await;
    let store = RedisStore::connect(&server.url()).await.unwrap();
    let locks = LockProvider::new(MemoryBackend::new());
    let service = Service::start(layer_over(locks, store)).await;
    assert_eq!(Answer::of(service.payment()).await.status, 201);
    let memory = async |limit: &str| {
        let () = (server.ask(&["CONFIG", "SET", "maxmemory", limit]).await).unwrap();
    };
    memory("1").await;
    let refused = Answer::of(service.with_key("other")).await;
    assert_eq!(
        (refused.status, &*refused.reason(), service.runs()),
        (503, "idempotency-store-unavailable", 1)
    );
    assert!(Answer::of(service.payment()).await.is_replay());
    let keys: Vec<String> = server.ask(&["KEYS", "*"]).await.unwrap();
    assert_eq!(keys.len(), 1, "a look leaves nothing behind");
    memory("0").await;
    assert_eq!(Answer::of(service.with_key("other")).await.status, 201);
}

#[tokio::test]
async fn a_server_that_evicts_or_is_a_node_of_a_cluster_is_refused() {
    let evicts = RedisServer::options().setting("maxmemory-policy", "volatile-lru");
    for (options, says) in [
        (evicts, "set it to `noeviction`"),
        (RedisServer::options().cluster(), "cluster::ClusterClient"),
    ] {
        let server = options.start().await;
        let refused = RedisStore::connect(&server.url()).await.unwrap_err();
        assert!(refused.is_misconfigured(), "{refused:?}");
        assert!(refused.to_string().contains(says), "{refused}");
    }
}

#[tokio::test]
async fn the_documented_rights_are_enough_and_errors_name_them() {
    let server = RedisServer::start().await;
    let user = async |name: &str, rights: &[&str]| {
        let mut command = vec!["ACL", "SETUSER", name, "on", ">x"];
        command.extend(rights);
        let () = server.ask(&command).await.unwrap();
        let url = server.url_for(&format!("{name}:x"));
        RedisStore::connect(&url).await.unwrap()
    };
    let key = &RecordKey::new("ann", "/payments", "a");
    let app = user(
        "app",
        &["~lock-idempotency:*", "+getex", "+set", "+setrange"],
    )
    .await;
    assert_eq!(app.get(key).await.unwrap(), None);
    assert!(app.put(key, &record(), LONG).await.unwrap());
    assert_eq!(app.get(key).await.unwrap(), Some(record()));
    let poor = user("poor", &["~lock-idempotency:*", "+get", "+info"]).await;
    let refused = poor.get(key).await.unwrap_err();
    assert!(refused.is_misconfigured(), "{refused:?}");
    assert!(
        refused.to_string().contains("+getex +set +setrange"),
        "{refused}"
    );
}
