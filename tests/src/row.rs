//! A row that holders of a lock write to, with a check of their token or without.

use std::str::FromStr;

use lock_core::postgres::Fence;
use lock_core::{FencingToken, LockName};
use sqlx::{Connection, Executor, PgConnection, Row};

/// How a write is kept from overtaking a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// Not at all.
    Not,
    /// By a column of the row.
    ByColumn,
    /// By a [`Fence`].
    ByFence,
}

impl FromStr for Guarded {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "not" => Ok(Self::Not),
            "by-column" => Ok(Self::ByColumn),
            "by-fence" => Ok(Self::ByFence),
            _ => Err(format!(
                "writes are guarded not, by-column or by-fence, and not {text}"
            )),
        }
    }
}

/// Makes the table with its one row.
///
/// # Errors
///
/// What the server says.
pub async fn create(url: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let table = "CREATE TABLE account (balance int8 NOT NULL, fence int8 NOT NULL DEFAULT 0); \
         INSERT INTO account VALUES (100, 0)";
    connection.execute(table).await?;
    connection.execute(Fence::MIGRATION).await?;
    Ok(())
}

/// What is in the row.
///
/// # Errors
///
/// What the server says.
pub async fn balance(url: &str) -> sqlx::Result<i64> {
    let mut connection = PgConnection::connect(url).await?;
    let row = connection.fetch_one("SELECT balance FROM account").await?;
    Ok(row.get(0))
}

/// Writes to the row; whether it was let.
///
/// # Errors
///
/// What the server says.
pub async fn write(
    url: &str,
    lock: &LockName,
    token: FencingToken,
    balance: i64,
    guarded: Guarded,
) -> sqlx::Result<bool> {
    let mut connection = PgConnection::connect(url).await?;
    let mut tx = connection.begin().await?;
    if guarded == Guarded::ByFence
        && let Err(refused) = Fence::new().check(&mut tx, lock, token).await
    {
        assert!(refused.is_lost(), "{refused}");
        return Ok(false);
    }
    let update = match guarded {
        Guarded::ByColumn => {
            sqlx::query("UPDATE account SET balance = $1, fence = $2 WHERE fence <= $2")
                .bind(balance)
                .bind(token)
        }
        Guarded::Not | Guarded::ByFence => {
            sqlx::query("UPDATE account SET balance = $1").bind(balance)
        }
    };
    let written = update.execute(&mut *tx).await?.rows_affected() == 1;
    tx.commit().await?;
    Ok(written)
}
