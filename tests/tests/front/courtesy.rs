//! Fairness between the clients of the memory backend.

use lock_core::LockProvider;
use lock_core::memory::MemoryBackend;

use crate::support::{ms, name, poll_once, s, start, take, timed};

#[tokio::test(start_paused = true)]
async fn a_release_lets_the_client_go_first_that_waited_longest() {
    let store = MemoryBackend::new();
    let [first, second, third] = [(); 3].map(|()| LockProvider::new(store.clone()));
    let guard = take(&first).await;
    let of_second = start(&second, s(60)).await;
    let of_third = start(&third, s(60)).await;
    let mut of_first = first.lock(name()).unwrap().acquire_owned(s(60));
    assert!(poll_once(&mut of_first).is_none());
    guard.release().await.unwrap();
    // Faster than any that must wake up first.
    assert!(
        poll_once(&mut of_first).is_none(),
        "another has waited for longer"
    );
    let guard = of_second.await.unwrap().unwrap();
    assert!(!of_third.is_finished());
    guard.release().await.unwrap();
    // Of the two that are left either can be next, and then the other.
    let third = async { of_third.await.unwrap().unwrap().release().await.unwrap() };
    let first = async { of_first.await.unwrap().release().await.unwrap() };
    tokio::join!(third, first);
}

#[tokio::test(start_paused = true)]
async fn one_who_was_called_and_left_delays_the_next_by_milliseconds_at_most() {
    let store = MemoryBackend::new();
    let [first, second, third] = [(); 3].map(|()| LockProvider::new(store.clone()));
    let guard = take(&first).await;
    let mut of_second = second.lock(name()).unwrap().acquire_owned(s(60));
    assert!(poll_once(&mut of_second).is_none());
    let of_third = start(&third, s(60)).await;
    guard.release().await.unwrap();
    drop(of_second);
    let (elapsed, guard) = timed(of_third).await;
    drop(guard.unwrap().unwrap());
    assert!(elapsed <= ms(10), "{elapsed:?}");
}
