//! What a service says when it starts, and why it does not.

use std::process::Stdio;

use lock_tests::orders::{Shop, command};
use lock_tests::servers::{PostgresServer, RedisServer};

const REDIS: &str = "Distributed locks: Redis provider (high-performance mode)";
const POSTGRES: &str = "Distributed locks: PostgreSQL advisory locks (using existing database)";

/// Starts one; gives the lines about where its locks are.
async fn lines(shop: &Shop, environment: &[(&str, &str)]) -> Vec<String> {
    let instance = shop.open_with(environment).await;
    let mut printed = instance.printed();
    printed.retain(|line| line.contains("Distributed locks: "));
    printed
}

/// Whether there is one line, at this level and in these words.
#[track_caller]
fn assert_says(lines: &[String], level: &str, words: &str) {
    assert!(
        matches!(lines, [line] if line.contains(level) && line.ends_with(words)),
        "{lines:#?}"
    );
}

#[tokio::test]
async fn redis_is_taken_in_either_form_of_its_connection_string() {
    let server = RedisServer::with(&[("requirepass", "hunter2")]).await;
    let shop = Shop::new();
    let url = server.url_for(":hunter2");
    let options = format!("{},password=hunter2", server.address());
    for text in [url, options] {
        let lines = lines(&shop, &[("REDIS_URL", &text), ("DATABASE_URL", "")]).await;
        assert_says(&lines, "INFO", REDIS);
    }
}

#[tokio::test]
async fn the_database_is_taken_where_redis_is_empty() {
    let server = PostgresServer::start().await;
    let environment = [("DATABASE_URL", &*server.url()), ("REDIS_URL", "")];
    let lines = lines(&Shop::new(), &environment).await;
    assert_says(&lines, "INFO", POSTGRES);
}

#[tokio::test]
async fn redis_comes_before_the_database_unless_the_provider_is_named() {
    let (database, redis) = tokio::join!(PostgresServer::start(), RedisServer::start());
    let shop = Shop::new();
    let both = [
        ("DATABASE_URL", &*database.url()),
        ("REDIS_URL", &*redis.url()),
    ];
    assert_says(&lines(&shop, &both).await, "INFO", REDIS);
    for (provider, level, words) in [
        ("redis", "INFO", REDIS),
        ("postgres", "INFO", POSTGRES),
        ("file", "WARN", "(embedded, this machine only)"),
    ] {
        // The fleet before has gone, with its mark or not.
        let named = [("LOCK_PROVIDER", provider), ("LOCK_SWITCH", "allow")];
        let environment = [&both[..], &named].concat();
        assert_says(&lines(&shop, &environment).await, level, words);
    }
}

#[tokio::test]
async fn files_are_taken_where_there_is_nothing_else() {
    let shop = Shop::new();
    let lines = lines(&shop, &[("DATABASE_URL", ""), ("REDIS_URL", "")]).await;
    let words = format!(
        "Distributed locks: file locks in {} (embedded, this machine only)",
        shop.lock_dir().display()
    );
    assert_says(&lines, "WARN", &words);
}

#[tokio::test]
async fn a_wrong_setting_ends_the_start_by_its_name_and_without_its_secret() {
    let shop = Shop::new();
    let redis = "host:6379,password=hunter2";
    for (environment, said) in [
        (&[("LOCK_PROVIDER", "etcd")][..], "LOCK_PROVIDER: "),
        (&[("LOCK_PROVIDER", "redis")], "REDIS_URL is not set"),
        (
            &[("LOCK_PROVIDER", "postgres"), ("REDIS_URL", redis)],
            "DATABASE_URL is not set",
        ),
        (&[("LOCK_SWITCH", "yes")], "LOCK_SWITCH: "),
        (
            &[("REDIS_URL", "host:6379,password=hunter2,tieBreaker=x")],
            "REDIS_URL: the Redis connection string is wrong: its option `tieBreaker`",
        ),
        (
            &[("REDIS_URL", "redis://:hunter2@host?ssl=true")],
            "REDIS_URL: ",
        ),
        (
            &[("DATABASE_URL", "mysql://app:hunter2@db/shop")],
            "DATABASE_URL: ",
        ),
        (
            &[("DATABASE_URL", "postgres://app:hunter2@db/shop?pool=5")],
            "DATABASE_URL: the connection string has an unknown option `pool`",
        ),
        (&[("LOCK_DIR", "/proc/locks")], "LOCK_DIR: "),
    ] {
        let mut command = command(&shop.lock_dir(), environment);
        let output = command.stderr(Stdio::piped()).output().await.unwrap();
        assert!(!output.status.success(), "{environment:?}");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains(said), "{environment:?}: {text}");
        assert!(!text.contains("hunter2"), "{environment:?}: {text}");
    }
}

#[tokio::test]
async fn a_setting_that_is_misspelt_is_a_warning() {
    let instance = Shop::new()
        .open_with(&[("LOCK_PROVIDR", "hunter2"), ("LOCK_NAMESPACE", "shop")])
        .await;
    let mut printed = instance.printed();
    printed.retain(|line| line.contains("is not a setting"));
    assert!(
        matches!(&*printed, [line] if line.contains("WARN") && line.contains("LOCK_PROVIDR is")),
        "{printed:#?}"
    );
    assert!(!printed[0].contains("hunter2"), "{printed:#?}");
}

#[tokio::test]
async fn an_instance_with_another_provider_is_refused_with_the_reason() {
    let (database, redis) = tokio::join!(PostgresServer::start(), RedisServer::start());
    let shop = Shop::new();
    let both = [
        ("DATABASE_URL", &*database.url()),
        ("REDIS_URL", &*redis.url()),
    ];
    let _with_redis = shop.open_with(&both).await;
    // The mistake: one instance was started without `REDIS_URL`.
    let mut forgotten = command(&shop.lock_dir(), &both[..1]);
    let output = forgotten.stderr(Stdio::piped()).output().await.unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("held by `redis`") && said.contains("LOCK_SWITCH=allow"),
        "{said}"
    );
    let allowed = [both[0], ("LOCK_SWITCH", "allow")];
    assert_says(&lines(&shop, &allowed).await, "INFO", POSTGRES);
}
