//! Addresses of a cluster that lead nowhere, for a while or for good.

use std::time::Duration;

use lock_core::LockProvider;
use lock_core::redis::RedisBackend;
use lock_tests::servers::{Direction, Proxy, RedisCluster, RedisServer};
use lock_tests::{Lateness, eventually};
use tokio::time::sleep;

use crate::support::{LEASE, take, try_once};

/// By when a lock is granted after the addresses lead somewhere again.
const SOON: Duration = Duration::from_secs(1);

async fn client(url: &str) -> LockProvider {
    let backend = RedisBackend::builder(url)
        .lease(LEASE)
        .quarantine(Duration::ZERO);
    LockProvider::new(backend.connect().await.unwrap())
}

/// The nodes tell clients and each other these addresses from now on.
async fn announce(cluster: &RedisCluster) -> Vec<Proxy> {
    let mut addresses = Vec::new();
    for node in cluster.nodes() {
        let address = Proxy::to(node.address()).await;
        let port = address.address().port().to_string();
        let setting = match node.authority() {
            Some(_) => "cluster-announce-tls-port",
            None => "cluster-announce-port",
        };
        let announce = ["CONFIG", "SET", setting, &port];
        node.ask::<()>(&announce).await.unwrap();
        addresses.push(address);
    }
    for node in cluster.nodes() {
        eventually("they all know the addresses", async || {
            let slots: redis::Value = node.ask(&["CLUSTER", "SLOTS"]).await.unwrap();
            let slots = format!("{slots:?}");
            let mut ports = addresses.iter().map(|address| address.address().port());
            ports.all(|port| slots.contains(&format!("int({port})")))
        })
        .await;
    }
    addresses
}

fn silence(address: &Proxy) {
    address.swallow(Direction::ToServer);
    address.swallow(Direction::ToClient);
}

/// The seed's name, and all addresses that the cluster tells.
async fn moves(cut: impl AsyncFn(&Proxy)) {
    let cluster = RedisCluster::patient().await;
    let former = announce(&cluster).await;
    let node: &RedisServer = &cluster.nodes()[0];
    let seed = Proxy::to(node.address()).await;
    let here = client(&seed.url(&node.url())).await;
    take(&here).await.release().await.unwrap();
    let waiting = tokio::spawn({
        let here = here.clone();
        async move {
            // Asked for all the time.
            while try_once(&here).await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
            take(&here).await
        }
    });
    for address in former.iter().chain([&seed]) {
        cut(address).await;
    }
    let _present = announce(&cluster).await;
    sleep(Duration::from_secs(3)).await;
    assert!(!waiting.is_finished());
    seed.heal().await;
    let late = Lateness::of(Duration::ZERO);
    waiting.await.unwrap().release().await.unwrap();
    late.at_most(SOON).await;
    // One that starts now, with an address that leads nowhere.
    let (old, new) = (former[1].address(), seed.address());
    let late = Lateness::of(Duration::ZERO);
    let there = client(&format!("{old},{new}")).await;
    take(&there).await.release().await.unwrap();
    late.at_most(SOON).await;
}

#[tokio::test]
async fn a_cluster_is_found_where_it_is_now_when_all_its_addresses_refuse() {
    moves(async |address| {
        address.refuse().await;
        address.reset();
    })
    .await;
}

#[tokio::test]
async fn a_cluster_is_found_where_it_is_now_when_all_its_addresses_are_silent() {
    moves(async |address| silence(address)).await;
}

#[tokio::test]
async fn an_address_that_is_silent_does_not_hold_up_one_that_has_answered() {
    let cluster = RedisCluster::patient().await;
    let silent = Proxy::to(cluster.nodes()[1].address()).await;
    silence(&silent);
    let (first, second) = (silent.address(), cluster.nodes()[0].address());
    for url in [format!("{first},{second}"), format!("{second},{first}")] {
        let late = Lateness::of(Duration::ZERO);
        let here = client(&url).await;
        late.at_most(SOON).await;
        take(&here).await.release().await.unwrap();
    }
}

/// Each makes connections, and a machine that is slow at TLS is slower with each.
#[tokio::test]
async fn looks_that_are_not_answered_over_tls_do_not_pile_up() {
    const WATCHED: Duration = Duration::from_secs(12);
    let cluster = RedisCluster::of(RedisServer::options().tls()).await;
    let nodes = announce(&cluster).await;
    let node = &cluster.nodes()[0];
    let seed = Proxy::to(node.address()).await;
    let authority = node.authority().unwrap().display();
    // No look ends before the last is counted.
    let options = format!("ssl_ca_certs={authority}&connectTimeout=20000");
    let here = client(&format!("{}?{options}", seed.url(&node.url()))).await;
    take(&here).await.release().await.unwrap();
    for address in nodes.iter().chain([&seed]) {
        address.hold(Direction::ToClient);
        address.reset();
    }
    let before = seed.asked();
    let waiting = tokio::spawn(async move { take(&here).await });
    sleep(WATCHED).await;
    assert!(!waiting.is_finished());
    // Nothing but a look goes to that address, and says hello once.
    let looks = seed.asked() - before;
    assert!((2..=8).contains(&looks), "{looks} looks in {WATCHED:?}");
    for address in nodes.iter().chain([&seed]) {
        address.heal().await;
    }
    waiting.await.unwrap().release().await.unwrap();
}
