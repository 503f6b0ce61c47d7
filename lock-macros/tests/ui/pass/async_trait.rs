#![deny(warnings)]
//! Under `#[async_trait]`, which has boxed the body before this attribute sees it; with
//! `#[instrument]` on either side.

#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;

use async_trait::async_trait;
use lock_core::{LockError, LockProvider, distributed_lock};
use support::{hold, is_held, locks};

type Result<T> = std::result::Result<T, LockError>;

struct Path<T>(T);

#[async_trait]
trait Orders: Send + Sync {
    fn locks(&self) -> &LockProvider;
    async fn process(&self, id: u64) -> Result<bool>;
    async fn pattern(&self, path: Path<u64>, pair: (&str, u8)) -> Result<String>;
    async fn add(&mut self, by: u64) -> Result<u64>;
    async fn early(&self, id: u64) -> Result<u64>;
    async fn close(self: Box<Self>) -> Result<u64>;
    async fn shared(self: Arc<Self>, id: u64) -> Result<u64>;
    async fn refused(self: Box<Self>, id: u64) -> u64;
    async fn sweep(&self);
    async fn traced_outside(&self, path: Path<u64>) -> Result<bool>;
    async fn traced_inside(&self, path: Path<u64>) -> Result<bool>;
    async fn generic<T: Send + Sync + std::fmt::Display + 'static>(&self, id: T) -> Result<String>
    where
        Self: Sized;

    #[distributed_lock("order:default:<id>", provider = self.locks(), guard = held)]
    async fn default(&self, id: u64) -> Result<String> {
        let _ = id;
        Ok(held.name().to_string())
    }
}

struct Shop {
    region: &'static str,
    total: u64,
    locks: LockProvider,
}

#[async_trait]
impl Orders for Shop {
    fn locks(&self) -> &LockProvider {
        &self.locks
    }

    #[distributed_lock("order:process:<self.region>:<id>", provider = self.locks, wait = "0s")]
    async fn process(&self, id: u64) -> Result<bool> {
        Ok(is_held(&self.locks, &format!("order:process:eu:{id}")).await)
    }

    #[distributed_lock("order:pattern:<id>:<word>", provider = self.locks, guard = held)]
    async fn pattern(&self, Path(id): Path<u64>, (word, _): (&str, u8)) -> Result<String> {
        assert_eq!((id, word), (5, "w"));
        Ok(held.name().to_string())
    }

    #[distributed_lock("order:add:<self.region>", provider = self.locks)]
    async fn add(&mut self, mut by: u64) -> Result<u64> {
        by += 1;
        self.total += by;
        Ok(self.total)
    }

    #[distributed_lock("order:early:<id>", provider = self.locks)]
    async fn early(&self, id: u64) -> Result<u64> {
        if id == 0 {
            return Ok(1);
        }
        if id == 1 {
            Err(LockError::unavailable("one"))?;
        }
        Ok(id)
    }

    #[distributed_lock("order:close:<self.region>", provider = self.locks)]
    async fn close(self: Box<Self>) -> Result<u64> {
        Ok(self.total)
    }

    #[distributed_lock("order:shared:<id>", provider = self.locks, busy = Ok(self.total))]
    async fn shared(self: Arc<Self>, id: u64) -> Result<u64> {
        Ok(id)
    }

    #[distributed_lock("order:total:<id>", provider = self.locks, refused = |_| self.total + 100)]
    async fn refused(self: Box<Self>, id: u64) -> u64 {
        id
    }

    #[distributed_lock("job:sweep", provider = self.locks, skip)]
    async fn sweep(&self) {
        assert!(is_held(&self.locks, "job:sweep").await);
    }

    #[tracing::instrument(skip_all)]
    #[distributed_lock("order:traced:<id>", provider = self.locks)]
    async fn traced_outside(&self, Path(id): Path<u64>) -> Result<bool> {
        Ok(is_held(&self.locks, &format!("order:traced:{id}")).await)
    }

    #[distributed_lock("order:traced:<id>", provider = self.locks)]
    #[tracing::instrument(skip_all, err)]
    async fn traced_inside(&self, Path(id): Path<u64>) -> Result<bool> {
        Ok(is_held(&self.locks, &format!("order:traced:{id}")).await)
    }

    #[distributed_lock("order:generic:<id>", provider = self.locks)]
    async fn generic<T: Send + Sync + std::fmt::Display + 'static>(&self, id: T) -> Result<String> {
        Ok(id.to_string())
    }
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<()> {
    let locks = locks();
    let shop = || Shop {
        region: "eu",
        total: 2,
        locks: locks.clone(),
    };
    let mut orders: Box<dyn Orders> = Box::new(shop());
    assert!(orders.process(1).await?);
    assert_eq!(
        orders.pattern(Path(5), ("w", 0)).await?,
        "order:pattern:5:w"
    );
    assert_eq!(orders.add(1).await?, 4);
    assert_eq!(orders.early(0).await?, 1);
    assert!(orders.early(1).await.expect_err("by `?`").is_unavailable());
    assert_eq!(orders.early(2).await?, 2);
    assert_eq!(orders.default(9).await?, "order:default:9");
    assert!(orders.traced_outside(Path(3)).await?);
    assert!(orders.traced_inside(Path(3)).await?);
    assert_eq!(shop().generic("g").await?, "g");
    orders.sweep().await;

    let guard = hold(&locks, "order:process:eu:1").await;
    assert!(orders.process(1).await.expect_err("held").is_contended());
    guard.release().await?;
    assert!(!is_held(&locks, "order:process:eu:1").await);
    assert_eq!(orders.close().await?, 4);
    assert_eq!(Box::new(shop()).refused(1).await, 1);
    let shared: Arc<dyn Orders> = Arc::new(shop());
    assert_eq!(shared.shared(6).await?, 6);
    Ok(())
}
