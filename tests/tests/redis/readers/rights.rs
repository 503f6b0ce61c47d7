//! Users that may do a part of what readers need, and servers that lack some of it. What is refused is the reader's alone,
//! and nothing is left half done.

use std::time::Duration;

use futures_util::future::join_all;
use lock_core::backend::{Backend, Grant, LockRequest};
use lock_core::redis::RedisBackend;
use lock_core::{LockError, LockName, LossReason};
use lock_tests::servers::RedisServer;
use lock_tests::{Log, redis_user};
use tokio::time::{sleep, timeout};

use super::{
    FOR_EVER, attempt, backend, is_refused, key, lost, members, places, reads, take, wait_for,
    writes,
};
use crate::support::{LEASE, PATIENCE};

const USER: &str = "app:secret";

/// What readers alone need.
const OF_READERS: [&str; 5] = ["zadd", "zrange", "zrem", "zremrangebyscore", "zscore"];

async fn takes_away(server: &RedisServer, commands: &[&str]) {
    let mut rights: Vec<_> = ["~lock:*", "&lock:*", "+@all"].map(str::to_owned).into();
    rights.extend(commands.iter().map(|command| format!("-{command}")));
    redis_user(server, USER, &rights).await;
}

async fn refusal(backend: &RedisBackend, request: &LockRequest) -> LockError {
    backend
        .try_acquire(request)
        .await
        .expect_err("it is refused")
}

/// It may be given back.
fn says_what_gives_it(error: &LockError) {
    let said = error.to_string();
    assert!(error.is_unavailable(), "{error}");
    assert!(said.contains("`ACL SETUSER app ~lock:*"), "{said}");
    assert!(
        OF_READERS
            .iter()
            .all(|right| said.contains(&format!("+{right} "))),
        "{said}"
    );
}

/// Names beside the one of the readers.
fn other(id: u64) -> LockRequest {
    LockRequest::new(LockName::new("order", "process", 1_000 + id).unwrap())
}

#[tokio::test]
async fn a_reader_that_lacks_a_right_is_refused_with_what_gives_it_and_leaves_nothing() {
    let server = RedisServer::start().await;
    takes_away(&server, &[]).await;
    let app = backend(&server.url_for(USER), FOR_EVER).await;
    let admin = backend(&server.url(), FOR_EVER).await;
    for lacks in OF_READERS {
        takes_away(&server, &[lacks]).await;
        says_what_gives_it(&refusal(&app, &reads()).await);
        // Neither the lock nor a share is left.
        take(&admin, &writes()).await.release().await.unwrap();
        // Nor where it joins others: they are the last.
        let held = take(&admin, &reads()).await;
        says_what_gives_it(&refusal(&app, &reads()).await);
        assert_eq!(members(&server).await.len(), 1, "{lacks}");
        held.release().await.unwrap();
        take(&admin, &writes()).await.release().await.unwrap();
        // And the locks of writers are granted beside it, in the same call as well.
        let (written, (shared, own)) = (other(1), (reads(), other(2)));
        let asked = tokio::join!(
            app.try_acquire(&written),
            app.try_acquire(&shared),
            app.try_acquire(&own)
        );
        assert!(
            asked.0.is_ok() && asked.1.is_err() && asked.2.is_ok(),
            "{lacks}"
        );
    }
    takes_away(&server, &[]).await;
    take(&app, &reads()).await.release().await.unwrap();
}

#[tokio::test]
async fn a_reader_of_a_server_without_a_command_is_refused_and_writers_are_not() {
    for command in OF_READERS {
        let rename = format!("{} \"\"", command.to_uppercase());
        let server = RedisServer::with(&[("rename-command", &rename)]).await;
        let one = backend(&server.url(), FOR_EVER).await;
        let error = refusal(&one, &reads()).await;
        assert!(error.is_unavailable(), "{error}");
        assert!(
            error.to_string().contains("renamed or forbidden"),
            "{error}"
        );
        take(&one, &writes()).await.release().await.unwrap();
    }
}

#[tokio::test]
async fn what_a_reader_may_not_renew_costs_writers_nothing() {
    let log = Log::of_process();
    for lacks in ["zscore", "zadd"] {
        let before = log.count("ACL SETUSER app ~lock:*");
        let server = RedisServer::start().await;
        takes_away(&server, &[]).await;
        let app = backend(&server.url_for(USER), LEASE).await;
        let reader = take(&app, &reads()).await;
        let mut writers = Vec::new();
        for id in 0..10 {
            writers.push(take(&app, &other(id)).await);
        }
        takes_away(&server, &[lacks]).await;
        assert_eq!(lost(&reader).await, LossReason::Expired);
        sleep(LEASE).await;
        assert!(
            writers.iter().all(|writer| writer.lease().is_valid()),
            "{lacks}"
        );
        assert!(log.count("ACL SETUSER app ~lock:*") > before);
        for writer in writers {
            writer.release().await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_a_reader_may_not_give_back_costs_writers_nothing() {
    let server = RedisServer::start().await;
    takes_away(&server, &[]).await;
    let app = backend(&server.url_for(USER), FOR_EVER).await;
    for lacks in ["zrem", "zrange"] {
        let (mut readers, mut writers) = (Vec::new(), Vec::new());
        for id in 0..20 {
            readers.push(take(&app, &reads()).await);
            writers.push(take(&app, &other(id)).await);
        }
        takes_away(&server, &[lacks]).await;
        // As they come to share calls.
        let readers = readers.into_iter().map(Grant::release);
        let writers = writers.into_iter().map(Grant::release);
        let all = async { tokio::join!(join_all(readers), join_all(writers)) };
        let (readers, writers) = timeout(PATIENCE, all).await.expect("each is answered");
        assert!(writers.iter().all(Result::is_ok), "{lacks}: {writers:?}");
        for released in readers {
            match (lacks, released) {
                // The share is given back, and the lock ends with its lease.
                ("zrange", released) => released.unwrap(),
                (_, released) => says_what_gives_it(&released.unwrap_err()),
            }
        }
        let () = server.ask(&["FLUSHDB"]).await.unwrap();
        takes_away(&server, &[]).await;
    }
}

#[tokio::test]
async fn a_writer_without_the_rights_of_readers_waits_for_them_as_for_any_holder() {
    let server = RedisServer::start().await;
    takes_away(&server, &OF_READERS).await;
    let app = backend(&server.url_for(USER), FOR_EVER).await;
    let admin = backend(&server.url(), FOR_EVER).await;
    let held = take(&admin, &reads()).await;
    assert!(is_refused(&app, &writes()).await);
    let request = writes();
    let (writer, ()) = tokio::join!(timeout(PATIENCE, wait_for(&app, &request)), async {
        sleep(Duration::from_millis(100)).await;
        held.release().await.unwrap();
    });
    let writer = writer.expect("it is woken");
    // It keeps no reader out while it waits.
    assert_eq!(places(&server).await, 0);
    assert!(attempt(&admin, &reads()).await.is_none());
    writer.release().await.unwrap();
    assert_eq!(server.ask::<u32>(&["EXISTS", &key()]).await.unwrap(), 0);
}
