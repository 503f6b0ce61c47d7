//! The end of a thread that has connections, asked for while there are still users of it.

use tokio::sync::watch;

/// Asks a thread to end, and tells when it has.
#[derive(Debug)]
pub(crate) struct Stop {
    asked: watch::Sender<bool>,
    done: watch::Sender<bool>,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            asked: watch::Sender::new(false),
            done: watch::Sender::new(false),
        }
    }
}

impl Stop {
    /// The thread is to end.
    pub(crate) fn ask(&self) {
        self.asked.send_replace(true);
    }

    pub(crate) fn is_asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Completes when the thread is to end.
    #[cfg(feature = "postgres")]
    pub(crate) async fn asked(&self) {
        until(&self.asked).await;
    }

    /// The thread has closed its connections.
    pub(crate) fn done(&self) {
        self.done.send_replace(true);
    }

    /// Completes when it has.
    pub(crate) async fn finished(&self) {
        until(&self.done).await;
    }
}

async fn until(set: &watch::Sender<bool>) {
    // An error is a sender that is gone, and this one is here.
    let _ = set.subscribe().wait_for(|set| *set).await;
}
