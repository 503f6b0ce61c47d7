//! What only the locks in a directory show: frozen holders, copies of processes, files.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use lock_core::{LockErrorKind, LockName, LockProvider, LossReason};
use lock_tests::child::Child;
use lock_tests::{FileStore, Store, eventually};
use rustix::fs::{CWD, Mode, mkfifoat};
use tokio::time::timeout;

/// Longer than any hand-over takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Long enough for another to take what can be taken.
const A_WHILE: Duration = Duration::from_millis(300);

async fn child(store: &FileStore) -> Child {
    Child::start(env!("CARGO_BIN_EXE_locker"), &store.address().unwrap()).await
}

fn name() -> LockName {
    "order:process:42".parse().unwrap()
}

async fn is_held(client: &LockProvider) -> bool {
    lock_tests::is_held(client, name()).await
}

/// The lock files that are there.
fn files(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().file_name());
    names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.ends_with(".lock"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_holder_holds_on_and_is_the_only_one() {
    let store = FileStore::open().await;
    let (client, mut holder, mut waiter) = (
        store.client().await,
        child(&store).await,
        child(&store).await,
    );
    holder.hold(&name()).await;
    assert_eq!(holder.ask("token").await.split(' ').next(), Some("token"));
    holder.freeze().await;
    waiter.tell(&format!("acquire {} 60000", name())).await;
    let lock = client.lock(name()).unwrap();
    assert!(lock.try_acquire(A_WHILE).await.unwrap().is_none());
    assert!(is_held(&client).await);
    holder.thaw().await;
    assert_eq!(holder.ask("valid").await, "valid true");
    assert!(is_held(&client).await);
    holder.release().await;
    assert_eq!(waiter.answer().await, "granted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_waiter_holds_nobody_up() {
    let store = FileStore::open().await;
    let (client, mut waiter) = (store.client().await, child(&store).await);
    let guard = client
        .lock(name())
        .unwrap()
        .acquire(Duration::ZERO)
        .await
        .unwrap();
    waiter.tell(&format!("acquire {} 60000", name())).await;
    tokio::time::sleep(A_WHILE).await;
    waiter.freeze().await;
    guard.release().await.unwrap();
    for _ in 0..20 {
        let other = store.client().await;
        let guard = other.lock(name()).unwrap().acquire(PATIENCE).await.unwrap();
        guard.release().await.unwrap();
    }
    waiter.thaw().await;
    assert_eq!(waiter.answer().await, "granted");
    assert!(is_held(&client).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_holder_that_is_killed_is_gone() {
    let store = FileStore::open().await;
    let (client, mut holder) = (store.client().await, child(&store).await);
    holder.hold(&name()).await;
    holder.freeze().await;
    let lock = client.lock(name()).unwrap();
    let waiting = tokio::spawn(async move { lock.acquire(PATIENCE).await });
    tokio::time::sleep(A_WHILE).await;
    assert!(!waiting.is_finished());
    holder.kill().await;
    waiting.await.unwrap().unwrap().release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_frees_the_lock_also_when_a_copy_of_the_process_goes_on() {
    let store = FileStore::open().await;
    let (client, mut holder) = (store.client().await, child(&store).await);
    holder.hold(&name()).await;
    let copy = holder.start_another("fork").await;
    assert!(is_held(&client).await);
    holder.release().await;
    assert!(copy.lives());
    assert!(!is_held(&client).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_killed_holder_keeps_the_lock_until_it_ends() {
    let store = FileStore::open().await;
    let (client, mut holder) = (store.client().await, child(&store).await);
    holder.hold(&name()).await;
    let copy = holder.start_another("fork").await;
    holder.kill().await;
    let lock = client.lock(name()).unwrap();
    assert!(
        lock.try_acquire(A_WHILE).await.unwrap().is_none(),
        "as documented"
    );
    drop(copy);
    lock.acquire(PATIENCE)
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_without_descriptors_is_told_so_and_goes_on_when_it_has_some() {
    let store = FileStore::open().await;
    let mut child = child(&store).await;
    assert_eq!(child.ask("files 3").await, "limited");
    assert_eq!(
        child.ask(&format!("acquire {} 0", name())).await,
        "error unavailable"
    );
    assert_eq!(child.ask("files 100").await, "limited");
    child.hold(&name()).await;
}

#[tokio::test]
async fn the_file_of_a_lock_is_where_it_is_documented() {
    let store = FileStore::open().await;
    let client = store.client().await;
    let frozen = [
        (
            "order:process:42",
            "v1-mwy6ryselpbhixmast2zfv5q2mabha7k.lock",
        ),
        (
            "job:cleanup-tokens",
            "v1-v7wh5yzafmx2pjcwh6rt2gv2xe36vd3e.lock",
        ),
    ];
    for (name, file) in frozen {
        let guard = client
            .lock(name)
            .unwrap()
            .acquire(Duration::ZERO)
            .await
            .unwrap();
        assert_eq!(files(&store.directory()), [file], "{name}");
        assert_eq!(store.file_of(guard.name()), store.directory().join(file));
        guard.release().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_do_not_accumulate() {
    let store = FileStore::open().await;
    let client = store.client().await;
    for id in 0..200 {
        let lock = client.lock(LockName::new("order", "process", id)).unwrap();
        let guard = lock.acquire(Duration::ZERO).await.unwrap();
        if id % 2 == 0 {
            guard.release().await.unwrap();
        }
    }
    assert_eq!(files(&store.directory()), [""; 0]);

    // What a killed process leaves behind is gone when the name is used again.
    let mut holder = child(&store).await;
    holder.hold(&name()).await;
    holder.kill().await;
    assert_eq!(files(&store.directory()).len(), 1);
    client
        .lock(name())
        .unwrap()
        .acquire(PATIENCE)
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    assert_eq!(files(&store.directory()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_into_a_new_directory_before_the_holders_in_the_old_one_know() {
    let store = FileStore::open().await;
    let (here, there) = (store.client().await, store.client().await);
    let guard = here
        .lock(name())
        .unwrap()
        .acquire(Duration::ZERO)
        .await
        .unwrap();
    store.lose_all().await;
    eventually("locks can be had again", || async {
        match there
            .lock(name())
            .unwrap()
            .try_acquire(Duration::ZERO)
            .await
        {
            Ok(Some(_next)) => {
                assert!(!guard.is_valid(), "two valid guards");
                true
            }
            // Still in the old directory, where it is held.
            Ok(None) => false,
            Err(error) => {
                assert_eq!(error.kind(), LockErrorKind::Unavailable, "{error}");
                false
            }
        }
    })
    .await;
}

/// Panics once at a line with these words.
static PANIC_AT: Mutex<Option<&str>> = Mutex::new(None);

struct Logger;

impl Write for Logger {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(text);
        let mut words = PANIC_AT.lock().unwrap();
        let panics = words.take_if(|words| line.contains(*words)).is_some();
        drop(words);
        assert!(!panics, "on purpose");
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_thread_that_looks_after_locks_is_not_the_end_of_its_looks() {
    tracing_subscriber::fmt().with_writer(|| Logger).init();
    let store = FileStore::open().await;
    let client = store.client().await;
    let take = async |name: &str| client.lock(name).unwrap().acquire(PATIENCE).await.unwrap();
    let [first, second] = [take("order:process:1").await, take("order:process:2").await];
    *PANIC_AT.lock().unwrap() = Some("a lock file was removed");
    for guard in [&first, &second] {
        fs::remove_file(store.file_of(guard.name())).unwrap();
        assert_eq!(guard.lost().await, LossReason::Revoked);
        eventually("it has panicked", async || {
            PANIC_AT.lock().unwrap().is_none()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_under_a_holder_is_had_by_the_next_with_a_greater_token() {
    for everything in [false, true] {
        let store = FileStore::open().await;
        let here = store.client().await;
        let guard = here.lock(name()).unwrap().acquire(PATIENCE).await.unwrap();
        let first = guard.fencing_token().await.unwrap();
        if everything {
            store.lose_all().await;
        } else {
            store.lose(guard.name()).await;
        }
        // One that has not seen the directory before.
        let there = store.client().await;
        let next = there.lock(name()).unwrap().acquire(PATIENCE).await.unwrap();
        assert!(next.fencing_token().await.unwrap() > first, "{everything}");
        assert_eq!(guard.lost().await, LossReason::Revoked);
        assert!(next.is_valid() && guard.release().await.unwrap_err().is_lost());
        // The name is the next holder's, whatever the first has done at its end.
        assert!(is_held(&store.client().await).await);
    }
}

/// Made by one who could write to the directory for a moment: nothing is opened that it leads to, and an
/// open of a pipe does not wait for one who writes to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipes_and_links_in_the_place_of_a_lock_file_are_not_used() {
    let store = FileStore::open().await;
    let client = store.client().await;
    let lock = client.lock(name()).unwrap();
    let attempt = || timeout(PATIENCE, lock.try_acquire(Duration::ZERO));
    let (file, other) = (store.file_of(&name()), store.directory().join("other"));

    mkfifoat(CWD, &file, Mode::RUSR | Mode::WUSR).unwrap();
    let guard = attempt().await.unwrap().unwrap().expect("it is removed");
    assert!(fs::metadata(&file).unwrap().is_file());
    assert!(is_held(&store.client().await).await);
    guard.release().await.unwrap();

    symlink(&other, &file).unwrap();
    for there_is_one in [false, true] {
        if there_is_one {
            fs::write(&other, "precious").unwrap();
        }
        let error = attempt().await.unwrap().unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        assert_eq!(other.exists(), there_is_one);
    }
    assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
    fs::remove_file(&file).unwrap();

    fs::create_dir(&file).unwrap();
    let error = attempt().await.unwrap().unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    fs::remove_dir(&file).unwrap();
    let guard = attempt().await.unwrap().unwrap().expect("it is free");
    guard.release().await.unwrap();
}
