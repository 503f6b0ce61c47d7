//! A transactional outbox that runs in as many instances as you like: see the README beside this.

mod orders;
mod outbox;
mod webhook;

use std::env;
use std::time::Duration;

use anyhow::{Context, bail};
use lock_core::postgres::PostgresBackend;
use lock_core::{LockPolicy, LockProvider};
use sqlx::PgPool;
use tokio::time::sleep;

use crate::webhook::Webhook;

/// The time from one look into the outbox to the next, where there is nothing to do.
const EVERY: Duration = Duration::from_millis(100);

/// How long a batch that is under way may go on when the instance is asked to stop.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().init();
    let pool = PgPool::connect(&var("DATABASE_URL")?).await?;
    let locks = LockProvider::new(PostgresBackend::from_pool(&pool).await?);
    // `CREATE TABLE IF NOT EXISTS` fails when two do it together.
    let migrate = outbox::migrate(&pool);
    locks
        .try_run("job:migrate-outbox", LockPolicy::long_operation(), migrate)
        .await?;

    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(&locks, &pool, &Webhook::new(&var("WEBHOOK_URL")?)?).await?,
        ["order", customer, count] => orders::place(&pool, customer, count.parse()?).await?,
        _ => bail!("usage: outbox [order CUSTOMER COUNT]"),
    }
    locks.shutdown(GRACE).await;
    Ok(())
}

/// Processes the outbox, in the instance that leads, until Ctrl-C. A batch that is under way is finished.
async fn run(locks: &LockProvider, pool: &PgPool, webhook: &Webhook) -> anyhow::Result<()> {
    let rounds = locks.lead("job:process-outbox", async |term| {
        let pause = match outbox::process(&term, pool, webhook).await {
            // There may be more.
            Ok(1..) => Duration::ZERO,
            Ok(0) => EVERY,
            Err(error) => {
                tracing::error!("the outbox was not processed: {error:#}");
                EVERY
            }
        };
        sleep(pause).await;
        anyhow::Ok(())
    });
    let stop = async {
        tokio::signal::ctrl_c().await?;
        locks.shutdown(GRACE).await;
        anyhow::Ok(())
    };
    tokio::try_join!(rounds, stop)?;
    Ok(())
}

fn var(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("the environment variable {name} is needed"))
}
