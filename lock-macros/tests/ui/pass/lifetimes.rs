#![deny(warnings)]
//! Borrowed parameters and borrowed results.

#[path = "../support/mod.rs"]
mod support;

use std::collections::HashMap;

use lock_core::{LockError, distributed_lock};
use support::{assert_send, install};

#[distributed_lock("text:trim:<key>")]
async fn trim<'a>(key: &str, text: &'a str) -> Result<&'a str, LockError> {
    let _ = key;
    Ok(text.trim())
}

#[distributed_lock("text:longest:<a>")]
async fn longest<'a, 'b: 'a>(a: &'a str, b: &'b str) -> Result<&'a str, LockError> {
    if a.len() > b.len() { Ok(a) } else { Ok(b) }
}

#[distributed_lock("text:push:<key>")]
async fn push(key: &str, into: &mut Vec<String>) -> Result<(), LockError> {
    into.push(key.to_owned());
    Ok(())
}

struct Texts<'t>(HashMap<&'t str, Box<dyn Fn() -> usize + Send + Sync + 't>>);

impl<'t> Texts<'t> {
    #[distributed_lock("text:get:<key>")]
    async fn get(
        &self,
        key: &str,
    ) -> Result<Option<&(dyn Fn() -> usize + Send + Sync + 't)>, LockError> {
        Ok(self.0.get(key).map(|found| &**found))
    }

    #[distributed_lock("text:put:<key>")]
    async fn put(&mut self, key: &'t str) -> Result<&mut Self, LockError> {
        self.0.insert(key, Box::new(|| key.len()));
        Ok(self)
    }
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), LockError> {
    install();
    let text = String::from(" a ");
    let trimmed = {
        let key = String::from("k");
        assert_send(trim(&key, &text)).await?
    };
    assert_eq!(trimmed, "a");
    assert_eq!(longest("ab", &text).await?, " a ");
    let mut all = Vec::new();
    assert_send(push("x", &mut all)).await?;
    assert_eq!(all, ["x"]);
    let mut texts = Texts(HashMap::new());
    assert_send(texts.put(&text)).await?.put("bb").await?;
    assert_eq!(assert_send(texts.get("bb")).await?.expect("put")(), 2);
    Ok(())
}
