//! What only the leader of the service does: the others send their clients to it.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use lock_tests::eventually;
use lock_tests::orders::{Instance, PATIENCE, Shop};
use lock_tests::servers::{Port, PostgresServer, RedisServer};
use reqwest::{Client, Response, StatusCode, redirect};
use rustix::process::Signal;

const PARCELS: &str = "/parcels?work_ms=0";

/// Of a service with several instances, each at a port of its own.
struct Fleet {
    shop: Shop,
    environment: Vec<(&'static str, String)>,
}

impl Fleet {
    fn of(environment: &[(&'static str, String)]) -> Self {
        Self {
            shop: Shop::new(),
            environment: environment.to_vec(),
        }
    }

    async fn open(&self, port: &Port) -> Instance {
        let bind = format!("127.0.0.1:{}", port.number());
        let mut environment = vec![("BIND", &*bind)];
        environment.extend(
            self.environment
                .iter()
                .map(|(name, value)| (*name, &**value)),
        );
        self.shop.open_with(&environment).await
    }
}

/// What an instance itself answers.
async fn answer(instance: &Instance) -> Response {
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none());
    let url = format!("http://{}{PARCELS}", instance.address());
    let request = client.build().unwrap().post(url).timeout(PATIENCE);
    request.send().await.unwrap()
}

/// The leader serves, the other names it, and takes its place when it ends with this signal.
async fn followers_send_clients_to_the_leader(environment: &[(&'static str, String)], end: Signal) {
    let fleet = Fleet::of(environment);
    let ports = [Port::reserve(), Port::reserve()];
    let mut first = fleet.open(&ports[0]).await;
    eventually("it leads", async || {
        answer(&first).await.status() == StatusCode::OK
    })
    .await;
    let second = fleet.open(&ports[1]).await;
    let told = answer(&second).await;
    assert_eq!(told.status(), StatusCode::TEMPORARY_REDIRECT, "{told:?}");
    let location = told.headers()["location"].to_str().unwrap();
    assert_eq!(location, format!("http://{}{PARCELS}", first.address()));
    // A client that follows it is served, by the leader.
    let served = second.post(PARCELS).await.receipt();
    assert_eq!(served.instance, first.id());

    first.signal(end);
    let _ = first.wait().await;
    eventually("the other leads", async || {
        answer(&second).await.status() == StatusCode::OK
    })
    .await;
    let then = second.post(PARCELS).await.receipt();
    assert_eq!(then.instance, second.id());
    assert!(then.token > served.token);
    // The one that comes back names it in turn.
    let back = fleet.open(&ports[0]).await;
    let told = answer(&back).await;
    assert_eq!(told.status(), StatusCode::TEMPORARY_REDIRECT, "{told:?}");
    let location = told.headers()["location"].to_str().unwrap();
    assert_eq!(location, format!("http://{}{PARCELS}", second.address()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_send_clients_to_the_leader_over_files() {
    followers_send_clients_to_the_leader(&[], Signal::KILL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_send_clients_to_the_leader_over_postgres() {
    let server = PostgresServer::start().await;
    followers_send_clients_to_the_leader(&[("DATABASE_URL", server.url())], Signal::KILL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_send_clients_to_the_leader_over_redis() {
    let server = RedisServer::up_for_a_day().await;
    // The lock of an instance that was killed ends with its lease.
    followers_send_clients_to_the_leader(&[("REDIS_URL", server.url())], Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_cannot_be_called_so_does_not_start() {
    let shop = Shop::new();
    let mut command = lock_tests::orders::command(&shop.lock_dir(), &[("LOCK_INSTANCE", "web 1")]);
    let output = command
        .stderr(std::process::Stdio::piped())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("LOCK_INSTANCE: it has a blank"), "{said}");
}
