#![deny(warnings)]
//! Which provider: the one that is named, a parameter called `locks`, the installed one.

#[path = "../support/mod.rs"]
mod support;

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lock_core::{LockError, LockProvider, distributed_lock};
use support::{assert_send, install, is_held};

type Result<T> = std::result::Result<T, LockError>;

/// As axum's `State`.
struct State<T>(T);

impl<T> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[derive(Clone)]
struct App {
    locks: Arc<LockProvider>,
    asked: Arc<AtomicU32>,
}

impl App {
    fn provider(&self) -> LockProvider {
        self.asked.fetch_add(1, Ordering::Relaxed);
        LockProvider::clone(&self.locks)
    }

    async fn connect(&self) -> Result<LockProvider> {
        tokio::task::yield_now().await;
        Ok(self.provider())
    }
}

#[distributed_lock("order:by:parameter")]
async fn parameter(locks: &LockProvider) -> Result<bool> {
    Ok(is_held(locks, "order:by:parameter").await)
}

#[distributed_lock("order:by:pattern")]
async fn pattern(State(locks): State<LockProvider>) -> Result<bool> {
    Ok(is_held(&locks, "order:by:pattern").await)
}

#[distributed_lock("order:by:deref")]
async fn deref(locks: State<Arc<LockProvider>>) -> Result<bool> {
    Ok(is_held(&locks, "order:by:deref").await)
}

#[distributed_lock("order:by:field", provider = app.locks)]
async fn field(app: App) -> Result<bool> {
    Ok(is_held(&app.locks, "order:by:field").await)
}

#[distributed_lock("order:by:call", provider = app.provider())]
async fn call(app: &App) -> Result<bool> {
    Ok(is_held(&app.locks, "order:by:call").await)
}

#[distributed_lock("order:by:await", provider = app.connect().await?)]
async fn awaited(app: &App) -> Result<bool> {
    Ok(is_held(&app.locks, "order:by:await").await)
}

/// What is named goes before the parameter.
#[distributed_lock("order:by:name", provider = *other)]
async fn named(locks: &LockProvider, other: &LockProvider) -> Result<(bool, bool)> {
    Ok((
        is_held(locks, "order:by:name").await,
        is_held(other, "order:by:name").await,
    ))
}

/// A parameter called `locks` that is not the provider.
#[distributed_lock("order:by:install", provider = LockProvider::installed()?)]
async fn installed(locks: u8) -> Result<bool> {
    assert_eq!(locks, 1);
    Ok(is_held(LockProvider::installed()?, "order:by:install").await)
}

thread_local! {
    static CELL: Cell<u8> = const { Cell::new(0) };
}

/// Nothing of the expression lives on: not its temporaries, not its borrow.
#[distributed_lock("order:by:temporary", provider = CELL.with(|cell| (cell.get(), app.provider())).1)]
async fn temporary(mut app: App) -> Result<bool> {
    app.asked = Arc::default();
    Ok(is_held(&app.locks, "order:by:temporary").await)
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<()> {
    install();
    let locks = support::locks();
    let app = App {
        locks: Arc::new(locks.clone()),
        asked: Arc::default(),
    };
    assert!(assert_send(parameter(&locks)).await?);
    assert!(assert_send(pattern(State(locks.clone()))).await?);
    assert!(assert_send(deref(State(Arc::clone(&app.locks)))).await?);
    assert!(assert_send(field(app.clone())).await?);
    assert!(assert_send(call(&app)).await?);
    assert_eq!(app.asked.load(Ordering::Relaxed), 1, "evaluated once");
    assert!(assert_send(awaited(&app)).await?);
    assert_eq!(
        assert_send(named(&locks, &support::locks())).await?,
        (false, true)
    );
    assert!(assert_send(installed(1)).await?);
    assert!(assert_send(temporary(app.clone())).await?);
    Ok(())
}
