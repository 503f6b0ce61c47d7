//! Exit statuses of mistakes and missing rights, and statements that can be pasted.

use lock_tests::servers::{PostgresServer, RedisServer};
use sqlx::{AssertSqlSafe, Executor};

use crate::support::{Place, text};

#[tokio::test]
async fn a_mistake_in_the_options_ends_with_64_and_names_the_option() {
    let place = Place::files();
    for (words, named) in [
        (&["run", "job:one", "--skipp", "--", "true"][..], "--skipp"),
        (
            &["run", "job:one", "--skip", "--waitt", "5s", "true"],
            "--waitt",
        ),
        (&["run", "job:one", "--max-hold", "0", "true"], "--max-hold"),
        (&["run", "job:one", "--wait", "-1", "true"], "--wait"),
        (&["run", "job:one", "--wait", "-1s", "true"], "--wait"),
        (
            &["run", "job:one", "--at-least", "-1", "true"],
            "--at-least",
        ),
        (&["run", "job:one", "--grace", "-1", "true"], "--grace"),
        (&["run", "job:one", "--permits", "0", "true"], "--permits"),
        (&["holder", "job:one", "--permits", "-1"], "--permits"),
        (&["holder", "job:one", "--jsn"], "--jsn"),
        (&["list", "--limit", "-1"], "--limit"),
        (&["list", "--wach"], "--wach"),
        (&["doctor", "--jsn"], "--jsn"),
        (&["completions", "--no"], "--no"),
        (&["man", "--no"], "--no"),
        (&["hold"], "hold"),
    ] {
        let output = place.output(words).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{words:?}: {said}");
        assert!(said.contains(named), "{words:?}: {said}");
    }
    // After `--` it is the command.
    let output = place.run(&["--", "--skipp"]).await;
    assert_eq!(output.status.code(), Some(127));
}

#[tokio::test]
async fn help_is_there_as_a_command_and_the_manual_has_the_options_and_statuses() {
    let place = Place::files();
    for (words, has) in [
        (&["help"][..], "doctor"),
        (&["help"], "LOCK_LEASE"),
        (&["help"], "LOCK_TABLE"),
        (&["help", "run"], "--at-least"),
        (&["run", "--help"], "78"),
        (&["list", "--help"], "69"),
    ] {
        let output = place.output(words).await;
        assert!(output.status.success(), "{words:?}");
        assert!(text(&output.stdout).contains(has), "{words:?}");
    }
    let manual = text(&place.output(&["man"]).await.stdout).replace("\\-", "-");
    for has in [
        "--at-least",
        "--max-hold",
        "--limit",
        "EXIT STATUS",
        "  75",
        "  78",
    ] {
        assert!(manual.contains(has), "{has}: {manual}");
    }
}

#[tokio::test]
async fn a_right_that_the_role_lacks_ends_with_78() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let mut place = Place::files();
    let table = ("LOCK_PROVIDER", "postgres-table".to_owned());
    // Makes the table.
    place.environment = vec![("DATABASE_URL", server.url()), table.clone()];
    let made = place.run(&["--", "true"]).await;
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    place.environment = vec![("DATABASE_URL", server.url_for("app", "postgres")), table];
    for (gives, lacks) in [
        ("", "distributed_lock_leases"),
        (
            "GRANT SELECT, INSERT, UPDATE, DELETE ON distributed_lock_leases TO app; \
             REVOKE EXECUTE ON FUNCTION pg_catalog.clock_timestamp() FROM PUBLIC",
            "clock_timestamp",
        ),
        (
            "GRANT EXECUTE ON FUNCTION pg_catalog.clock_timestamp() TO PUBLIC; \
             REVOKE USAGE ON SCHEMA public FROM PUBLIC",
            "distributed_lock_leases",
        ),
    ] {
        pool.execute(gives).await.unwrap();
        for words in [
            &["run", "job:one", "--skip", "true"][..],
            &["list"],
            &["holder", "job:one"],
        ] {
            let output = place.output(words).await;
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{lacks}: {said}");
            assert!(said.contains(lacks), "{lacks}: {said}");
        }
    }
}

/// What is in backquotes, or between a colon and a line that is a comment, is SQL.
#[tokio::test]
async fn the_statements_of_an_error_run_as_they_stand() {
    let server = PostgresServer::start().await;
    let pool = server.pool().await;
    let url = server.url_for("app%20of%20shop", "the%20shop");
    let mut place = Place::files();
    place.environment = vec![("DATABASE_URL", url)];
    for set in [
        "CREATE DATABASE \"the shop\" TEMPLATE template0",
        "CREATE ROLE \"app of shop\" NOLOGIN",
        "REVOKE CONNECT ON DATABASE \"the shop\" FROM PUBLIC",
    ] {
        pool.execute(set).await.unwrap();
    }
    // Until it starts, each error says what is missing next.
    for statement in ["ALTER ROLE", "GRANT CONNECT"] {
        let output = place.run(&["--wait", "0", "--", "true"]).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        let pasted = said.split('`').find(|part| part.starts_with(statement));
        let pasted = pasted.unwrap_or_else(|| panic!("{said}"));
        assert!(pasted.ends_with(';'), "{said}");
        pool.execute(AssertSqlSafe(pasted)).await.unwrap();
    }
    let output = place.run(&["--wait", "0", "--", "true"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    place
        .environment
        .push(("LOCK_PROVIDER", "postgres-table".to_owned()));
    let output = place.run(&["--wait", "0", "--", "true"]).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    let (_, pasted) = said.split_once(":\n").unwrap_or_else(|| panic!("{said}"));
    // With the cause, which is a comment.
    assert!(pasted.contains("permission denied"), "{said}");
    pool.execute(AssertSqlSafe(pasted)).await.unwrap();
}

#[tokio::test]
async fn a_server_without_memory_is_told_with_what_to_do() {
    let full = RedisServer::with(&[("maxmemory", "1")]).await;
    let mut place = Place::files();
    place.environment = vec![("REDIS_URL", full.url())];
    let output = place.run(&["--skip", "--", "true"]).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("its memory is full (`maxmemory`)"), "{said}");
}
