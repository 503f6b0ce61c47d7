//! One address that leads to two servers: a balancer of connections, a name with two addresses.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lock_core::backend::BootClock;
use lock_core::redis::RedisBackend;
use lock_core::{Credentials, LockError, LockProvider, LossReason};
use lock_tests::address::Opened;
use lock_tests::chaos::{InProcess, MemoryResource};
use lock_tests::checker::{Check, Rules, judge};
use lock_tests::servers::{Proxy, RedisCluster, RedisServer, Server};
use lock_tests::{Lateness, Vault, eventually, seed};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::sleep;

use crate::support::{BOUND, LEASE, PATIENCE, careful_client, client, is_held, take, try_once};

/// How long a fail-over has to end while a process connects.
const MOMENT: Duration = Duration::from_secs(1);

/// By when a server counts for gone that an address does not lead to any more, and it was noticed.
const LEFT: Duration = Duration::from_secs(7);

async fn run_id(server: &RedisServer) -> String {
    let info: String = server.ask(&["INFO", "server"]).await.unwrap();
    let id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    id.unwrap()[..8].to_owned()
}

async fn pair() -> [RedisServer; 2] {
    [RedisServer::start().await, RedisServer::start().await]
}

/// An address that leads to each of them in turn.
async fn balancer([first, second]: &[RedisServer; 2]) -> Proxy {
    let proxy = Proxy::to(first.address()).await;
    proxy.balance([first.address(), second.address()]);
    proxy
}

/// The error names both servers, and what to do.
async fn assert_names(said: &str, servers: &[RedisServer; 2]) {
    for server in servers {
        let id = run_id(server).await;
        assert!(said.contains(&id), "{id} is not in: {said}");
    }
    assert!(said.contains("two masters"), "{said}");
    assert!(said.contains("give the address of one server"), "{said}");
}

async fn follow(server: &RedisServer, master: &RedisServer) {
    let (host, port) = ("127.0.0.1", master.port().to_string());
    let () = server.ask(&["REPLICAOF", host, &port]).await.unwrap();
}

#[tokio::test]
async fn an_address_that_leads_to_two_masters_in_turn_is_refused() {
    let servers = pair().await;
    let proxy = balancer(&servers).await;
    let url = proxy.url(&servers[0].url());
    for _ in 0..2 {
        let error = RedisBackend::connect(&url).await.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
        assert_names(&error.to_string(), &servers).await;
    }
}

/// What a process says that is to connect to the name `twins`, which leads to the first of them and to the
/// second, by the port of the first.
async fn said_of_twins([first, second]: &[RedisServer; 2], url: &str) -> String {
    let listener = TcpListener::bind(("127.0.0.2", first.port()))
        .await
        .unwrap();
    let target = second.address();
    let forwarding = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 twins\n127.0.0.2 twins\n").unwrap();
    // For this process alone.
    let run = "mount --bind \"$1\" /etc/hosts && exec \"$2\" \"$3\"";
    let child = Command::new("unshare")
        .args(["--mount", "sh", "-c", run, "sh"])
        .arg(hosts)
        .arg(env!("CARGO_BIN_EXE_locker"))
        .arg(format!("redis:2000:0:{url}"))
        .stdin(Stdio::null())
        .output();
    let output = child.await.unwrap();
    forwarding.abort();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    said.into_owned()
}

#[tokio::test]
async fn a_name_with_the_addresses_of_two_masters_is_refused() {
    let servers = pair().await;
    let url = format!("redis://twins:{}", servers[0].port());
    let said = said_of_twins(&servers, &url).await;
    assert_names(&said, &servers).await;
    assert!(said.contains(" at 127.0.0.2:"), "{said}");
}

#[tokio::test]
async fn a_name_with_the_addresses_of_sentinels_of_two_masters_is_refused() {
    let servers = pair().await;
    let of = |server: &RedisServer| RedisServer::options().sentinel_of(server.address()).start();
    let sentinels = [of(&servers[0]).await, of(&servers[1]).await];
    let url = format!("redis+sentinel://twins:{}/shop", sentinels[0].port());
    let said = said_of_twins(&sentinels, &url).await;
    assert!(said.contains("do not agree on the master `shop`"), "{said}");
    for server in &servers {
        assert!(said.contains(&server.address().to_string()), "{said}");
    }
}

#[tokio::test]
async fn a_replica_behind_the_address_of_its_master_is_no_fault() {
    let master = RedisServer::start().await;
    let replica = master.replica().await;
    let servers = [master, replica];
    let proxy = balancer(&servers).await;
    let here = client(&proxy.url(&servers[0].url())).await;
    for _ in 0..3 {
        take(&here).await.release().await.unwrap();
        sleep(BOUND).await;
    }
    assert!(here.health().await.is_up());
}

#[tokio::test]
async fn an_address_that_is_silent_every_other_time_holds_up_no_connect() {
    let server = RedisServer::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::to(server.address()).await;
    proxy.balance([server.address(), silent.local_addr().unwrap()]);
    let late = Lateness::of(Duration::ZERO);
    let here = client(&proxy.url(&server.url())).await;
    late.at_most(BOUND).await;
    take(&here).await.release().await.unwrap();
}

#[tokio::test]
async fn a_fail_over_behind_an_address_that_stays_can_be_connected_to() {
    let master = RedisServer::start().await;
    let replica = master.replica().await;
    replica.promote().await;
    let servers = [master, replica];
    let proxy = balancer(&servers).await;
    let url = proxy.url(&servers[0].url());
    let connecting = tokio::spawn(async move { client(&url).await });
    sleep(MOMENT / 2).await;
    proxy.lead_to(servers[1].address());
    follow(&servers[0], &servers[1]).await;
    let here = connecting.await.unwrap();
    take(&here).await.release().await.unwrap();
    let there = client(&servers[1].url()).await;
    let guard = take(&there).await;
    assert!(is_held(&here).await, "it has come to the new master");
    guard.release().await.unwrap();
}

#[tokio::test]
async fn an_address_that_leads_to_nodes_of_two_clusters_is_refused() {
    let clusters = [RedisCluster::patient().await, RedisCluster::patient().await];
    let [first, second] = clusters.each_ref().map(|cluster| &cluster.nodes()[0]);
    let proxy = Proxy::to(first.address()).await;
    proxy.balance([first.address(), second.address()]);
    let error = RedisBackend::connect(&proxy.url(&first.url()))
        .await
        .unwrap_err();
    let said = error.to_string();
    assert!(
        error.is_misconfigured() && said.contains("not of one cluster"),
        "{said}"
    );
    for server in [first, second] {
        assert!(said.contains(&run_id(server).await), "{said}");
    }
    // Those of one cluster are one store.
    let nodes = clusters[0].nodes();
    proxy.balance([nodes[0].address(), nodes[1].address()]);
    let here = client(&proxy.url(&first.url())).await;
    take(&here).await.release().await.unwrap();
}

/// Two processes that an address led to one server, when it comes to lead to two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lock_is_held_by_two_where_an_address_comes_to_lead_to_two_masters() {
    const SPLIT: Duration = Duration::from_secs(5);
    let servers = pair().await;
    let proxy = Proxy::to(servers[0].address()).await;
    let url = proxy.url(&servers[0].url());
    let mut clients = Vec::new();
    for _ in 0..2 {
        let backend = RedisBackend::builder(&url).lease(LEASE);
        let backend = backend.quarantine(Duration::ZERO);
        clients.push(Opened::over(backend.connect().await.unwrap()));
    }
    let crowd = InProcess {
        workers: 2,
        readers: 0,
        locks: 2,
        lasts: SPLIT,
        pausing: None,
        free_within: PATIENCE,
        seed: seed(),
    };
    let meanwhile = async {
        sleep(SPLIT / 10).await;
        proxy.balance([servers[0].address(), servers[1].address()]);
        // Each connection is made anew some times.
        for _ in 0..4 {
            proxy.reset();
            sleep(SPLIT / 5).await;
        }
        proxy.lead_to(servers[0].address());
        proxy.reset();
    };
    let work = crowd.work(clients, MemoryResource::default(), Arc::new(BootClock));
    let (history, ()) = tokio::join!(work, meanwhile);
    let verdict = judge(&history, &Rules::default());
    let two: Vec<_> = verdict.of(Check::Exclusion).collect();
    assert!(
        two.is_empty(),
        "{} times held by two: {:?}",
        two.len(),
        two.first()
    );
    assert!(verdict.counts.acquires.done > 0);
}

/// Returns why nothing is granted, when the two masters are noticed: after connections that are made anew.
async fn until_split(client: &LockProvider, proxy: &Proxy) -> LockError {
    for _ in 0..60 {
        proxy.reset();
        sleep(Duration::from_millis(300)).await;
        let error = try_fails(client).await;
        if let Some(error) = error.filter(|error| error.to_string().contains("two masters")) {
            return error;
        }
    }
    panic!("they are not noticed");
}

async fn try_fails(client: &LockProvider) -> Option<LockError> {
    try_once(client).await.err()
}

#[tokio::test]
async fn what_is_held_goes_on_and_nothing_is_granted_while_there_are_two_masters() {
    let servers = pair().await;
    let proxy = Proxy::to(servers[0].address()).await;
    let here = client(&proxy.url(&servers[0].url())).await;
    let held = here.lock("order:process:7").unwrap();
    let held = held.acquire(PATIENCE).await.unwrap();
    proxy.balance([servers[0].address(), servers[1].address()]);
    let error = until_split(&here, &proxy).await;
    assert!(error.is_unavailable(), "{error}");
    assert_names(&error.to_string(), &servers).await;
    let health = here.health().await;
    assert!(health.error().unwrap().to_string().contains("two masters"));
    sleep(2 * LEASE).await;
    assert!(held.is_valid(), "its server has renewed it");
    assert!(try_fails(&here).await.is_some());
    proxy.lead_to(servers[0].address());
    let late = Lateness::of(LEFT);
    drop(
        here.lock("order:process:42")
            .unwrap()
            .acquire(PATIENCE)
            .await,
    );
    eventually("it is well", async || here.health().await.is_up()).await;
    late.at_most(BOUND).await;
    assert!(held.is_valid());
    held.release().await.unwrap();
}

/// The connections that look log in anew each time.
#[tokio::test]
async fn a_split_ends_although_the_password_was_changed_meanwhile() {
    const USER: &str = "rotating";
    let servers = pair().await;
    let rotate = async |password: &str| {
        let password = format!(">{password}");
        let rights = ["on", "resetpass", &password, "~*", "&*", "+@all"];
        for server in &servers {
            let change = [&["ACL", "SETUSER", USER], &rights[..]].concat();
            let () = server.ask(&change).await.unwrap();
        }
    };
    rotate("first").await;
    let vault = Vault::with(Credentials::new(USER, "first"));
    let proxy = Proxy::to(servers[0].address()).await;
    let given = vault.clone();
    let backend = RedisBackend::builder(&proxy.url(&servers[0].url()))
        .lease(LEASE)
        .quarantine(Duration::ZERO)
        .credentials(move || given.clone().read());
    let here = LockProvider::new(backend.connect().await.unwrap());
    let held = here.acquire("order:process:7", PATIENCE).await.unwrap();
    proxy.balance([servers[0].address(), servers[1].address()]);
    until_split(&here, &proxy).await;
    // Both connections are there again, and nothing but a look asks for the credentials.
    sleep(2 * LEASE).await;
    assert!(held.is_valid());
    vault.set(Credentials::new(USER, "second"));
    rotate("second").await;
    proxy.lead_to(servers[0].address());
    let late = Lateness::of(LEFT);
    eventually("it is well", async || here.health().await.is_up()).await;
    late.at_most(BOUND).await;
    assert!(held.is_valid());
    held.release().await.unwrap();
}

/// A process that is at the other master may hold there what it was granted.
#[tokio::test]
async fn no_lock_is_granted_for_a_lease_after_two_masters() {
    let servers = pair().await;
    let proxy = Proxy::to(servers[0].address()).await;
    let url = proxy.url(&servers[0].url());
    // Nothing is to be left of the quarantine of their start.
    sleep(LEASE + Duration::from_secs(3)).await;
    let here = careful_client(&url).await;
    take(&here).await.release().await.unwrap();
    proxy.balance([servers[0].address(), servers[1].address()]);
    until_split(&here, &proxy).await;
    // It goes on at the one that it was at.
    proxy.lead_to(servers[0].address());
    let is_over = async || {
        let error = try_fails(&here).await;
        error.is_none_or(|error| !error.to_string().contains("two masters"))
    };
    eventually("there is one master", is_over).await;
    let ended = Instant::now();
    take(&here).await.release().await.unwrap();
    assert!(ended.elapsed() + BOUND > LEASE, "{:?}", ended.elapsed());
}

/// A fail-over that shows two masters for a moment is distinguished from a split by what the former one says.
#[tokio::test]
async fn two_masters_are_over_once_the_former_is_a_replica() {
    let master = RedisServer::start().await;
    let replica = master.replica().await;
    let servers = [master, replica];
    let proxy = Proxy::to(servers[0].address()).await;
    let here = client(&proxy.url(&servers[0].url())).await;
    servers[1].promote().await;
    proxy.balance([servers[0].address(), servers[1].address()]);
    until_split(&here, &proxy).await;
    follow(&servers[0], &servers[1]).await;
    // Of a master that is not seen any more it is known later.
    let late = Lateness::of(Duration::from_secs(1));
    eventually("there is one master", async || {
        let error = try_fails(&here).await;
        error.is_none_or(|error| !error.to_string().contains("two masters"))
    })
    .await;
    late.at_most(2 * BOUND).await;
    take(&here).await.release().await.unwrap();
}

/// Which has been a master for long, and knows nothing of the locks of the former one.
#[tokio::test]
async fn a_master_that_an_address_is_moved_to_grants_after_one_lease() {
    let servers = pair().await;
    let proxy = Proxy::to(servers[0].address()).await;
    let url = proxy.url(&servers[0].url());
    // The servers count whole seconds, and nothing is to be left of the quarantine of their start.
    sleep(LEASE + Duration::from_secs(3)).await;
    let (here, there) = (careful_client(&url).await, careful_client(&url).await);
    let held = take(&there).await;
    proxy.lead_to(servers[1].address());
    let ended = Instant::now();
    servers[0].kill().await;
    let next = take(&here).await;
    assert!(!held.is_valid(), "held by two");
    assert!(ended.elapsed() + BOUND > LEASE, "{:?}", ended.elapsed());
    assert!(matches!(
        held.lost().await,
        LossReason::Revoked | LossReason::Expired
    ));
    next.release().await.unwrap();
}

#[tokio::test]
async fn connections_that_only_look_ask_for_no_credentials_and_are_gone_after_the_connect() {
    let server = RedisServer::with(&[("requirepass", "secret")]).await;
    let vault = Vault::with(Credentials::password("secret"));
    let given = vault.clone();
    let backend = RedisBackend::builder(&server.url())
        .lease(LEASE)
        .credentials(move || given.clone().read());
    let here = LockProvider::new(backend.connect().await.unwrap());
    // The server sees a connection's end after the client has left it.
    eventually("they are gone", async || {
        let clients: String = server.ask(&["CLIENT", "LIST"]).await.unwrap();
        let clients = clients.lines();
        clients.filter(|line| line.contains("resp=3")).count() <= 2
    })
    .await;
    eventually("both are asked for", async || vault.asked() == 2).await;
    assert!(here.health().await.is_up());
    assert_eq!(vault.asked(), 2);
}
