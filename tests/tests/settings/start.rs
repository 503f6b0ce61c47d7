//! What a service says when it starts, and why it does not.

use std::process::Stdio;

use lock_core::file::FileBackend;
use lock_core::postgres::PostgresBackend;
use lock_core::redis::RedisBackend;
use lock_core::{LockProvider, LockSettings, LockTemplate, ProviderKind};
use lock_tests::orders::{Shop, command};
use lock_tests::servers::{PostgresServer, RedisServer};

use super::support::exclude;

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
        matches!(lines, [line] if line.contains(level) && line.contains(words)),
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
        (&[("LOCK_LEASE", "hunter2")], "LOCK_LEASE: "),
        (
            &[("LOCK_LEASE", "10s")],
            "LOCK_LEASE: the provider `file` has no lease",
        ),
        (
            &[("LOCK_LEASE", "10ms"), ("REDIS_URL", redis)],
            "LOCK_LEASE: the lease of Redis locks must be from 500 ms to 24 h",
        ),
        (
            &[("LOCK_TABLE", "locks.leases"), ("REDIS_URL", redis)],
            "LOCK_TABLE: the provider `redis` has no table",
        ),
        (&[("LOCK_SWITCH", "yes")], "LOCK_SWITCH: "),
        (&[("LOCK_MARKER", "hunter2")], "LOCK_MARKER: "),
        (&[("LOCK_NAMESPACE", "hun\nter2")], "LOCK_NAMESPACE: "),
        (
            &[("REDIS_URL", "host:6379,password=hunter2,keyPrefix=x")],
            "REDIS_URL: the Redis connection string is wrong: its option `keyPrefix`",
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
            "DATABASE_URL: the connection string has an unknown option (number 1)",
        ),
        (&[("LOCK_DIR", "/proc/locks")], "LOCK_DIR: "),
        (
            &[("LOCK_DIR", ""), ("TMPDIR", "/proc/none")],
            "LOCK_DIR is not set: ",
        ),
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

#[tokio::test]
async fn the_first_line_tells_where_the_locks_are_in_a_form_that_compares() {
    let (database, redis) = tokio::join!(PostgresServer::start(), RedisServer::start());
    let fleet = [
        ("LOCK_NAMESPACE", "shop\n"),
        ("LOCK_NAME_SECRET", " of the whole fleet"),
    ];
    let secret = "name_secret=\"";
    let mut shown = Vec::new();
    for (server, field) in [
        (
            ("DATABASE_URL", database.url()),
            format!("server=\"{}/postgres\"", database.address()),
        ),
        (
            ("REDIS_URL", redis.url()),
            format!("server=\"{}/0\"", redis.address()),
        ),
        (("DATABASE_URL", String::new()), String::new()),
    ] {
        let environment = [&[(server.0, &*server.1)], &fleet[..]].concat();
        let lines = lines(&Shop::new(), &environment).await;
        let [line] = &lines[..] else {
            panic!("{lines:#?}")
        };
        assert!(line.contains(&field), "{line}");
        assert!(line.contains("namespace=\"shop\""), "{line}");
        assert!(!line.contains("fleet"), "{line}");
        let at = line.find(secret).unwrap() + secret.len();
        shown.push(line[at..].split('"').next().unwrap().to_owned());
    }
    assert_eq!(shown[0].len(), 4, "{shown:?}");
    assert!(
        shown.iter().all(|fingerprint| *fingerprint == shown[0]),
        "{shown:?}"
    );

    let other = [
        ("LOCK_NAME_SECRET", "of another fleet"),
        ("LOCK_NAMESPACE", ""),
    ];
    let lines = lines(&Shop::new(), &other).await;
    assert!(!lines[0].contains(&shown[0]), "{lines:?}");
    assert!(lines[0].contains("namespace=\"\""), "{lines:?}");
}

#[tokio::test]
async fn a_namespace_with_a_newline_is_the_one_without_it() {
    let (database, redis) = tokio::join!(PostgresServer::start(), RedisServer::up_for_a_day());
    let dir = tempfile::tempdir().unwrap();
    let name = "order:process:1";
    for spelled in ["shop\n", " shop", "\u{feff}shop\u{200b}"] {
        let settings = [
            LockSettings::new().database_url(database.url()),
            LockSettings::new().redis_url(redis.url()),
            LockSettings::new().dir(dir.path().join("locks")),
        ];
        let postgres = PostgresBackend::builder(database.url());
        let redis = RedisBackend::builder(&redis.url());
        let files = FileBackend::builder(dir.path().join("locks"));
        let plain = [
            LockProvider::new(postgres.namespace("shop").connect().await.unwrap()),
            LockProvider::new(redis.clone().namespace("shop").connect().await.unwrap()),
            LockProvider::new(files.clone().namespace("shop").open().unwrap()),
        ];
        let postgres = PostgresBackend::builder(database.url());
        let other = [
            LockProvider::new(postgres.namespace(spelled).connect().await.unwrap()),
            LockProvider::new(redis.namespace(spelled).connect().await.unwrap()),
            LockProvider::new(files.namespace(spelled).open().unwrap()),
        ];
        for (plain, other) in plain.iter().zip(&other) {
            exclude(plain, other, name).await;
        }
        for settings in settings {
            let plain = LockProvider::connect(settings.clone().namespace("shop")).await;
            let other = LockProvider::connect(settings.namespace(spelled)).await;
            exclude(&plain.unwrap(), &other.unwrap(), name).await;
        }
    }
    for error in [
        PostgresBackend::builder(database.url())
            .namespace("sh\nop")
            .connect()
            .await
            .err(),
        RedisBackend::builder(&redis.url())
            .namespace("sh\nop")
            .connect()
            .await
            .err(),
        FileBackend::builder(dir.path().join("locks"))
            .namespace("sh\nop")
            .open()
            .err(),
        FileBackend::open(dir.path().join("locks\n")).err(),
    ] {
        assert!(error.is_some_and(|error| error.is_misconfigured()));
    }
}

/// The secret of a process is decided once: not by a name that has no use for it.
#[tokio::test]
async fn a_name_without_hashed_values_decides_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let connect = async |secret: &str| {
        let settings = LockSettings::new()
            .provider(ProviderKind::File)
            .dir(dir.path().join("locks"))
            .name_secret(secret);
        LockProvider::connect(settings).await
    };
    let template: LockTemplate = "order:process:<id>".parse().unwrap();
    template.fill([("id", 42)]).unwrap();
    lock_core::lock_name!("order:process:<id>", id = 42).unwrap();
    connect("the secret of the fleet").await.unwrap();
    let template: LockTemplate = "user:login:<email:hashed>".parse().unwrap();
    template.fill([("email", "ada@example.org")]).unwrap();
    let error = connect("another secret of the fleet").await.unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
}
