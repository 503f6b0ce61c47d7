#![deny(warnings)]
//! Generic functions, methods and impls.

#[path = "../support/mod.rs"]
mod support;

use std::fmt::Display;
use std::marker::PhantomData;

use lock_core::{LockError, distributed_lock};
use support::{assert_send, install, is_held};

#[distributed_lock("item:store:<id>")]
async fn store<T: Display, const N: usize>(id: T, values: [u8; N]) -> Result<usize, LockError> {
    drop(id);
    Ok(values.len())
}

#[distributed_lock("item:apply:<id>")]
async fn apply<F, Fut, T>(id: &str, work: F) -> Result<T, LockError>
where
    F: FnOnce(String) -> Fut,
    Fut: Future<Output = T>,
{
    Ok(work(id.to_owned()).await)
}

struct Store<K, V> {
    prefix: K,
    values: PhantomData<V>,
}

impl<K: Display, V: Default> Store<K, V> {
    #[distributed_lock("item:load:<self.prefix>:<key>")]
    async fn load<Q>(&self, key: Q) -> Result<(Q, V), LockError>
    where
        Q: Display + Clone,
    {
        Ok((key.clone(), V::default()))
    }
}

macro_rules! locked {
    ($name:ident, $id:ident, $template:literal) => {
        #[distributed_lock($template)]
        async fn $name($id: u32) -> Result<u32, LockError> {
            Ok($id)
        }
    };
}

locked!(made, number, "item:made:<number>");

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), LockError> {
    let locks = install();
    assert_eq!(assert_send(store("a", [0; 3])).await?, 3);
    assert_eq!(store(7, []).await?, 0);
    let held = apply("x", |id| {
        let locks = &locks;
        async move { is_held(locks, &format!("item:apply:{id}")).await }
    });
    assert!(assert_send(held).await?);
    let store = Store::<_, u8> {
        prefix: 'p',
        values: PhantomData,
    };
    assert_eq!(assert_send(store.load("k")).await?, ("k", 0));
    assert_eq!(made(4).await?, 4);
    Ok(())
}
