//! What is refused when it connects, each with its reason.

use std::cell::RefCell;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use lock_core::LockError;
use lock_core::redis::{RedisBackend, RedisBuilder};
use lock_tests::servers::{Lan, Port, RedisCluster, RedisServer, Server};
use lock_tests::{Lateness, RedisStore, eventually, redis_rights, redis_user};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::support::{client, take, try_once};

/// Everything that an error would show anywhere.
fn text(error: &LockError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}

async fn refused(url: &str) -> LockError {
    RedisBackend::connect(url).await.expect_err("it is refused")
}

#[tokio::test]
async fn a_server_that_evicts_keys_is_refused_unless_allowed() {
    let server = RedisServer::with(&[("maxmemory-policy", "allkeys-lru")]).await;
    let error = refused(&server.url()).await;
    assert!(error.is_misconfigured() && text(&error).contains("allkeys-lru"));
    let allowed = RedisBackend::builder(&server.url()).allow_eviction(true);
    allowed.connect().await.unwrap();
}

#[tokio::test]
async fn a_replica_is_refused() {
    let server = RedisServer::start().await;
    let replica = server.replica().await;
    let error = refused(&replica.url()).await;
    let said = format!("`{}`, as it says", server.address());
    assert!(
        error.is_misconfigured() && text(&error).contains(&said),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_takes_no_more_clients_is_unavailable_and_says_so() {
    let server = RedisServer::start().await;
    let mut other = TcpStream::connect(server.address()).await.unwrap();
    other.write_all(b"PING\r\n").await.unwrap();
    other.read_exact(&mut [0; 7]).await.unwrap();
    let () = server
        .ask(&["CONFIG", "SET", "maxclients", "1"])
        .await
        .unwrap();
    let error = refused(&server.url()).await;
    assert!(
        error.is_unavailable() && error.to_string().contains("`maxclients`"),
        "{}",
        text(&error)
    );
}

/// Which it is for connections that come from another address than that of the machine itself.
#[tokio::test]
async fn a_server_in_protected_mode_is_refused_with_what_to_do() {
    let lan = Lan::new().await;
    let options = RedisServer::options().inside(lan.right());
    let server = options.setting("protected-mode", "yes").start().await;
    let url = server.url();
    let said = lan.left().run(async move { refused(&url).await }).await;
    assert!(said.is_misconfigured(), "{}", text(&said));
    for part in ["protected mode", "`requirepass`", "`protected-mode no`"] {
        assert!(said.to_string().contains(part), "{}", text(&said));
    }
}

/// In processes that lack one file after the other while they start.
#[tokio::test]
async fn a_process_without_a_file_descriptor_is_told_so() {
    let server = RedisServer::start().await;
    let address = RedisStore::address_of(&server.url(), Duration::ZERO);
    let mut said = Vec::new();
    for files in 4..32 {
        let limited = format!("ulimit -n {files} && exec \"$0\" \"$1\"");
        let child = Command::new("sh")
            .args(["-c", &limited, env!("CARGO_BIN_EXE_locker"), &address])
            .stdin(Stdio::null())
            .output();
        let output = child.await.unwrap();
        said.push(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let is_told =
        |said: &&String| said.contains("Redis") && said.contains("no file descriptor left");
    assert!(said.iter().any(|said| is_told(&said)), "{said:#?}");
    let wrong = said
        .iter()
        .find(|said| said.contains("correct its address"));
    assert!(wrong.is_none(), "{wrong:?}");
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let server = RedisServer::with(&[("requirepass", "hunter2")]).await;
    RedisBackend::connect(&server.url_for(":hunter2"))
        .await
        .unwrap();
    let address = server.address();
    let right = format!("{address},password=hunter2");
    RedisBackend::connect(&right).await.unwrap();
    let error = refused(&server.url()).await;
    assert!(
        error.is_misconfigured() && text(&error).contains("wants a password"),
        "{error}"
    );
    for url in [
        server.url_for(":hunter3"),
        server.url_for("app:hunter3"),
        format!("{address},password=hunter3"),
    ] {
        let error = refused(&url).await;
        assert!(error.is_misconfigured(), "{}", text(&error));
        assert!(text(&error).contains("password"), "{}", text(&error));
        assert!(!text(&error).contains("hunter"), "{}", text(&error));
    }
}

#[tokio::test]
async fn a_user_without_the_rights_is_refused() {
    let server = RedisServer::start().await;
    let () = server
        .ask(&["ACL", "SETUSER", "app", "on", ">secret", "~lock:*", "+@all"])
        .await
        .unwrap();
    let error = refused(&server.url_for("app:secret")).await;
    assert!(
        error.is_misconfigured() && text(&error).contains("channels"),
        "{}",
        text(&error)
    );
    let () = server
        .ask(&["ACL", "SETUSER", "app", "&lock:*"])
        .await
        .unwrap();
    RedisBackend::connect(&server.url_for("app:secret"))
        .await
        .unwrap();
}

const USER: &str = "app:secret";

/// Each of the rights is needed, and the refusal for want of it is this line and names this.
async fn each_is_needed(
    servers: &[RedisServer],
    builder: impl Fn() -> RedisBuilder,
) -> Vec<String> {
    let give = async |rights: &[String]| {
        for server in servers {
            redis_user(server, USER, rights).await;
        }
    };
    give(&[]).await;
    let rights = redis_rights(builder(), servers.len() > 1).await;
    // Those of sets are for readers alone: a writer connects without them.
    for lacks in rights.iter().filter(|right| !right.starts_with("+z")) {
        let others = rights.iter().filter(|right| *right != lacks);
        give(&others.cloned().collect::<Vec<_>>()).await;
        let error = builder().connect().await.unwrap_err();
        assert!(error.is_misconfigured(), "{lacks}: {}", text(&error));
        let said = error.to_string();
        assert!(
            said.contains(&format!("ACL SETUSER app {}`", rights.join(" "))),
            "{said}"
        );
        let named = match lacks.split_at(1) {
            ("~", _) => "the keys `lock:*`".to_owned(),
            ("&", _) => "the channels `lock:*`".to_owned(),
            (_, command) => format!("run `{}`", command.to_uppercase().replace('|', " ")),
        };
        assert!(said.contains(&named), "{lacks}: {said}");
    }
    give(&rights).await;
    builder().connect().await.unwrap();
    rights
}

#[tokio::test]
async fn a_user_who_lacks_a_right_is_refused_and_told_which_and_the_least_that_is_enough() {
    let server = [RedisServer::start().await];
    let [url, other] = ["", "/2"].map(|database| server[0].url_for(USER) + database);
    let rights = each_is_needed(&server, || RedisBackend::builder(&url)).await;
    for command in [
        "FLUSHALL",
        "SWAPDB 0 1",
        "SCRIPT FLUSH",
        "CLIENT KILL TYPE normal",
        "CONFIG GET *",
        "KEYS *",
        "GET secret",
        "PUBLISH secret x",
    ] {
        let dry = ["ACL DRYRUN app", command].join(" ");
        let dry: Vec<_> = dry.split(' ').collect();
        let said: String = server[0].ask(&dry).await.unwrap();
        assert!(said.contains("no permissions"), "{command}: {said}");
    }
    let with_more = each_is_needed(&server, || RedisBackend::builder(&other).replicas(1)).await;
    assert_eq!(
        with_more,
        [&rights[..], &["+select".into(), "+wait".into()]].concat()
    );
}

#[tokio::test]
async fn a_user_who_lacks_a_right_in_a_cluster_is_refused_and_told_which_and_what_is_enough() {
    let cluster = RedisCluster::patient().await;
    let url = cluster.nodes()[0].url_for(USER);
    each_is_needed(cluster.nodes(), || RedisBackend::builder(&url)).await;
}

/// The locks of a user that may not list them are as those of any.
#[tokio::test]
async fn a_list_without_the_right_to_scan_says_what_gives_it() {
    let server = RedisServer::start().await;
    redis_user(&server, USER, &[""; 0]).await;
    let url = server.url_for(USER);
    let rights = redis_rights(RedisBackend::builder(&url), false).await;
    redis_user(&server, USER, &rights).await;
    let here = client(&url).await;
    let guard = take(&here).await;
    let error = here.list(10).await.unwrap_err();
    assert!(error.is_misconfigured(), "{}", text(&error));
    let said = error.to_string();
    assert!(said.ends_with("`ACL SETUSER app +scan +zrange`"), "{said}");
    let () = server
        .ask(&["ACL", "SETUSER", "app", "+scan"])
        .await
        .unwrap();
    assert_eq!(here.list(10).await.unwrap().locks().len(), 1);
    guard.release().await.unwrap();
}

/// It lists no part of what is held as all of it.
#[tokio::test]
async fn a_list_without_the_right_to_read_sets_says_what_gives_it() {
    let server = RedisServer::start().await;
    let rights = ["~lock:*", "&lock:*", "+@all", "-zrange"];
    redis_user(&server, USER, &rights).await;
    let (here, app) = (
        client(&server.url()).await,
        client(&server.url_for(USER)).await,
    );
    let guard = take(&app).await;
    assert_eq!(app.list(10).await.unwrap().locks().len(), 1);
    let reader = here.lock("order:process:7").unwrap().shared();
    let reader = reader.acquire(Duration::ZERO).await.unwrap();
    let error = app.list(10).await.unwrap_err();
    assert!(error.is_misconfigured(), "{}", text(&error));
    let said = error.to_string();
    assert!(said.contains("run `ZRANGE`"), "{said}");
    let give = "ACL SETUSER app +scan +zrange";
    assert!(said.ends_with(&format!("`{give}`")), "{said}");
    let give: Vec<_> = give.split(' ').collect();
    let () = server.ask(&give).await.unwrap();
    assert_eq!(app.list(10).await.unwrap().locks().len(), 2);
    reader.release().await.unwrap();
    guard.release().await.unwrap();
}

/// The server says why, and what ends that.
#[tokio::test]
async fn a_list_that_a_server_cannot_give_now_says_why() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    take(&here).await.release().await.unwrap();
    let () = server
        .ask(&["CONFIG", "SET", "busy-reply-threshold", "1"])
        .await
        .unwrap();
    let mut other = server.connection().await;
    let busy = tokio::spawn(async move {
        let mut forever = redis::cmd("EVAL");
        forever.arg("while true do end").arg(0);
        let _: redis::RedisResult<()> = forever.query_async(&mut other).await;
    });
    let said = RefCell::new(String::new());
    eventually("the script runs", async || match here.list(10).await {
        Ok(_) => false,
        Err(error) => {
            *said.borrow_mut() = error.to_string();
            true
        }
    })
    .await;
    let said = said.into_inner();
    assert!(said.contains("`SCRIPT KILL`"), "{said}");
    let () = server.ask(&["SCRIPT", "KILL"]).await.unwrap();
    busy.await.unwrap();
}

/// As an administrator changes rights while it runs.
#[tokio::test]
async fn rights_that_are_taken_away_later_are_named_by_the_next_acquire() {
    let server = RedisServer::start().await;
    redis_user(&server, USER, &["~lock:*", "&lock:*", "+@all"]).await;
    let here = client(&server.url_for(USER)).await;
    take(&here).await.release().await.unwrap();
    for lacks in ["-set", "-evalsha"] {
        redis_user(&server, USER, &["~lock:*", "&lock:*", "+@all", lacks]).await;
        let error = try_once(&here).await.unwrap_err();
        assert!(error.is_unavailable(), "{}", text(&error));
        assert!(
            error.to_string().contains("ACL SETUSER app ~lock:*"),
            "{error}"
        );
    }
}

/// Refused, since the server does not have this command.
async fn lacks(builder: RedisBuilder, command: &str) {
    let error = builder.connect().await.unwrap_err();
    assert!(error.is_misconfigured(), "{command}: {}", text(&error));
    let said = error.to_string();
    assert!(said.contains(&format!("`{command}`")), "{command}: {said}");
    assert!(said.contains("renamed or forbidden"), "{command}: {said}");
}

#[tokio::test]
async fn a_command_that_is_renamed_is_named_when_a_client_connects() {
    for (command, named) in [
        ("SET", "SET"),
        ("DEL", "DEL"),
        ("GETRANGE", "GETRANGE"),
        ("PTTL", "PTTL"),
        ("PEXPIRE", "PEXPIRE"),
        ("TIME", "TIME"),
        ("PUBLISH", "PUBLISH"),
        ("SUBSCRIBE", "SUBSCRIBE"),
        ("UNSUBSCRIBE", "UNSUBSCRIBE"),
        ("EVALSHA", "EVALSHA"),
        ("SCRIPT", "SCRIPT LOAD"),
        ("INFO", "INFO"),
        ("WAIT", "WAIT"),
    ] {
        for renamed in ["\"\"", "s3cret"] {
            let rename = format!("{command} {renamed}");
            let server = RedisServer::with(&[("rename-command", &rename)]).await;
            let builder = RedisBackend::builder(&server.url());
            lacks(builder.replicas(u8::from(command == "WAIT")), named).await;
        }
    }
}

#[tokio::test]
async fn a_command_that_is_taken_away_later_is_named_by_the_next_acquire() {
    let server = RedisServer::start().await;
    let here = client(&server.url()).await;
    let conf = server.daemon().directory().join("redis.conf");
    let before = fs::read_to_string(&conf).unwrap();
    for command in ["SET", "EVALSHA"] {
        fs::write(&conf, format!("{before}\nrename-command {command} \"\"\n")).unwrap();
        server.restart().await;
        let error = try_once(&here).await.unwrap_err();
        // It may be given back.
        assert!(error.is_unavailable(), "{}", text(&error));
        assert!(
            error.to_string().contains("renamed or forbidden"),
            "{error}"
        );
        assert!(!here.health().await.is_up());
    }
    fs::write(&conf, before).unwrap();
    server.restart().await;
    take(&here).await.release().await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_server_that_has_none_is_refused_with_the_reason() {
    let (server, cluster) = tokio::join!(RedisServer::start(), RedisCluster::patient());
    let sentinel = RedisServer::options().sentinel_of(server.address());
    let sentinel = sentinel.start().await;
    let renamed = RedisServer::with(&[("rename-command", "SELECT \"\"")]).await;
    for (server, says) in [
        (&sentinel, "is it a Sentinel"),
        (&renamed, "`SELECT`"),
        (&cluster.nodes()[0], "a cluster has number 0 alone"),
        (&server, "`databases`"),
    ] {
        let error = refused(&format!("{}/99", server.url())).await;
        assert!(error.is_misconfigured(), "{}", text(&error));
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.to_string().contains("HELLO"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_repeats_what_it_does_not_understand_shows_no_password() {
    let long = "hunter2".repeat(30);
    for password in ["hunter2", &long] {
        let server =
            RedisServer::with(&[("requirepass", password), ("rename-command", "HELLO \"\"")]).await;
        let address = server.address();
        for url in [
            server.url_for(&format!(":{password}")),
            server.url_for(&format!("app:{password}")),
            format!("{address},password={password}"),
        ] {
            let error = refused(&url).await;
            assert!(error.is_misconfigured(), "{}", text(&error));
            assert!(error.to_string().contains("`HELLO`"), "{error}");
            assert!(!text(&error).contains("hunt"), "{}", text(&error));
        }
    }
}

#[tokio::test]
async fn a_port_that_speaks_another_protocol_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
        }
    });
    let error = refused(&format!("redis://{address}")).await;
    assert!(error.is_misconfigured(), "{}", text(&error));
    assert!(text(&error).contains("protocol"));
    server.abort();
}

#[tokio::test]
async fn a_server_that_is_not_there_or_silent_is_unavailable_in_time() {
    let port = Port::reserve();
    let error = refused(&format!("redis://127.0.0.1:{}", port.number())).await;
    assert!(error.is_unavailable(), "{}", text(&error));
    // Connected to, and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let late = Lateness::of(Duration::from_millis(300));
    let error = refused(&format!("{address},connectTimeout=300")).await;
    assert!(error.is_unavailable(), "{}", text(&error));
    late.at_most(Duration::from_millis(1_700)).await;
}

#[tokio::test]
async fn a_lease_out_of_bounds_is_refused() {
    for lease in [Duration::ZERO, Duration::from_millis(499), Duration::MAX] {
        let builder = RedisBackend::builder("redis://127.0.0.1").lease(lease);
        let error = builder.connect().await.unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
    }
}

#[tokio::test]
async fn a_client_that_there_is_can_be_used() {
    let server = RedisServer::start().await;
    let client = ::redis::Client::open(server.url()).unwrap();
    RedisBackend::from_client(&client).await.unwrap();
}

/// Each address of a list, and what the refusal says of it.
async fn refused_list(servers: &[(&RedisServer, &str)]) -> LockError {
    let addresses: Vec<_> = servers
        .iter()
        .map(|(server, _)| server.address().to_string())
        .collect();
    let error = refused(&addresses.join(",")).await;
    assert!(error.is_misconfigured(), "{}", text(&error));
    for (address, (_, said)) in addresses.iter().zip(servers) {
        let said = format!("{address} {said}");
        assert!(error.to_string().contains(&said), "{said}: {error}");
    }
    error
}

#[tokio::test]
async fn several_servers_that_are_no_cluster_are_refused_also_while_the_first_is_silent() {
    let (one, other) = tokio::join!(RedisServer::start(), RedisServer::start());
    let alone = "is a server of its own";
    refused_list(&[(&one, alone), (&other, alone)]).await;
    // Nor is one server by two names a cluster.
    refused_list(&[(&one, alone), (&one, alone)]).await;
    let replica = one.replica().await;
    // A fail-over makes another of them the master, and not all clients follow at a time.
    let of_one = format!("is a replica of {}", one.address());
    let error = refused_list(&[(&one, alone), (&replica, &of_one)]).await;
    assert!(
        error.to_string().contains("follows it in a fail-over"),
        "{error}"
    );
    one.freeze().await;
    refused_list(&[(&one, "does not answer"), (&other, alone)]).await;
    one.kill().await;
    refused_list(&[(&one, "does not answer"), (&other, alone)]).await;
    other.kill().await;
    let both = format!("{},{}", one.address(), other.address());
    assert!(refused(&both).await.is_unavailable());
}

#[tokio::test]
async fn a_list_of_nodes_is_of_one_cluster_or_refused() {
    let (cluster, another, alone) = tokio::join!(
        RedisCluster::start(),
        RedisCluster::start(),
        RedisServer::start()
    );
    let node = "is a node of the cluster";
    let (nodes, others) = (cluster.nodes(), another.nodes());
    refused_list(&[(&nodes[0], node), (&alone, "is a server of its own")]).await;
    refused_list(&[(&alone, "is a server of its own"), (&nodes[0], node)]).await;
    refused_list(&[(&nodes[0], node), (&others[0], node)]).await;
    let secret = RedisServer::with(&[("requirepass", "hunter2")]).await;
    refused_list(&[(&nodes[0], node), (&secret, "does not say what it is")]).await;
    // What does not answer is no obstacle, and no proof.
    for node in nodes {
        let part = ["CONFIG", "SET", "cluster-require-full-coverage", "no"];
        let () = node.ask(&part).await.unwrap();
    }
    alone.kill().await;
    for silent in [&alone, &nodes[0]] {
        let list = format!("{},{}", silent.address(), nodes[1].address());
        if silent.port() == nodes[0].port() {
            silent.freeze().await;
        }
        RedisBackend::connect(&list).await.unwrap();
    }
    refused_list(&[
        (&nodes[0], "does not answer"),
        (&nodes[1], node),
        (&others[0], node),
    ])
    .await;
}

#[tokio::test]
async fn a_sentinel_is_refused_by_name() {
    let server = RedisServer::start().await;
    let sentinel = RedisServer::options().sentinel_of(server.address());
    let sentinel = sentinel.start().await;
    let error = refused(&sentinel.url()).await;
    assert!(
        error.is_misconfigured() && error.to_string().contains("serviceName=MASTER"),
        "{}",
        text(&error)
    );
    refused_list(&[
        (&sentinel, "is a Sentinel"),
        (&server, "is a server of its own"),
    ])
    .await;
}
