//! Locks as rows: what each request does in a real server, behind a pooler in transaction mode.

mod at_least;
mod backend;
mod contention;
mod faults;
mod fence;
mod holders;
mod notified;
mod readers;
mod readers_at_random;
mod reference;
mod rules;
mod server;
mod setup;
mod statements;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use lock_core::LockName;
use lock_core::postgres::lease_table::{
    Acquired, Answer, Ask, Failure, Hold, Lease, Part, Released, Request, RowKey, Setup, Table,
    Wish, run,
};
use lock_tests::eventually;
use lock_tests::servers::{PgBouncer, PostgresServer};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, Row};

/// The lease of all requests here, which no test waits for unless it says so.
const LEASE: Duration = Duration::from_secs(30);

const TABLE: &str = "public.leases";

const NAMESPACE: &str = "it's a \\ shop: \u{e9}";

/// A server, a pooler of two sessions before it, and the table.
struct Bed {
    server: PostgresServer,
    bouncer: PgBouncer,
    pool: PgPool,
    table: Table,
}

impl Bed {
    async fn new() -> Self {
        Self::on(PostgresServer::start().await).await
    }

    async fn on(server: PostgresServer) -> Self {
        let settings = [("pool_mode", "transaction"), ("default_pool_size", "2")];
        let bouncer = PgBouncer::with(&server, &settings).await;
        let pool = server.pool().await;
        let mut session = PgConnection::connect(&bouncer.url()).await.unwrap();
        let setup = Setup::new(TABLE, true).unwrap();
        let table = setup.open(&mut session, LEASE).await.unwrap();
        Self {
            server,
            bouncer,
            pool,
            table,
        }
    }

    /// One of many clients of the pooler.
    async fn client(&self) -> Client {
        self.client_at(&self.bouncer.url()).await
    }

    async fn client_at(&self, url: &str) -> Client {
        Client {
            session: PgConnection::connect(url).await.unwrap(),
            table: self.table.clone(),
            lease: LEASE,
            process: fastrand::u128(1..),
        }
    }

    /// One of a role that may not use the language in which sessions are taught statements.
    async fn client_without_language(&self) -> Client {
        self.write(
            "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON leases TO app",
        )
        .await;
        self.client_at(&self.server.url_for("app", "postgres"))
            .await
    }

    /// The one value of a query.
    async fn look<T>(&self, sql: &str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        self.pool
            .fetch_one(AssertSqlSafe(sql))
            .await
            .unwrap()
            .get(0)
    }

    /// Returns when a session waits for a lock of another.
    async fn until_one_waits(&self) {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        eventually("a session waits", || async {
            self.look::<i64>(waiting).await > 0
        })
        .await;
    }

    async fn write(&self, sql: &str) {
        self.pool.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    /// Its lease ended a second ago.
    async fn expire(&self, key: RowKey) {
        let sql = "UPDATE leases SET expires = clock_timestamp() - interval '1 s' WHERE key =";
        self.write(&format!("{sql} '{key}'")).await;
    }
}

/// Releases these, renews those and asks for the others, in one request, of locks that are known by numbers. All that is
/// held is released or renewed.
async fn ask_for_all(
    client: &mut Client,
    released: &[(usize, Hold)],
    held: &[(usize, Hold)],
    asked: &[(usize, Hold)],
) -> Answer {
    let releases: Vec<_> = released.iter().map(|(_, hold)| *hold).collect();
    let renewals: Vec<_> = held.iter().map(|(_, hold)| *hold).collect();
    let acquires: Vec<_> = asked.iter().map(|(_, hold)| wish(*hold)).collect();
    let ask = Ask {
        releases: &releases,
        renewals: &renewals,
        acquires: &acquires,
        ..Ask::default()
    };
    let answer = client.ask(ask).await;
    for place in 0..i32::try_from(releases.len()).unwrap() {
        assert_eq!(answer.released(place), Released::Free);
    }
    for place in 0..i32::try_from(renewals.len()).unwrap() {
        assert!(answer.is_renewed(place));
    }
    answer
}

/// A client, over a connection of its own.
struct Client {
    session: PgConnection,
    table: Table,
    lease: Duration,
    process: u128,
}

impl Client {
    async fn send(&mut self, request: Request) -> Answer {
        run(&mut self.session, request).await.unwrap()
    }

    async fn ask(&mut self, ask: Ask<'_>) -> Answer {
        self.try_ask(ask).await.unwrap()
    }

    async fn try_ask(&mut self, ask: Ask<'_>) -> Result<Answer, Failure> {
        self.ask_until(ask, i64::MAX).await
    }

    async fn ask_until(&mut self, ask: Ask<'_>, not_after: i64) -> Result<Answer, Failure> {
        let lease = Lease {
            length: self.lease,
            not_after,
            holder: "here:1",
            namespace: NAMESPACE,
            process: self.process,
        };
        let request = self.table.ask(number(), ask, lease);
        run(&mut self.session, request).await
    }

    async fn acquire(&mut self, hold: Hold) -> Acquired {
        let acquires = &[wish(hold)];
        let asked = Ask {
            acquires,
            ..Ask::default()
        };
        self.ask(asked).await.acquired(0)
    }

    async fn take(&mut self, hold: Hold) -> i64 {
        match self.acquire(hold).await {
            Acquired::Granted(token) => token,
            held => panic!("{held:?}"),
        }
    }

    async fn is_refused(&mut self, hold: Hold) -> bool {
        matches!(self.acquire(hold).await, Acquired::Held(_))
    }

    async fn release(&mut self, hold: Hold) -> Released {
        let releases = &[hold];
        let asked = Ask {
            releases,
            ..Ask::default()
        };
        self.ask(asked).await.released(0)
    }

    async fn renews(&mut self, hold: Hold) -> bool {
        let renewals = &[hold];
        let asked = Ask {
            renewals,
            ..Ask::default()
        };
        self.ask(asked).await.is_renewed(0)
    }

    async fn issue(&mut self, hold: Hold) -> Option<i64> {
        let tokens = &[hold];
        let asked = Ask {
            tokens,
            ..Ask::default()
        };
        self.ask(asked).await.issued(0)
    }
}

fn number() -> i64 {
    static NUMBERS: AtomicI64 = AtomicI64::new(1);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// A new owner of this lock.
fn hold(number: usize) -> Hold {
    Hold {
        key: RowKey::new("", &name(number)),
        owner: fastrand::u128(1..),
        part: Part::Whole,
        at_least: None,
    }
}

fn name(number: usize) -> LockName {
    LockName::new("order", "process", number).unwrap()
}

fn wish(hold: Hold) -> Wish<'static> {
    Wish {
        hold,
        name: "order:process:42",
        is_awaited: false,
        has_place: false,
    }
}
