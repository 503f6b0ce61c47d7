#![deny(warnings)]
//! Methods with every receiver, in inherent impls and in traits.

#[path = "../support/mod.rs"]
mod support;

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use lock_core::{LockError, LockProvider, distributed_lock};
use support::{assert_send, install, is_held, locks};

type Result<T = bool> = std::result::Result<T, LockError>;

struct Shop {
    id: u64,
    sold: u64,
    locks: LockProvider,
}

impl Shop {
    #[distributed_lock("shop:sell:<self.id>", provider = self.locks)]
    async fn by_ref(&self) -> Result {
        Ok(is_held(&self.locks, "shop:sell:1").await)
    }

    #[distributed_lock("shop:sell:<self.id>", provider = self.locks)]
    async fn by_mut(&mut self) -> Result {
        self.sold += 1;
        Ok(is_held(&self.locks, "shop:sell:1").await)
    }

    #[distributed_lock("shop:sell:<self.id>", provider = self.locks)]
    async fn by_value(self) -> Result {
        Ok(is_held(&self.locks, "shop:sell:1").await)
    }

    #[distributed_lock("shop:sell:<self.id>", provider = self.locks)]
    async fn by_mut_value(mut self) -> Result<u64> {
        self.sold += 1;
        Ok(self.sold)
    }

    #[distributed_lock("shop:sell:<self.id>", provider = self.locks)]
    async fn by_arc(self: Arc<Self>) -> Result {
        Ok(is_held(&self.locks, "shop:sell:1").await)
    }

    #[distributed_lock("shop:sell:<self.id>", provider = self.locks)]
    async fn by_arc_ref(self: &Arc<Self>) -> Result {
        Ok(is_held(&self.locks, "shop:sell:1").await)
    }

    #[distributed_lock("shop:sell:<self.id>", provider = self.locks)]
    async fn by_box(self: Box<Self>) -> Result {
        Ok(is_held(&self.locks, "shop:sell:1").await)
    }

    #[distributed_lock("shop:sell:<self.id>", provider = self.locks)]
    async fn by_rc(self: Rc<Self>) -> Result {
        Ok(is_held(&self.locks, "shop:sell:1").await)
    }

    #[distributed_lock("shop:sell:<self.id>", provider = self.locks)]
    async fn by_pin(mut self: Pin<&mut Self>) -> Result {
        self.sold += 1;
        Ok(is_held(&self.locks, "shop:sell:1").await)
    }

    #[distributed_lock("shop:sell:<self.number()>", provider = self.locks)]
    async fn unmentioned(&self) -> Result<()> {
        Ok(())
    }

    #[distributed_lock("shop:open:<id>")]
    async fn associated(id: u64) -> Result<Self> {
        Ok(Self {
            id,
            sold: 0,
            locks: locks(),
        })
    }

    fn number(&self) -> u64 {
        self.id
    }
}

trait Sell {
    fn number(&self) -> u64;

    async fn sell(&self) -> Result<u64>;

    #[distributed_lock("shop:tidy:<self.number()>")]
    async fn tidy(&self) -> Result<u64> {
        Ok(self.number())
    }
}

impl Sell for Shop {
    fn number(&self) -> u64 {
        self.id
    }

    #[distributed_lock("shop:sell:<self.id>", provider = self.locks)]
    async fn sell(&self) -> Result<u64> {
        Ok(self.sold)
    }
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<()> {
    install();
    let mut shop = Shop::associated(1).await?;
    assert!(assert_send(shop.by_ref()).await?);
    assert!(assert_send(shop.by_mut()).await?);
    assert!(assert_send(Pin::new(&mut shop).by_pin()).await?);
    assert!(assert_send(shop.unmentioned()).await.is_ok());
    assert_eq!(shop.sell().await?, 2);
    assert_eq!(shop.tidy().await?, 1);
    assert!(assert_send(shop.by_value()).await?);
    assert_eq!(Shop::associated(1).await?.by_mut_value().await?, 1);
    let shop = Arc::new(Shop::associated(1).await?);
    assert!(assert_send(shop.by_arc_ref()).await?);
    assert!(assert_send(shop.by_arc()).await?);
    assert!(assert_send(Box::new(Shop::associated(1).await?).by_box()).await?);
    assert!(Rc::new(Shop::associated(1).await?).by_rc().await?);
    Ok(())
}
