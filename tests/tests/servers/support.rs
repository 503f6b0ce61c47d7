//! What the tests of several servers share.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

/// Long enough for what does not happen.
pub(crate) const A_WHILE: Duration = Duration::from_millis(300);

/// Longer than anything that does happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

pub(crate) async fn number(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query)
        .fetch_one(connection)
        .await
        .unwrap()
}

pub(crate) async fn run(connection: &mut PgConnection, query: &'static str) {
    sqlx::query(query).execute(connection).await.unwrap();
}
