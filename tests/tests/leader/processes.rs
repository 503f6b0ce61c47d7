//! Three processes: never two leaders by what they believe themselves, and a new one in time.

use std::time::Duration;

use lock_tests::servers::{Direction, Lan, NetworkNamespace, PostgresServer, Proxy};
use lock_tests::{PostgresStore, Store};
use tokio::time::sleep;

use super::parliament::{BEYOND_THE_LEASE, CUT_OFF, FREEZE, LEASE, PROGRAM, Parliament, Seat};

const ROUNDS: usize = 3;

/// Kills one leader after the other.
async fn kill_leaders(address: &str) {
    let mut parliament = Parliament::of_three(address).await;
    let (mut leader, _) = parliament.leader().await;
    for _ in 0..ROUNDS {
        let fault = parliament.kill(leader).await;
        let (next, elected) = parliament.leader().await;
        fault.succeeded_at(elected);
        fault.over();
        parliament.join(Seat::here(address)).await;
        leader = next;
    }
    parliament.dissolve().await;
}

/// Freezes one leader after the other, for longer than its lease.
async fn freeze_leaders(address: &str) {
    let mut parliament = Parliament::of_three(address).await;
    let (mut leader, _) = parliament.leader().await;
    for _ in 0..ROUNDS {
        let fault = parliament.begin(FREEZE, leader);
        parliament.child(leader).freeze().await;
        let (next, elected) = parliament.leader().await;
        assert_ne!(next, leader);
        fault.succeeded_at(elected);
        // The new leader leads for a while beside the one that is to wake up.
        sleep(Duration::from_millis(300)).await;
        // It is over before the process can do anything again.
        fault.over();
        parliament.child(leader).thaw().await;
        leader = next;
    }
    parliament.dissolve().await;
}

/// Cuts one leader after the other off, each behind a proxy of its own.
async fn cut_leaders_off(address: &str, server: std::net::SocketAddr) {
    let mut parliament = Parliament::empty();
    let mut proxies = Vec::new();
    for _ in 0..3 {
        let proxy = Proxy::to(server).await;
        parliament.join(Seat::here(&proxy.url(address))).await;
        proxies.push(proxy);
    }
    let (mut leader, _) = parliament.leader().await;
    for _ in 0..ROUNDS {
        let fault = parliament.begin(CUT_OFF, leader);
        proxies[leader].swallow(Direction::ToServer);
        proxies[leader].swallow(Direction::ToClient);
        let silence = tokio::spawn(sleep(BEYOND_THE_LEASE));
        let (next, elected) = parliament.leader().await;
        assert_ne!(next, leader);
        fault.succeeded_at(elected);
        silence.await.unwrap();
        fault.over();
        proxies[leader].heal().await;
        leader = next;
    }
    parliament.dissolve().await;
}

/// The leader is behind a router that goes silent, the others are beside the server.
async fn silence_the_network(lan: &Lan, address: &str) {
    let mut parliament = Parliament::empty();
    let seat = |host: &NetworkNamespace| Seat {
        command: host.command(PROGRAM),
        address: address.to_owned(),
    };
    parliament.join(seat(lan.left())).await;
    let (leader, _) = parliament.leader().await;
    for _ in 0..2 {
        parliament.join(seat(lan.right())).await;
    }
    let fault = parliament.begin(CUT_OFF, leader);
    lan.down().await;
    let silence = tokio::spawn(sleep(BEYOND_THE_LEASE));
    let (next, elected) = parliament.leader().await;
    assert_ne!(next, leader);
    fault.succeeded_at(elected);
    silence.await.unwrap();
    fault.over();
    lan.up().await;
    // It takes part again.
    let fault = parliament.kill(next).await;
    let (_, elected) = parliament.leader().await;
    fault.succeeded_at(elected);
    fault.over();
    parliament.dissolve().await;
}

#[tokio::test]
async fn postgres_elects_another_when_the_leader_is_killed() {
    let store = PostgresStore::open().await;
    assert_eq!(PostgresStore::LEASE, Some(LEASE));
    kill_leaders(&store.address().unwrap()).await;
}

#[tokio::test]
async fn postgres_elects_another_when_the_leader_is_frozen() {
    let store = PostgresStore::open().await;
    freeze_leaders(&store.address().unwrap()).await;
}

#[tokio::test]
async fn postgres_elects_another_when_the_leader_is_cut_off() {
    let store = PostgresStore::open().await;
    cut_leaders_off(&store.address().unwrap(), store.server.address()).await;
}

#[tokio::test]
async fn postgres_elects_another_when_the_network_of_the_leader_is_silent() {
    let lan = Lan::new().await;
    let server = PostgresServer::options().inside(lan.right()).start().await;
    let address = format!("postgres:{}:{}", LEASE.as_millis(), server.url());
    silence_the_network(&lan, &address).await;
}

mod redis {
    use lock_tests::RedisStore;
    use lock_tests::servers::RedisServer;

    use super::*;

    #[tokio::test]
    async fn redis_elects_another_when_the_leader_is_killed() {
        let store = RedisStore::open().await;
        assert_eq!(RedisStore::LEASE, Some(LEASE));
        kill_leaders(&store.address().unwrap()).await;
    }

    #[tokio::test]
    async fn redis_elects_another_when_the_leader_is_frozen() {
        let store = RedisStore::open().await;
        freeze_leaders(&store.address().unwrap()).await;
    }

    #[tokio::test]
    async fn redis_elects_another_when_the_leader_is_cut_off() {
        let store = RedisStore::open().await;
        cut_leaders_off(&store.address().unwrap(), store.server().address()).await;
    }

    #[tokio::test]
    async fn redis_elects_another_when_the_network_of_the_leader_is_silent() {
        let lan = Lan::new().await;
        let server = RedisServer::options().inside(lan.right()).start().await;
        silence_the_network(&lan, &RedisStore::address_of(&server.url(), Duration::ZERO)).await;
    }
}
