//! `dlock holder`, `dlock list` and `dlock doctor`.

use lock_tests::servers::{PgBouncer, PostgresServer, RedisServer, Server};
use serde_json::{Value, json};

use crate::support::{Place, text};

fn json(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[tokio::test]
async fn a_holder_is_named_while_it_holds_and_not_after_that() {
    for mut place in Place::all().await {
        place
            .environment
            .push(("LOCK_INSTANCE", "web-3:4711".to_owned()));
        let free = place.output(&["holder", "job:one"]).await;
        assert_eq!(free.status.code(), Some(1));
        assert_eq!(text(&free.stdout), "job:one is free\n");
        assert_eq!(
            json(&place.output(&["holder", "job:one", "--json"]).await),
            Value::Null
        );

        let mut running = place.start(&[], "echo held; read line").await;
        let held = place.output(&["holder", "job:one"]).await;
        assert_eq!(held.status.code(), Some(0));
        let said = text(&held.stdout);
        assert!(said.starts_with("job:one is held by web-3:4711"), "{said}");
        let held = json(&place.output(&["holder", "job:one", "--json"]).await);
        assert_eq!(held["instance"], "web-3:4711");
        assert_eq!(held["mode"], "exclusive");
        running.say("go\n").await;
        assert!(running.ended().await.0.success());
        assert_eq!(
            place.output(&["holder", "job:one"]).await.status.code(),
            Some(1)
        );
    }
}

#[tokio::test]
async fn held_locks_are_listed_as_a_table_and_as_json() {
    for mut place in Place::all().await {
        place
            .environment
            .push(("LOCK_INSTANCE", "web-3:4711".to_owned()));
        let empty = json(&place.output(&["list", "--json"]).await);
        assert_eq!(empty, json!({"locks": [], "complete": true}));

        let mut running = place.start(&[], "echo held; read line").await;
        let listed = json(&place.output(&["list", "--json"]).await);
        assert_eq!(listed["complete"], true);
        let [lock] = &listed["locks"].as_array().unwrap()[..] else {
            panic!("{listed}")
        };
        assert_eq!(lock["instance"], "web-3:4711");
        let key = lock["key"].as_str().unwrap();
        let shown = lock["name"].as_str().unwrap_or(key);
        // A table alone has names.
        assert_eq!(lock["name"] == "job:one", place.is_table(), "{listed}");
        let table = text(&place.output(&["list"]).await.stdout);
        assert!(table.starts_with("NAME OR KEY"), "{table}");
        assert!(
            table.contains(shown) && table.contains("web-3:4711"),
            "{table}"
        );
        // No colours where no person looks.
        assert!(!table.contains('\u{1b}'), "{table:?}");

        for (prefix, count) in [(key, 1), ("web-3", 1), ("web-4", 0)] {
            let listed = json(&place.output(&["list", "--json", "--", prefix]).await);
            assert_eq!(listed["locks"].as_array().unwrap().len(), count, "{prefix}");
        }
        let listed = json(&place.output(&["list", "--json", "--limit", "0"]).await);
        assert_eq!(listed, json!({"locks": [], "complete": false}));
        running.say("go\n").await;
        assert!(running.ended().await.0.success());
    }
}

#[tokio::test]
async fn a_doctor_finds_stores_that_are_well() {
    for place in Place::all().await {
        let examined = json(&place.output(&["doctor", "--json"]).await);
        let checks = examined["checks"].as_array().unwrap();
        // On a machine that is busy a store can be slow.
        let is_well = |made: &Value| made["result"] == "passed" || made["check"] == "round trip";
        assert!(checks.iter().all(is_well), "{examined}");
        let printed = place.output(&["doctor"]).await;
        let said = text(&printed.stdout);
        assert!(matches!(printed.status.code(), Some(0 | 1)), "{said}");
        assert!(said.starts_with("ok  ") && !said.contains("FAIL"), "{said}");
        let has = |check: &str| checks.iter().any(|made| made["check"] == check);
        let of_store: &[&str] = match () {
            () if place.is_table() => &[
                "login",
                "server",
                "table",
                "rights",
                "pooler",
                "lease",
                "clock",
                "notifications",
                "marker",
            ],
            () if place.postgres.is_some() => &[
                "login",
                "server",
                "lock table",
                "rights",
                "pooler",
                "notifications",
                "lease",
                "exclusion",
                "marker",
            ],
            () if place.redis.is_some() => &[
                "login", "server", "eviction", "replicas", "clock", "rights", "lease",
            ],
            () => &["directory", "lease"],
        };
        for check in
            of_store
                .iter()
                .chain(&["health", "round trip", "lock", "holder", "fencing token"])
        {
            assert!(has(check), "{check}: {said}");
        }
    }
}

#[tokio::test]
async fn a_doctor_says_what_is_wrong_and_what_to_do() {
    let evicting = RedisServer::with(&[("maxmemory-policy", "allkeys-lru")]).await;
    let server = PostgresServer::start().await;
    let pooler = PgBouncer::transaction(&server).await;
    let dead = RedisServer::start().await;
    dead.kill().await;
    let place = Place::files();
    for (url, advice) in [
        (evicting.url(), "set it to `noeviction`"),
        (pooler.url(), "transaction"),
        (dead.url(), "Redis server"),
        ("file:/dev/null".to_owned(), "/dev/null"),
    ] {
        let examined = place.output(&["doctor", "--url", &url]).await;
        let said = text(&examined.stdout);
        assert_eq!(examined.status.code(), Some(2), "{said}");
        assert!(said.contains("FAIL") && said.contains(advice), "{said}");
    }
}

#[tokio::test]
async fn a_doctor_warns_of_a_setting_that_is_misspelt() {
    let mut place = Place::files();
    place
        .environment
        .push(("LOCK_NAMESPACES", "shop".to_owned()));
    let examined = place.output(&["doctor"]).await;
    let said = text(&examined.stdout);
    assert_eq!(examined.status.code(), Some(1), "{said}");
    assert!(said.contains("LOCK_NAMESPACES is not a setting"), "{said}");
}
