//! Who holds a lock, as far as the library has a part in the answer.

use std::future::{Future, pending};
use std::time::{Duration, UNIX_EPOCH};

use lock_core::backend::{Attempt, Backend, Grant, Lease, LockRequest};
use lock_core::memory::MemoryBackend;
use lock_core::{Holder, LockError, LockErrorKind, LockMode, LockName, LockProvider};
use lock_tests::scripted_backend::ScriptedBackend;
use tokio::time::sleep;

use crate::support::{RESPONSE, ms, name, s, take, timed, took};

/// A backend that tells who holds a lock, after a while or never.
struct Telling {
    after: Option<Duration>,
    holder: fn(&LockName) -> Option<Holder>,
}

/// It grants none.
enum Never {}

impl Backend for Telling {
    type Grant = Never;
    const KIND: &'static str = "telling";

    async fn try_acquire(&self, _: &LockRequest) -> Result<Attempt<Never>, LockError> {
        Ok(Attempt::Held { retry_in: None })
    }

    fn changed(&self, _: &LockRequest) -> impl Future<Output = ()> + Send + 'static {
        pending()
    }

    async fn holder(&self, name: &LockName) -> Result<Option<Holder>, LockError> {
        match self.after {
            Some(after) => sleep(after).await,
            None => pending().await,
        }
        Ok((self.holder)(name))
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
    let client = LockProvider::new(Telling {
        after: None,
        holder: |_| None,
    });
    let (elapsed, answer) = timed(client.holder(name())).await;
    took(elapsed, RESPONSE);
    let error = answer.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(error.lock(), Some(&name()));
}

/// One question after the other would take a hundred times as long.
#[tokio::test(start_paused = true)]
async fn the_slots_of_a_lock_with_permits_are_asked_for_together() {
    let client = LockProvider::new(Telling {
        after: Some(ms(500)),
        holder: |_| None,
    });
    let lock = client.lock(name()).unwrap().permits(100);
    let (elapsed, answer) = timed(lock.holder()).await;
    // One before all others.
    took(elapsed, ms(1_000));
    assert_eq!(answer.unwrap(), None);
}

/// Who is refused can try again when the first of them opens.
#[tokio::test]
async fn of_slots_that_are_kept_the_first_that_opens_is_named_and_before_them_one_that_is_held() {
    fn kept(name: &LockName) -> Option<Holder> {
        let number = name.as_str().rsplit('#').next()?.parse().ok()?;
        let until = UNIX_EPOCH + s(number);
        Some(Holder::new(LockMode::Exclusive).with_until(until))
    }
    let holder = async |holder| {
        let after = Some(Duration::ZERO);
        let client = LockProvider::new(Telling { after, holder });
        let lock = client.lock(name()).unwrap().permits(20);
        lock.holder().await.unwrap().unwrap()
    };
    assert_eq!(holder(kept).await.until(), Some(UNIX_EPOCH + s(1)));
    let but_one = holder(|name| match name.as_str().ends_with("#7") {
        true => Some(Holder::new(LockMode::Exclusive).with_instance("web-7")),
        false => kept(name),
    });
    assert_eq!(but_one.await.instance(), Some("web-7"));
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
