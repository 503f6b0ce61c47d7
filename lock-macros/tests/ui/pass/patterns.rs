#![deny(warnings)]
//! Placeholders name what the parameters' patterns bind, their fields and methods.

#[path = "../support/mod.rs"]
mod support;

use std::fmt;

use lock_core::{LockError, distributed_lock};
use support::{assert_send, install};

struct Path<T>(T);

struct Command {
    order_id: u64,
    user: User,
}

struct User(u64, (char, char));

impl User {
    fn id(&self) -> Id<'_> {
        Id(&self.0)
    }
}

/// Made on the way, and borrowed.
struct Id<'a>(&'a u64);

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "u{}", self.0)
    }
}

#[distributed_lock("order:a:<id>", guard = held)]
async fn tuple_struct(Path(id): Path<u64>) -> Result<String, LockError> {
    let _ = id;
    Ok(held.name().to_string())
}

#[distributed_lock("order:b:<a>:<c>", guard = held)]
async fn tuple(Path((a, _, (_, c))): Path<(u8, u8, (u8, u8))>) -> Result<String, LockError> {
    let _ = (a, c);
    Ok(held.name().to_string())
}

#[distributed_lock("order:c:<order_id>:<name>", guard = held)]
async fn fields(
    Command {
        order_id,
        user: User(name, ..),
    }: Command,
) -> Result<String, LockError> {
    let _ = (order_id, name);
    Ok(held.name().to_string())
}

#[distributed_lock("order:d:<cmd.order_id>:<cmd.user.id()>:<cmd.user.1.0>", guard = held)]
async fn paths(cmd: Command) -> Result<String, LockError> {
    let _ = cmd;
    Ok(held.name().to_string())
}

#[distributed_lock("order:e:<all.0>:<first>:<last>", guard = held)]
async fn slices(all @ (first, last): (u8, u8), _: String) -> Result<String, LockError> {
    let _ = (all, first, last);
    Ok(held.name().to_string())
}

#[allow(clippy::toplevel_ref_arg)]
#[distributed_lock("order:f:<text.len()>:<n>", guard = held)]
async fn mutable(mut text: String, ref n: u8, ref mut m: u8) -> Result<String, LockError> {
    text.push_str(&n.to_string());
    *m += 1;
    Ok(format!("{} {text} {m}", held.name()))
}

#[distributed_lock("order:g:<r#type>", guard = held)]
async fn raw(r#type: &str, #[cfg(any())] gone: u8) -> Result<String, LockError> {
    let _ = r#type;
    Ok(held.name().to_string())
}

/// Used for the name and for nothing else.
#[distributed_lock("order:h:<only>", guard = held)]
async fn only_named(only: String) -> Result<String, LockError> {
    Ok(held.name().to_string())
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), LockError> {
    install();
    let command = || Command {
        order_id: 4,
        user: User(7, ('x', 'y')),
    };
    assert_eq!(assert_send(tuple_struct(Path(3))).await?, "order:a:3");
    assert_eq!(
        assert_send(tuple(Path((1, 2, (3, 4))))).await?,
        "order:b:1:4"
    );
    assert_eq!(assert_send(fields(command())).await?, "order:c:4:7");
    assert_eq!(assert_send(paths(command())).await?, "order:d:4:u7:x");
    assert_eq!(
        assert_send(slices((1, 2), String::new())).await?,
        "order:e:1:1:2"
    );
    assert_eq!(
        assert_send(mutable("ab".into(), 5, 6)).await?,
        "order:f:2:5 ab5 7"
    );
    assert_eq!(assert_send(raw("t")).await?, "order:g:t");
    assert_eq!(assert_send(only_named("n".into())).await?, "order:h:n");
    Ok(())
}
