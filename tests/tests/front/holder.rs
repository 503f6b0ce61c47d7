//! Who holds a lock, as far as the library has a part in the answer.

use std::future::{Future, pending};

use lock_core::backend::{Attempt, Backend, Grant, Lease, LockRequest};
use lock_core::memory::MemoryBackend;
use lock_core::{Holder, LockError, LockErrorKind, LockName, LockProvider};
use lock_tests::scripted_backend::ScriptedBackend;

use crate::support::{RESPONSE, name, s, take, timed, took};

/// A backend that never answers who holds a lock.
struct Silent;

/// It grants none.
enum Never {}

impl Backend for Silent {
    type Grant = Never;
    const KIND: &'static str = "silent";

    async fn try_acquire(&self, _: &LockRequest) -> Result<Attempt<Never>, LockError> {
        Ok(Attempt::Held { retry_in: None })
    }

    fn changed(&self, _: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        pending()
    }

    async fn holder(&self, _: &LockName) -> Result<Option<Holder>, LockError> {
        pending().await
    }

    async fn health(&self) -> Result<(), LockError> {
        Ok(())
    }
}

impl Grant for Never {
    fn lease(&self) -> &Lease {
        match *self {}
    }

    async fn release(self) -> Result<(), LockError> {
        match self {}
    }

    fn fencing_token(&self) -> impl Future<Output = Result<u64, LockError>> + Send + 'static {
        pending()
    }
}

#[tokio::test]
async fn a_backend_that_does_not_tell_who_holds_a_lock_says_so() {
    let client = ScriptedBackend::new().client();
    let _guard = take(&client).await;
    let error = client.holder(name()).await.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Misconfigured, "{error}");
    assert!(error.to_string().contains("`scripted`"), "{error}");
    assert_eq!(error.lock(), Some(&name()));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_silent_is_waited_for_as_long_as_for_one_answer() {
    let client = LockProvider::new(Silent);
    let (elapsed, answer) = timed(client.holder(name())).await;
    took(elapsed, RESPONSE);
    let error = answer.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(error.lock(), Some(&name()));
}

#[tokio::test]
async fn text_that_is_no_name_has_no_holder() {
    let client = LockProvider::new(MemoryBackend::new());
    let error = client.holder("Order 7").await.unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::InvalidName, "{error}");
}

#[tokio::test]
async fn each_client_of_a_store_in_memory_has_the_name_that_it_was_given() {
    let store = MemoryBackend::new();
    let named = |instance: &str| store.clone().with_instance(instance).unwrap();
    let (one, other) = (named("web-1"), named("web-2"));
    let clients = [one.clone(), one, other].map(LockProvider::new);
    for (client, expected) in clients.iter().zip(["web-1", "web-1", "web-2"]) {
        let guard = client.acquire(name(), s(1)).await.unwrap();
        for asked in &clients {
            let holder = asked.holder(name()).await.unwrap().unwrap();
            assert_eq!(holder.instance(), Some(expected));
        }
        store.revoke(&name());
        assert_eq!(client.holder(name()).await.unwrap(), None);
        drop(guard);
    }
    let error = store.with_instance("web 1").unwrap_err();
    assert!(error.is_misconfigured(), "{error}");
}
