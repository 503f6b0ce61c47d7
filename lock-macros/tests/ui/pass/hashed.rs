#![deny(warnings)]
//! `:hashed` keeps a value out of the name; a plain value is escaped.

#[path = "../support/mod.rs"]
mod support;

use lock_core::{LockError, distributed_lock};
use support::{assert_send, install};

#[distributed_lock("user:login:<email:hashed>", guard = held)]
async fn login(email: &str) -> Result<String, LockError> {
    assert!(!held.name().as_str().contains("ann"), "{}", held.name());
    assert_eq!(held.name().label(), "user:login:<email:hashed>");
    assert!(email.contains('@'));
    Ok(held.name().to_string())
}

#[distributed_lock("user:files:<tenant>:<path:hashed>", guard = held)]
async fn file(tenant: &str, path: String) -> Result<String, LockError> {
    let _ = (tenant, path);
    Ok(held.name().to_string())
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), LockError> {
    install();
    let ann = assert_send(login("ann@example.org")).await?;
    assert_eq!(ann, login("ann@example.org").await?);
    assert_ne!(ann, login("anne@example.org").await?);
    let name = file("a:b", "/x".into()).await?;
    assert!(name.starts_with("user:files:a%3Ab:~"), "{name}");
    Ok(())
}
