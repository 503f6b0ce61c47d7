//! Locks in a directory.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use lock_core::LockName;
use lock_core::file::FileBackend;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::Store;

/// A directory; every [`FileBackend`] over it is a connection.
#[derive(Debug)]
pub struct FileStore(TempDir);

impl FileStore {
    /// The lock directory.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.0.path().join("locks")
    }

    /// The file of a lock, as it is documented.
    #[must_use]
    pub fn file_of(&self, name: &LockName) -> PathBuf {
        let digest = Sha256::digest(format!("lock-file-v1\0\0{name}"));
        let stem = BASE32_NOPAD.encode(&digest[..20]).to_lowercase();
        self.directory().join(format!("v1-{stem}.lock"))
    }
}

impl Store for FileStore {
    type Backend = FileBackend;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[];
    const LEASE: Option<Duration> = None;
    const NOTICED_WITHIN: Duration = Duration::from_secs(1);
    const GRANTED_AFTER_A_KILL: Duration = Duration::from_millis(100);

    async fn open() -> Self {
        Self(TempDir::new().unwrap())
    }

    async fn backend(&self) -> FileBackend {
        FileBackend::open(self.directory()).unwrap()
    }

    async fn lose(&self, name: &LockName) {
        fs::remove_file(self.file_of(name)).unwrap();
    }

    async fn lose_all(&self) {
        fs::rename(self.directory(), self.0.path().join("elsewhere")).unwrap();
    }

    async fn open_connections(&self) -> usize {
        let opened = links("/proc/self/fd").filter(|file| *file == self.directory());
        let threads = fs::read_dir("/proc/self/task").unwrap().filter(|thread| {
            let name = thread.as_ref().unwrap().path().join("comm");
            // One that has just ended has none.
            let name = fs::read_to_string(name).unwrap_or_default();
            ["lock-watch", "lock-keeper"].contains(&name.trim_end())
        });
        opened.count() + threads.count()
    }

    fn address(&self) -> Option<String> {
        Some(format!("file:{}", self.directory().display()))
    }
}

/// The same, for backends that do not watch the directory: as on systems without inotify.
#[derive(Debug)]
pub struct PollingFileStore(FileStore);

impl Store for PollingFileStore {
    type Backend = FileBackend;

    const NOT_FOR: &'static [(&'static str, &'static str)] = &[
        (
            "ten_thousand_waiters_on_ten_thousand_names_are_served",
            "half a minute of a processor, and where they poll they do as over `FileStore`",
        ),
        (
            "a_waker_that_panics_costs_no_lock_and_no_answer",
            "no thread of the backend wakes a caller: it polls by itself",
        ),
    ];
    const LEASE: Option<Duration> = FileStore::LEASE;
    const NOTICED_WITHIN: Duration = FileStore::NOTICED_WITHIN;
    const GRANTED_AFTER_A_KILL: Duration = FileStore::GRANTED_AFTER_A_KILL;

    async fn open() -> Self {
        Self(FileStore::open().await)
    }

    async fn backend(&self) -> FileBackend {
        let builder = FileBackend::builder(self.0.directory());
        builder.polling(true).open().unwrap()
    }

    async fn lose(&self, name: &LockName) {
        self.0.lose(name).await;
    }

    async fn lose_all(&self) {
        self.0.lose_all().await;
    }

    async fn open_connections(&self) -> usize {
        self.0.open_connections().await
    }

    fn address(&self) -> Option<String> {
        Some(format!("polled-file:{}", self.0.directory().display()))
    }
}

fn links(directory: &str) -> impl Iterator<Item = PathBuf> {
    let files = fs::read_dir(directory).unwrap();
    // One that was closed meanwhile leads nowhere.
    files.filter_map(|file| fs::read_link(file.unwrap().path()).ok())
}
