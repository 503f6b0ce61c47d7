#![deny(warnings)]
//! Nothing that the surroundings call by a name of the prelude, of the expansion or of a crate gets
//! in the way.

#[path = "../support/mod.rs"]
mod support;

mod hidden {
    #![no_implicit_prelude]

    #[allow(dead_code)]
    mod shadows {
        pub struct Result;
        pub struct Option;
        pub struct Box;
        pub struct Err;
        pub struct Some;
        pub struct Send;
        pub struct LockPolicy;
        pub struct LockError;
        pub struct Refused;
        pub mod core {}
        pub mod std {}
        pub mod lock_core {}
        pub mod __private {}
        pub fn drop() {}
        #[allow(non_snake_case)]
        pub fn Ok() {}
        #[allow(non_upper_case_globals)]
        pub const None: u8 = 0;
    }

    #[allow(unused_macros)]
    macro_rules! pin {
        () => {};
    }

    #[allow(unused_imports)]
    use self::shadows::*;

    use ::lock_core::distributed_lock;

    type Answer<T> = ::core::result::Result<T, ::lock_core::LockError>;

    #[distributed_lock("order:hide:<id>", wait = "1s", max_hold = "1m", guard = held)]
    pub async fn hidden(id: u64) -> Answer<u64> {
        let _: &::lock_core::LockGuard = held;
        ::core::result::Result::Ok(id)
    }

    /// Parameters that are called as the expansion might call its own.
    #[distributed_lock("order:names:<error>:<guard>", busy = ::core::result::Result::Ok(value))]
    pub async fn names(
        error: u8,
        guard: u8,
        value: u8,
        lock: u8,
        __lock_guard: u8,
        __lock: u8,
    ) -> Answer<u8> {
        let __lock_outcome = error + guard + lock + __lock_guard;
        let (work, locks) = (__lock_outcome, __lock);
        ::core::result::Result::Ok(value + work + locks)
    }

    #[distributed_lock("job:hide", skip)]
    pub async fn skipped() {}

    #[distributed_lock("order:pair:<a>", "order:pair:<b>", refused = |_| 7)]
    pub async fn several(a: u8, b: u8) -> u8 {
        a + b
    }

    pub fn name(id: u8) -> Answer<::lock_core::LockName> {
        ::lock_core::lock_name!("order:hide:<id>:<n>", n = 1)
    }
}

#[tokio::main(flavor = "current_thread")]
pub async fn main() {
    support::install();
    assert_eq!(hidden::hidden(4).await.expect("free"), 4);
    assert_eq!(hidden::names(1, 1, 1, 1, 1, 1).await.expect("free"), 6);
    hidden::skipped().await;
    assert_eq!(hidden::several(1, 2).await, 3);
    assert_eq!(hidden::name(3).expect("a name").as_str(), "order:hide:3:1");
}
