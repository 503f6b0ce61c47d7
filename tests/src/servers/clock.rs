//! The wall clock of one server, which a test can put.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::guardian::Guardian;

/// What is preloaded into the server.
const SOURCE: &str = include_str!("clock.c");

/// A library that is preloaded, and the file that tells it the time.
#[derive(Debug)]
pub(super) struct WallClock {
    directory: PathBuf,
}

impl WallClock {
    /// One that is right. It needs a C compiler.
    pub(super) async fn new(guardian: &Guardian) -> Self {
        // Not the directory of the server: from memory nothing can be run on some machines.
        let directory = tempfile::Builder::new()
            .prefix("lock-tests-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .unwrap()
            .keep();
        let clock = Self { directory };
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let directory = text(&clock.directory);
        guardian.finally(["rm", "-r", &directory].map(Into::into).into());
        let source = clock.directory.join("clock.c");
        fs::write(&source, SOURCE).unwrap();
        let (source, library) = (text(&source), text(&clock.library()));
        let compile = ["cc", "-shared", "-fPIC", "-o", &library, &source];
        guardian.run(compile.map(Into::into).into()).await;
        clock.put(0);
        clock
    }

    fn library(&self) -> PathBuf {
        self.directory.join("clock.so")
    }

    fn ahead(&self) -> PathBuf {
        self.directory.join("ahead")
    }

    /// A command line whose program has this clock.
    pub(super) fn of(&self, command: Vec<String>) -> Vec<String> {
        let own = [
            "env".to_owned(),
            format!("LD_PRELOAD={}", self.library().display()),
            format!("CLOCK_AHEAD={}", self.ahead().display()),
        ];
        own.into_iter().chain(command).collect()
    }

    /// Puts it so many seconds ahead of the real one.
    pub(super) fn put(&self, seconds: i64) {
        // Not truncated: the server has it mapped.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.ahead());
        file.unwrap().write_all(&seconds.to_ne_bytes()).unwrap();
    }
}
