//! Locks that are lost, and stores that fail at each step.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lock_core::memory::MemoryBackend;
use lock_core::{LockError, LockName, LockProvider};
use lock_idempotency::{IdempotencyStore, MemoryStore, Record, RecordKey};
use lock_tests::Log;
use tracing::Level;

use crate::support::{Answer, KEY, Service, layer_over};

/// What a call of the store does, by its number.
type Script = fn(usize) -> Does;

#[derive(Clone, Copy)]
enum Does {
    Answers,
    Fails,
    Hangs,
    IsSetUpWrongly,
    /// Another has stored under the key just before: this response, or the one that is stored here.
    ComesSecondTo(Option<&'static str>),
}

/// A store whose calls follow a script.
#[derive(Clone)]
struct Scripted {
    store: MemoryStore,
    calls: Arc<AtomicUsize>,
    script: Script,
}

impl Scripted {
    fn new(script: Script) -> Self {
        Self {
            store: MemoryStore::new(),
            calls: Arc::default(),
            script,
        }
    }

    async fn call(&self) -> Result<Does, LockError> {
        match (self.script)(self.calls.fetch_add(1, Ordering::SeqCst) + 1) {
            Does::Fails => {
                Err(LockError::unavailable("it is down").with_source("the disk is full"))
            }
            Does::Hangs => pending().await,
            Does::IsSetUpWrongly => Err(LockError::misconfigured("the table `secret` is missing")),
            does => Ok(does),
        }
    }
}

impl IdempotencyStore for Scripted {
    async fn get(&self, key: &RecordKey) -> Result<Option<Record>, LockError> {
        self.call().await?;
        IdempotencyStore::get(&self.store, key).await
    }

    async fn put(
        &self,
        key: &RecordKey,
        record: &Record,
        lifetime: Duration,
    ) -> Result<bool, LockError> {
        if let Does::ComesSecondTo(other) = self.call().await? {
            let other = other.map(|place| {
                let response = axum::http::Response::builder().header("location", place);
                Record::new(*record.fingerprint(), response.body(Bytes::new()).unwrap())
            });
            let first = other.as_ref().unwrap_or(record);
            assert!(self.store.put(key, first, lifetime).await?);
        }
        self.store.put(key, record, lifetime).await
    }
}

async fn service(script: Script) -> Service {
    let locks = LockProvider::new(MemoryBackend::new());
    let layer = layer_over(locks, Scripted::new(script));
    Service::start(layer.store_timeout(Duration::from_millis(300))).await
}

#[tokio::test]
async fn a_lock_that_is_lost_in_the_middle_stores_nothing() {
    let backend = MemoryBackend::new();
    let layer = layer_over(LockProvider::new(backend.clone()), MemoryStore::new());
    let service = Service::start(layer).await;
    let first = tokio::spawn(Answer::of(service.payment().header("x-wait", "1")));
    service.begun().await;
    let key = RecordKey::new("ann", "/payments", KEY);
    assert!(backend.revoke(&LockName::new("idempotency", "key", key).unwrap()));
    let lost = first.await.unwrap();
    assert_eq!((lost.status, &*lost.reason()), (500, "lock-lost"));
    assert!(String::from_utf8_lossy(&lost.body).contains(r#""outcome":"unknown""#));
    // A handler that would go on now would store.
    service.shop.go.add_permits(1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let next = Answer::of(service.payment()).await;
    assert_eq!(
        (next.status, next.is_replay(), service.runs()),
        (201, false, 2)
    );
}

#[tokio::test]
async fn a_store_that_is_down_is_503_and_nothing_runs() {
    // Down before the lock, and between the first look and the one under the lock; it fails, or hangs.
    let scripts: [Script; 4] = [
        |call| {
            if call == 1 {
                Does::Fails
            } else {
                Does::Answers
            }
        },
        |call| {
            if call == 2 {
                Does::Fails
            } else {
                Does::Answers
            }
        },
        |call| {
            if call == 1 {
                Does::Hangs
            } else {
                Does::Answers
            }
        },
        |call| {
            if call == 2 {
                Does::Hangs
            } else {
                Does::Answers
            }
        },
    ];
    for script in scripts {
        let service = service(script).await;
        let down = Answer::of(service.payment()).await;
        assert_eq!(
            (down.status, &*down.reason()),
            (503, "idempotency-store-unavailable")
        );
        assert!(down.headers.contains_key("retry-after"));
        assert_eq!(service.runs(), 0);
        let first = Answer::of(service.payment()).await;
        assert_eq!((first.status, first.is_replay()), (201, false));
    }
}

#[tokio::test]
async fn what_could_not_be_stored_is_answered_and_logged() {
    let log = Log::of_process();
    // The store is asked twice.
    let service = service(|call| match call {
        3 | 4 => Does::Fails,
        _ => Does::Answers,
    })
    .await;
    let first = Answer::of(service.payment()).await;
    assert_eq!(
        (first.status, &first.headers["location"]),
        (201, &"/payments/1".parse().unwrap())
    );
    assert_eq!(log.count("a response could not be stored"), 1);
    // At least once: it is not known that it ran.
    assert!(!Answer::of(service.payment()).await.is_replay());
    assert!(Answer::of(service.payment()).await.is_replay());
    assert_eq!(service.runs(), 2);
}

/// As a connection that was cut while it was not used.
#[tokio::test]
async fn a_store_that_fails_once_has_the_answer() {
    let log = Log::of_process();
    let service = service(|call| match call {
        3 => Does::Fails,
        _ => Does::Answers,
    })
    .await;
    let first = Answer::of(service.payment()).await;
    assert_eq!((first.status, first.is_replay()), (201, false));
    assert!(Answer::of(service.payment()).await.is_replay());
    assert_eq!(service.runs(), 1);
    assert_eq!(log.count("a response could not be stored"), 0);
}

#[tokio::test]
async fn a_store_that_is_set_up_wrongly_says_so_in_the_log_alone() {
    let log = Log::of_process();
    let service = service(|_| Does::IsSetUpWrongly).await;
    for _ in 0..3 {
        let answer = Answer::of(service.payment()).await;
        assert_eq!(
            (answer.status, &*answer.reason()),
            (500, "lock-misconfigured")
        );
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
    }
    assert_eq!(
        (log.count("the table `secret` is missing"), service.runs()),
        (1, 0)
    );
}

#[tokio::test]
async fn without_its_lock_nothing_runs() {
    let locks = LockProvider::new(MemoryBackend::new());
    let service = Service::start(layer_over(locks.clone(), MemoryStore::new())).await;
    Answer::of(service.payment()).await;
    let _ = locks.shutdown(Duration::ZERO).await;
    let refused = Answer::of(service.with_key("another")).await;
    assert_eq!((refused.status, &*refused.reason()), (503, "lock-closed"));
    // A replay needs no lock.
    assert!(Answer::of(service.payment()).await.is_replay());
    assert_eq!(service.runs(), 1);
}

/// A holder that was frozen while it stored, and lost its lock, can be done first.
#[tokio::test]
async fn what_another_has_stored_meanwhile_is_the_one_answer() {
    let log = Log::of_process();
    let service = service(|call| {
        if call == 3 {
            Does::ComesSecondTo(Some("/payments/of-another"))
        } else {
            Does::Answers
        }
    })
    .await;
    for _ in 0..2 {
        let answer = Answer::of(service.payment()).await;
        assert!(answer.is_replay());
        assert_eq!(answer.headers["location"], "/payments/of-another");
    }
    assert_eq!(service.runs(), 1);
    assert_eq!(log.count("whether the work was done twice"), 1);
}

#[tokio::test]
async fn what_is_stored_already_is_no_other_answer() {
    let log = Log::of_process();
    let service = service(|call| {
        if call == 3 {
            Does::ComesSecondTo(None)
        } else {
            Does::Answers
        }
    })
    .await;
    assert!(!Answer::of(service.payment()).await.is_replay());
    assert_eq!(log.count("whether the work was done twice"), 0);
    assert!(Answer::of(service.payment()).await.is_replay());
}

#[tokio::test]
async fn a_store_that_is_down_is_a_line_in_the_log_with_its_cause() {
    let log = Log::of_process();
    let service = service(|call| {
        if call <= 3 || call == 6 || call == 7 {
            Does::Fails
        } else {
            Does::Answers
        }
    })
    .await;
    for _ in 0..3 {
        assert_eq!(Answer::of(service.payment()).await.status, 503);
    }
    assert_eq!(Answer::of(service.payment()).await.status, 201);
    let warnings: Vec<_> = log
        .text()
        .lines()
        .filter(|line| line.contains("the disk is full"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<Level>().ok())
        .collect();
    assert_eq!(warnings, [Level::WARN, Level::ERROR]);
}
