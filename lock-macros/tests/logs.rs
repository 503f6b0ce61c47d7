//! What the log says because no return value can carry it.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lock_core::memory::MemoryBackend;
use lock_core::{LockProvider, distributed_lock};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// What was logged since the last look, at this level.
    fn take(&self, level: &str) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().expect("no panic"));
        let text = String::from_utf8(bytes).expect("text");
        text.lines()
            .filter(|line| line.contains("lock_core::job"))
            .filter(|line| line.contains(level))
            .map(str::to_owned)
            .collect()
    }
}

#[distributed_lock("user:sweep:<email>", skip, max_hold = "20ms")]
async fn unit(locks: &LockProvider, email: &str, hang: bool) {
    if hang {
        std::future::pending::<()>().await;
    }
}

#[distributed_lock("user:sweep:<email>", skip)]
async fn option(locks: &LockProvider, email: &str) -> Option<()> {
    Some(())
}

#[tokio::test(start_paused = true)]
async fn what_a_skipped_job_cannot_return_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _default = tracing::subscriber::set_default(subscriber);
    let locks = LockProvider::new(MemoryBackend::new());

    unit(&locks, "ann@example.org", false).await;
    assert_eq!(log.take(""), [""; 0], "nothing happened");

    unit(&locks, "", false).await;
    assert_eq!(log.take("ERROR").len(), 1);
    assert_eq!(option(&locks, "").await, None);
    assert_eq!(log.take("ERROR").len(), 1);

    unit(&locks, "ann@example.org", true).await;
    let lost = log.take("ERROR");
    assert!(
        matches!(&lost[..], [line] if line.contains("stopped")),
        "{lost:?}"
    );

    let lock = locks.lock("user:sweep:ann@example.org").expect("a name");
    let _guard = lock.acquire(Duration::ZERO).await.expect("free");
    unit(&locks, "ann@example.org", false).await;
    let skipped = log.take("DEBUG");
    assert!(
        matches!(&skipped[..], [line] if line.contains("skipped")),
        "{skipped:?}"
    );
    assert!(skipped[0].contains("user:sweep:<email>"), "{skipped:?}");
    assert!(
        !skipped[0].contains("ann"),
        "the name is nobody's business: {skipped:?}"
    );
}
