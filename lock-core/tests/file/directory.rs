//! A lock directory that is taken away, and one that others may see.

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use lock_core::backend::{Attempt, Backend, Grant, LossReason};
use lock_core::file::{FileBackend, FileGrant};
use lock_core::{LockError, LockErrorKind, LockProvider};

use crate::support::{Base, at_once, block_on, request, take, until_lost};

const LOCK: &str = "order:process:42";

fn attempt(backend: &FileBackend) -> Result<Attempt<FileGrant>, LockError> {
    at_once(backend.try_acquire(&request(LOCK)))
}

/// What takes the directory away from under its users.
fn removals() -> [fn(&Base); 3] {
    [
        |base| fs::remove_dir_all(base.locks()).unwrap(),
        |base| fs::rename(base.locks(), base.path().join("moved")).unwrap(),
        |base| {
            fs::remove_dir_all(base.locks()).unwrap();
            base.backend();
        },
    ]
}

/// For so long.
const NOTHING_GRANTED: Duration = Duration::from_secs(2);

#[test]
fn one_that_is_removed_or_replaced_costs_the_locks_in_it_and_grants_nothing_for_a_while() {
    for remove in removals() {
        let base = Base::new();
        let backend = base.backend();
        let grant = take(&backend, "order:process:1").unwrap();
        // A thread of the backend can notice it before this one goes on.
        let removed = Instant::now();
        remove(&base);
        let error = attempt(&backend).unwrap_err();
        let noticed = Instant::now();
        assert_eq!(error.kind(), LockErrorKind::Unavailable);
        assert!(error.to_string().contains("removed or replaced"), "{error}");
        assert_eq!(grant.lease().reason(), Some(LossReason::Revoked));
        assert!(block_on(backend.health()).is_err());
        // Longer than any other process needs to notice its own loss. A thread that stood still meanwhile cannot
        // say on which side of the end its attempt was.
        loop {
            let begun = noticed.elapsed();
            let attempt = attempt(&backend);
            let granted = matches!(attempt, Ok(Attempt::Granted(_)));
            assert!(attempt.is_err() || removed.elapsed() >= NOTHING_GRANTED);
            if granted {
                break;
            }
            assert!(begun <= NOTHING_GRANTED + Duration::from_millis(100));
            thread::sleep(Duration::from_millis(50));
        }
        block_on(backend.health()).unwrap();
        assert_eq!(
            at_once(grant.release()).unwrap_err().kind(),
            LockErrorKind::Lost
        );
    }
}

#[test]
fn a_holder_that_does_nothing_hears_of_it() {
    for remove in removals() {
        let base = Base::new();
        let grant = take(&base.backend(), LOCK).unwrap();
        remove(&base);
        until_lost(grant.lease());
    }
}

#[test]
fn a_release_in_one_that_was_replaced_is_an_error() {
    let base = Base::new();
    let grant = take(&base.backend(), LOCK).unwrap();
    fs::rename(base.locks(), base.path().join("moved")).unwrap();
    let other = take(&base.backend(), LOCK).unwrap();
    assert_eq!(
        at_once(grant.release()).unwrap_err().kind(),
        LockErrorKind::Lost
    );
    assert!(other.lease().is_valid());
}

/// Through the provider, whose guards are what an application has.
#[test]
fn the_release_of_a_guard_in_one_that_was_replaced_is_an_error() {
    for remove in removals() {
        let base = Base::new();
        let locks = LockProvider::new(base.backend());
        let guards = ["order:process:42", "order:process:43"]
            .map(|name| block_on(locks.lock(name).unwrap().acquire(Duration::ZERO)).unwrap());
        remove(&base);
        let [released, other] = guards;
        let error = block_on(released.release()).unwrap_err();
        assert!(error.is_lost(), "{error:?}");
        assert!(!other.is_valid(), "the loss of one is the loss of all");
    }
}

/// A look at a disk that stalls is not to stall what asks.
#[test]
fn its_health_is_looked_at_on_another_thread() {
    let backend = Base::new().backend();
    // The other thread can be done before a poll returns; the thread that polls would be so each time.
    let returns_before_the_answer = (0..1_000).any(|_| {
        let mut health = Box::pin(backend.health());
        let polled = health
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        polled.is_pending()
    });
    assert!(returns_before_the_answer);
    // Its directory is gone.
    assert!(block_on(backend.health()).unwrap_err().is_unavailable());
}

#[test]
fn files_of_other_programs_are_left_alone() {
    let base = Base::new();
    fs::create_dir(base.locks()).unwrap();
    fs::set_permissions(base.locks(), fs::Permissions::from_mode(0o700)).unwrap();
    let last_year = SystemTime::now() - Duration::from_secs(365 * 24 * 60 * 60);
    let theirs =
        ["Cargo.lock", "yarn.lock", "empty.lock", "probe-1"].map(|name| base.locks().join(name));
    for path in &theirs {
        fs::write(
            path,
            if path.ends_with("empty.lock") {
                ""
            } else {
                "theirs"
            },
        )
        .unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(last_year).unwrap();
    }
    let backend = base.backend();
    drop(take(&backend, LOCK).unwrap());
    block_on(backend.health()).unwrap();
    for path in &theirs {
        assert!(path.exists(), "{} is gone", path.display());
    }
}

#[test]
fn one_that_others_can_enter_is_refused_with_what_to_do() {
    let base = Base::new();
    fs::create_dir(base.locks()).unwrap();
    fs::set_permissions(base.locks(), fs::Permissions::from_mode(0o755)).unwrap();
    let error = FileBackend::open(base.locks()).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Misconfigured);
    assert!(error.to_string().contains("chmod 700"), "{error}");
}

#[test]
fn the_default_is_private_to_the_user() {
    let default = FileBackend::default_dir();
    assert!(default.is_absolute());
    let last = default.file_name().unwrap().to_string_lossy().into_owned();
    assert!(last.starts_with("distributed-lock"), "{last}");
}
