//! The thread of a backend: a runtime of its own for the driver, which outlives the application's. A panic
//! in it ends the leases, and not the thread: the driver starts anew.

use std::sync::{Arc, Weak};

use sqlx::postgres::PgListener;
use tokio::time::timeout;

use super::ask::Ask;
use super::checks;
use super::listening::{self, keep_listening};
use super::mark::RowMark;
use super::protocol::{Effects, TableProtocol};
use super::session;
use super::setup::Table;
use super::shared::{Chosen, Opened, Shared};
use super::sql::Lease;
use super::unanswered::Unanswered;
use super::waiters::Client;
use super::watch::Seen;
use crate::LockError;
use crate::postgres::steps::{Step, within};
use crate::server::driver::Driver;
use crate::server::worker::{self, AtEnd};
use crate::server::{PATIENCE, Reply};

/// Starts the thread; returns when it has connected, and the table is there.
pub(super) async fn start(shared: Shared) -> Result<Opened, LockError> {
    let shared = Arc::new(shared);
    // Dropped before the thread has connected, it ends it.
    let client = shared.client();
    let of_thread = (Arc::clone(&shared), Arc::downgrade(&client));
    let run = move |started| run(of_thread.0, of_thread.1, started);
    let table = worker::start("lock-postgres-table", run).await?;
    Ok(Opened {
        shared,
        client,
        table,
        listing: Arc::default(),
    })
}

fn run(shared: Arc<Shared>, client: Weak<Client>, started: Reply<Table>) {
    let (users, ending) = (shared.users(client.clone()), Arc::clone(&shared));
    let _ending = AtEnd(move || {
        ending.connections.close();
        users.end();
    });
    let runtime = match worker::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return drop(started.send(Err(error))),
    };
    runtime.block_on(async {
        let Ready {
            table,
            seen,
            listener,
        } = match open(&shared).await {
            Ok(ready) => ready,
            Err(error) => return drop(started.send(Err(error))),
        };
        if started.send(Ok(table.clone())).is_ok() {
            if let Some(listener) = listener {
                // Ends with the runtime.
                tokio::spawn(keep_listening(Arc::clone(&shared), table.clone(), listener));
            }
            let driver = || {
                let protocol = TableProtocol::new(Arc::clone(&shared), table.clone(), seen);
                Driver::new(shared.users(client.clone()), protocol, Effects::new())
            };
            driver().run_with_restarts("PostgreSQL", driver).await;
        }
        unmark(&shared, &table).await;
    });
}

/// What there is once the server has answered.
struct Ready {
    table: Table,
    seen: Seen,
    listener: Option<PgListener>,
}

/// Connects, and finds the table; with the time of the server.
async fn open(shared: &Shared) -> Result<Ready, LockError> {
    let mut connection = shared.connections.open().await?;
    let Chosen { setup, terms, .. } = &shared.chosen;
    let opening = setup.open(&mut connection, terms.lease());
    let table = within(Step::SetUp, opening).await?;
    let lease = Lease {
        length: terms.lease(),
        not_after: 0,
        holder: &shared.holder,
        namespace: &shared.chosen.namespace,
        process: shared.process(),
    };
    let (ask, sent) = (
        table.ask(shared.number(), Ask::default(), lease),
        shared.clock.now(),
    );
    let looked = async {
        let answer = session::run(&mut connection, ask).await;
        answer.map_err(|failure| {
            Unanswered::Failed(failure).while_connecting("the server did not say what its time is")
        })
    };
    let time = within(Step::Look, looked).await?.time;
    let received = shared.clock.now();
    shared.connections.keep(connection);
    let seen = Seen {
        sent,
        received,
        time,
    };
    if let Some(mark) = &shared.chosen.mark
        && let Err(error) = take_mark(shared, &table, mark).await
    {
        unmark(shared, &table).await;
        return Err(error);
    }
    let listener = match &shared.direct {
        Some(direct) => Some(listening::open(shared, direct, &table).await?),
        None => None,
    };
    checks::tell(shared, &table, seen);
    Ok(Ready {
        table,
        seen,
        listener,
    })
}

/// Says that locks are in this table, and looks for those who say otherwise.
async fn take_mark(shared: &Shared, table: &Table, mark: &RowMark) -> Result<(), LockError> {
    let mut other = None;
    // What the first has written is there for others when the second looks.
    for _ in 0..2 {
        let marking = table.mark(shared.number(), mark, &shared.holder);
        let marked = shared.connections.run(marking).await;
        let marked = marked.map_err(|failed| {
            failed.while_connecting("the mark of the provider was not written, or not looked for")
        })?;
        other = mark.other(marked.marked());
    }
    other.map_or(Ok(()), |other| Err(mark.refusal(other)))
}

/// Withdraws the mark of this process, which ends by itself otherwise.
async fn unmark(shared: &Shared, table: &Table) {
    if let Some(mark) = &shared.chosen.mark {
        let _ = timeout(
            PATIENCE,
            shared.connections.run(table.unmark(shared.number(), mark)),
        )
        .await;
    }
}
