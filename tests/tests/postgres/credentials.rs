//! Passwords that change while a process runs.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lock_core::postgres::{PostgresBackend, PostgresBuilder};
use lock_core::{Credentials, LockError, LockProvider};
use lock_tests::servers::{PostgresServer, Server};
use lock_tests::{Lateness, Log, Vault, eventually};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};

use crate::support::{LEASE, PATIENCE, ZERO, acquire, order, take};

const FIRST: &str = "hunter1-first";
const SECOND: &str = "hunter2-second";

/// A server with a role whose password is changed.
struct Rotation {
    server: PostgresServer,
    pool: PgPool,
}

impl Rotation {
    async fn new() -> Self {
        let server = PostgresServer::start().await;
        let pool = server.pool().await;
        let this = Self { server, pool };
        this.role("rotating", FIRST).await;
        this
    }

    async fn run(&self, sql: String) {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await;
        done.unwrap();
    }

    async fn role(&self, role: &str, password: &str) {
        self.run(format!(
            "CREATE ROLE {role} LOGIN PASSWORD '{password}' IN ROLE by_password"
        ))
        .await;
    }

    async fn rotate(&self, password: &str) {
        self.run(format!("ALTER ROLE rotating PASSWORD '{password}'"))
            .await;
    }

    async fn end_sessions(&self) {
        // The second connection of a connect can be there still.
        assert!(self.server.terminate_backends("distributed_lock").await >= 1);
    }

    /// Without a password.
    fn builder(&self) -> PostgresBuilder {
        PostgresBackend::builder(self.server.url_for("rotating", "postgres")).lease(LEASE)
    }

    fn options(&self, password: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.server.port())
            .username("rotating")
            .password(password)
            .database("postgres")
    }

    async fn user(&self) -> String {
        let user = "SELECT usename::text FROM pg_stat_activity WHERE application_name ~ '^distributed_lock( |$)'";
        sqlx::query_scalar(user)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Logins with a wrong password.
    fn failed_logins(&self) -> usize {
        let log = self.server.log();
        log.matches("password authentication failed").count()
    }
}

fn asking(builder: PostgresBuilder, vault: &Vault) -> PostgresBuilder {
    let vault = vault.clone();
    builder.credentials(move || vault.clone().read())
}

/// Loses its lock, and has it again.
async fn comes_back(rotation: &Rotation, client: &LockProvider) {
    let guard = acquire(client, order(), PATIENCE).await;
    rotation.end_sessions().await;
    guard.lost().await;
    let late = Lateness::of(Duration::ZERO);
    drop(acquire(client, order(), PATIENCE).await);
    late.at_most(LEASE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_present_options_of_a_pool_are_followed() {
    let rotation = Rotation::new().await;
    let pool = PgPoolOptions::new().connect_lazy_with(rotation.options(FIRST));
    let backend = PostgresBackend::builder_from_pool(&pool).lease(LEASE);
    let client = LockProvider::new(backend.connect().await.unwrap());
    comes_back(&rotation, &client).await;
    rotation.rotate(SECOND).await;
    let kept = acquire(&client, order(), PATIENCE).await;
    assert!(kept.is_valid(), "a session stays");
    kept.release().await.unwrap();
    pool.set_connect_options(rotation.options(SECOND));
    comes_back(&rotation, &client).await;
    // Whose pool it is closes it: the backend keeps its own session, and comes back.
    pool.close().await;
    comes_back(&rotation, &client).await;
    assert_eq!(rotation.failed_logins(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_asked_for_each_session() {
    let rotation = Rotation::new().await;
    let vault = Vault::with(Credentials::password(FIRST));
    let backend = asking(rotation.builder(), &vault).connect().await.unwrap();
    let client = LockProvider::new(backend.clone());
    assert_eq!(vault.asked(), 1);
    rotation.rotate(SECOND).await;
    vault.set(Credentials::password(SECOND));
    comes_back(&rotation, &client).await;
    assert_eq!((vault.asked(), rotation.failed_logins()), (2, 0));
    // As dynamic secrets have it, with a user for each lease.
    rotation.role("v_app_2", "other").await;
    vault.set(Credentials::new("v_app_2", "other"));
    comes_back(&rotation, &client).await;
    assert_eq!(rotation.user().await, "v_app_2");
    // And where the pool says otherwise.
    client.shutdown(ZERO).await;
    let pool = PgPoolOptions::new().connect_lazy_with(rotation.options("wrong"));
    let of_pool = PostgresBackend::builder_from_pool(&pool).lease(LEASE);
    let of_pool = asking(of_pool, &vault).connect().await.unwrap();
    drop(take(&LockProvider::new(of_pool), order()).await);
}

/// The runtime of a test, or of a part of the application, is not that of the process.
#[test]
fn credentials_are_asked_also_when_the_runtime_of_the_start_has_ended() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let (rotation, vault, client) = runtime().block_on(async {
        let (rotation, vault) = (
            Rotation::new().await,
            Vault::with(Credentials::password(FIRST)),
        );
        let backend = asking(rotation.builder(), &vault).connect().await.unwrap();
        (rotation, vault, LockProvider::new(backend))
    });
    runtime().block_on(async {
        // Its connections went with the runtime.
        let rotation = Rotation {
            pool: rotation.server.pool().await,
            ..rotation
        };
        rotation.rotate(SECOND).await;
        vault.set(Credentials::password(SECOND));
        comes_back(&rotation, &client).await;
    });
}

async fn refused(builder: PostgresBuilder) -> LockError {
    builder.connect().await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_gives_no_credentials_is_an_error_of_the_start_that_says_so() {
    let rotation = Rotation::new().await;
    let builder = || rotation.builder();
    let error = refused(builder().credentials(|| async { Err("the vault is sealed") })).await;
    assert!(error.is_unavailable(), "{error}");
    assert!(
        error.to_string().contains("`credentials` failed"),
        "{error}"
    );
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "the vault is sealed");
    let panicking = builder().credentials(|| async { panic!("{SECOND}") as Result<_, Infallible> });
    let error = refused(panicking).await;
    let said = format!("{error} {error:?}");
    assert!(
        said.contains("panicked") && !said.contains(SECOND),
        "{said}"
    );
    let hanging = builder().credentials(pending::<Result<_, Infallible>>);
    let late = Lateness::of(Duration::from_secs(5));
    let error = refused(hanging).await;
    late.check(Duration::from_secs(3)).await;
    assert!(error.to_string().contains("within 5s"), "{error}");
    let error = refused(asking(
        builder(),
        &Vault::with(Credentials::password(SECOND)),
    ))
    .await;
    let said = format!("{error} {error:?}");
    assert!(
        error.is_misconfigured() && said.contains("given to `credentials`"),
        "{said}"
    );
    assert!(!said.contains(SECOND), "{said}");
}

/// Its next login is seconds away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_does_not_wait_for_the_next_login_with_a_password_that_was_refused() {
    let rotation = Rotation::new().await;
    let pool = PgPoolOptions::new().connect_lazy_with(rotation.options(FIRST));
    let backend = PostgresBackend::builder_from_pool(&pool).lease(LEASE);
    let client = LockProvider::new(backend.connect().await.unwrap());
    rotation.rotate(SECOND).await;
    rotation.end_sessions().await;
    eventually("it was refused three times", async || {
        rotation.failed_logins() >= 3
    })
    .await;
    let late = Lateness::of(Duration::ZERO);
    client.shutdown(ZERO).await;
    late.at_most(Duration::from_secs(1)).await;
}

/// Each costs one attempt to connect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_gives_no_credentials_for_a_while_costs_attempts_and_nothing_else() {
    let rotation = Rotation::new().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let backend = rotation.builder().credentials(move || {
        let asked = count.fetch_add(1, Ordering::Relaxed);
        async move {
            match asked {
                1 => Err("the vault is sealed"),
                2 => panic!("on purpose"),
                3 => pending().await,
                _ => Ok(Credentials::password(FIRST)),
            }
        }
    });
    let client = LockProvider::new(backend.connect().await.unwrap());
    rotation.end_sessions().await;
    drop(acquire(&client, order(), PATIENCE).await);
    assert_eq!(asked.load(Ordering::Relaxed), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_was_refused_is_not_shown_to_the_server_at_each_attempt() {
    let log = Log::of_process();
    let rotation = Rotation::new().await;
    let vault = Vault::with(Credentials::password(FIRST));
    let backend = asking(rotation.builder(), &vault).connect().await.unwrap();
    let client = LockProvider::new(backend);
    rotation.rotate(SECOND).await;
    rotation.end_sessions().await;
    let (begun, mut said) = (Instant::now(), String::new());
    while begun.elapsed() < Duration::from_secs(6) {
        let lock = client.lock(order()).unwrap();
        if let Err(error) = lock.try_acquire(ZERO).await {
            assert!(error.is_unavailable(), "{error}");
            said = error.to_string();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(said.contains("refused the user or its password"), "{said}");
    assert!(said.contains("given to `credentials`"), "{said}");
    // After 0, 1, 3 and 7 s; a login asks for it once, and the log of the server names the line of
    // pg_hba.conf besides.
    let failed = rotation.failed_logins();
    assert!((2..=3).contains(&failed), "{failed} logins");
    assert!(vault.asked() <= 20, "asked {} times", vault.asked());
    let lines = log.count("cannot open a PostgreSQL lock session");
    assert!((1..=3).contains(&lines), "{lines} lines");
    // Another one is tried as soon as it is given.
    vault.set(Credentials::password(SECOND));
    let late = Lateness::of(Duration::ZERO);
    drop(acquire(&client, order(), PATIENCE).await);
    late.at_most(Duration::from_secs(2)).await;
    let written = log.text();
    assert!(!written.contains(FIRST) && !written.contains(SECOND));
}

/// As before, with nothing that could give another one: the administrator gives the old one back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fixed_password_that_is_right_again_is_taken() {
    let rotation = Rotation::new().await;
    let url = rotation
        .server
        .url_for(&format!("rotating:{FIRST}"), "postgres");
    let backend = PostgresBackend::builder(url).lease(LEASE);
    let client = LockProvider::new(backend.connect().await.unwrap());
    rotation.rotate(SECOND).await;
    rotation.end_sessions().await;
    eventually("it was refused", async || rotation.failed_logins() > 1).await;
    rotation.rotate(FIRST).await;
    drop(acquire(&client, order(), PATIENCE).await);
}
