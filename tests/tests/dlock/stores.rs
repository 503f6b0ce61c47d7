//! Which store the options, a file and the environment name, and what is said where they do not.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use lock_core::LockProvider;
use lock_core::postgres::LeaseTable;
use lock_tests::eventually;
use lock_tests::servers::{PostgresServer, RedisServer, Server};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::Executor;
use tokio::time::timeout;

use crate::support::{PATIENCE, Place, text};

#[tokio::test]
async fn a_file_names_the_store_in_one_line_beside_comments() {
    let place = Place::files();
    let file = place.directory.path().join("url");
    let locks = place.directory.path().join("others");
    for before in ["", "\u{feff}", "# of the fleet\n\n"] {
        fs::write(&file, format!("{before}FILE:{}\r\n\n", locks.display())).unwrap();
        let output = place
            .run(&["--url-file", file.to_str().unwrap(), "--", "true"])
            .await;
        assert_eq!(output.status.code(), Some(0), "{before:?}: {output:?}");
        assert_eq!(text(&output.stderr), "");
        assert!(locks.is_dir());
    }
}

#[tokio::test]
async fn a_url_that_is_wrong_is_told_by_the_option_that_gave_it() {
    let place = Place::files();
    let file = place.directory.path().join("url");
    let path = file.to_str().unwrap();
    let dead = RedisServer::start().await;
    dead.kill().await;
    for (url, status) in [
        ("", 78),
        ("  ", 78),
        ("file:", 78),
        ("file://", 78),
        ("file://locks", 78),
        ("file://localhost/locks", 78),
        ("mysql://db/shop", 78),
        ("postgres://db/shop?no_such_option=1", 78),
        ("file:/dev/null", 78),
        (&*dead.url(), 69),
    ] {
        fs::write(&file, url).unwrap();
        for (option, given) in [("--url", url), ("--url-file", path)] {
            let output = place.output(&["list", option, given]).await;
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(status), "{url:?}: {said}");
            assert!(said.contains(option), "{url:?}: {said}");
            for variable in ["REDIS_URL: ", "DATABASE_URL: ", "LOCK_DIR: "] {
                assert!(!said.contains(variable), "{url:?}: {said}");
            }
        }
    }
    fs::write(&file, "redis://one\nredis://two\n").unwrap();
    let output = place.output(&["list", "--url-file", path]).await;
    assert!(
        text(&output.stderr).contains("it has 2 lines"),
        "{output:?}"
    );
}

#[tokio::test]
async fn a_file_with_a_password_that_all_may_read_is_a_warning() {
    let place = Place::files();
    let file = place.directory.path().join("url");
    let path = file.to_str().unwrap();
    for (url, mode, warns) in [
        ("redis://:hunter2@127.0.0.1:1", 0o644, true),
        ("redis://:hunter2@127.0.0.1:1", 0o640, false),
        ("redis://127.0.0.1:1", 0o644, false),
    ] {
        fs::write(&file, url).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let said = text(&place.output(&["list", "--url-file", path]).await.stderr);
        assert_eq!(said.contains("chmod 600"), warns, "{url} {mode:o}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

/// No process writes to it, and so reading it takes for ever.
#[tokio::test]
async fn a_pipe_without_a_writer_is_left_by_a_signal() {
    let place = Place::files();
    let pipe = place.directory.path().join("pipe");
    mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let words = [
            "run",
            "job:one",
            "--url-file",
            pipe.to_str().unwrap(),
            "true",
        ];
        let mut process = place.dlock(&words).stderr(Stdio::null()).spawn().unwrap();
        let pid = process.id().unwrap();
        // It handles signals, and has begun to read: another thread is there for that.
        eventually("it reads", || async {
            fs::read_dir(format!("/proc/{pid}/task")).unwrap().count() > 1
        })
        .await;
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
        let status = timeout(PATIENCE, process.wait()).await.expect("it ends");
        assert_eq!(status.unwrap().signal(), Some(signal.as_raw()));
    }
}

#[tokio::test]
async fn a_file_with_the_url_is_read_within_the_wait_and_not_without_end() {
    let place = Place::files();
    let pipe = place.directory.path().join("pipe");
    mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
    let wait = |file| ["run", "job:one", "--wait=1s", "--url-file", file, "true"];
    let unread = place.output(&wait("pipe")).await;
    assert_eq!(unread.status.code(), Some(69), "{unread:?}");
    assert!(text(&unread.stderr).contains("--url-file pipe was not read within --wait"));
    let long = place.output(&["list", "--url-file", "/dev/zero"]).await;
    assert_eq!(long.status.code(), Some(78), "{long:?}");
    let said = text(&long.stderr);
    assert!(
        said.contains("--url-file /dev/zero") && said.contains("64 KiB"),
        "{said}"
    );
}

#[tokio::test]
async fn a_url_of_postgres_keeps_the_table_that_the_environment_says() {
    let server = PostgresServer::start().await;
    let mut place = Place::files();
    place.environment = vec![("LOCK_PROVIDER", "postgres-table".to_owned())];
    let output = place.run(&["--url", &server.url(), "--", "true"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let pool = server.pool().await;
    pool.execute("SELECT FROM distributed_lock_leases")
        .await
        .unwrap();
}

/// A service whose code names the table says so to no other process.
#[tokio::test]
async fn a_service_with_a_table_of_its_own_excludes_a_command_that_is_given_the_table() {
    let mut place = Place::table().await;
    let server = place.postgres.as_ref().unwrap();
    let pool = server.pool().await;
    pool.execute("CREATE SCHEMA locks").await.unwrap();
    let table = LeaseTable::builder(server.url()).table("locks.leases");
    let service = LockProvider::new(table.connect().await.unwrap());
    let guard = service.acquire("job:one", PATIENCE).await.unwrap();

    let options = ["--wait", "0", "--", "true"];
    let beside = place.run(&options).await;
    assert_eq!(beside.status.code(), Some(0), "{}", text(&beside.stderr));
    let table = ("LOCK_TABLE", "locks.leases".to_owned());
    place.environment.push(table);
    let held = place.run(&options).await;
    assert_eq!(held.status.code(), Some(75), "{}", text(&held.stderr));

    guard.release().await.unwrap();
    let next = place.run(&["--wait", "5s", "--", "true"]).await;
    assert_eq!(next.status.code(), Some(0), "{}", text(&next.stderr));
}

#[tokio::test]
async fn the_lease_and_the_table_of_the_environment_are_those_that_doctor_finds() {
    let mut place = Place::table().await;
    let server = place.postgres.as_ref().unwrap();
    let pool = server.pool().await;
    pool.execute("CREATE SCHEMA locks").await.unwrap();
    place.environment.extend([
        ("LOCK_TABLE", "locks.leases".to_owned()),
        ("LOCK_LEASE", "12s".to_owned()),
    ]);
    let examined = place.output(&["doctor"]).await;
    let said = text(&examined.stdout);
    for found in ["locks.leases", "ends after 12s"] {
        assert!(said.contains(found), "{found}: {said}");
    }
}

#[tokio::test]
async fn a_lease_or_a_table_that_the_store_does_not_have_ends_with_78() {
    for (setting, value) in [("LOCK_LEASE", "12s"), ("LOCK_TABLE", "locks.leases")] {
        let mut place = Place::files();
        place.environment.push((setting, value.to_owned()));
        let output = place.run(&["--", "true"]).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        let named = format!("{setting}: the provider `file` has no");
        assert!(said.contains(&named), "{said}");
    }
}

#[tokio::test]
async fn locks_of_this_machine_that_nothing_has_chosen_are_a_warning() {
    let mut place = Place::files();
    let (_, directory) = place.environment.pop().unwrap();
    let temporary = place.directory.path().display().to_string();
    place.environment = vec![
        ("XDG_RUNTIME_DIR", temporary.clone()),
        ("TMPDIR", temporary),
    ];
    let output = place.run(&["--", "true"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("warning: no store is chosen"), "{said}");
    let examined = text(&place.output(&["doctor"]).await.stdout);
    assert!(
        examined.contains("warn") && examined.contains("no store is chosen"),
        "{examined}"
    );
    for chosen in [
        ("LOCK_DIR", directory),
        ("LOCK_PROVIDER", "file".to_owned()),
    ] {
        place.environment.push(chosen);
        let output = place.run(&["--", "true"]).await;
        assert_eq!(text(&output.stderr), "");
        place.environment.pop();
    }
}

/// Locks of Redis stay there when the database is behind a pooler that keeps no mark.
#[tokio::test]
async fn what_mends_a_missing_mark_leaves_the_locks_where_they_are() {
    use lock_tests::servers::PgBouncer;

    let (redis, server) = (RedisServer::start().await, PostgresServer::start().await);
    let pooler = PgBouncer::transaction(&server).await;
    let mut place = Place::files();
    place.environment = vec![("REDIS_URL", redis.url()), ("DATABASE_URL", pooler.url())];
    let output = place.run(&["--skip", "--", "true"]).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("LOCK_MARKER=optional"), "{said}");
    for moves in ["LOCK_PROVIDER", "in a table"] {
        assert!(!said.contains(moves), "{said}");
    }
    place
        .environment
        .push(("LOCK_MARKER", "optional".to_owned()));
    let output = place.output(&["list"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
