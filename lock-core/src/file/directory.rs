//! The private directory that the lock files are in.

use std::env;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Dir, DirEntry, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::errors::refused;
use super::{file_system, parents};
use crate::LockError;

/// Which file something is. No other file has the same one while this one is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    #[allow(
        clippy::unnecessary_cast,
        reason = "narrower and signed on macOS, where std converts it so"
    )]
    pub(super) fn of_stat(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino,
        }
    }
}

/// How long ago a file was written to. One from the future, where the clock was set back, is as old as it is far
/// ahead: at zero its waiters would ask each millisecond until the clock has caught up.
///
/// No lock depends on it. It says when a waiter asks again, and which files may be tried since they are not in the
/// making, or were left behind. A try of one that is in the making after all is safe: its maker finds it locked, or
/// without its name, and tries again.
pub(super) fn age(metadata: &Metadata) -> Duration {
    let Ok(written) = metadata.modified() else {
        return Duration::ZERO;
    };
    let age = SystemTime::now().duration_since(written);
    age.unwrap_or_else(|ahead| ahead.duration())
}

/// An open lock directory. Everything in it is addressed through its descriptor, so that a directory
/// which is put in its place is never taken for it.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    file: File,
    id: FileId,
}

impl Directory {
    /// Opens the directory, and creates it if only its last component is missing.
    pub(super) fn open(path: &Path) -> Result<Self, LockError> {
        let path = absolute(path)?;
        if let Some(parent) = path.parent() {
            parents::check(parent, &path, geteuid().as_raw())?;
        }
        create(&path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(not_a_directory(&path)),
            Err(error) => return Err(refused(&path, "open anything", error)),
        };
        let metadata = file
            .metadata()
            .map_err(|error| refused(&path, "look", error))?;
        check_private(&path, &metadata, geteuid().as_raw())?;
        let remote = file_system::remote(&file);
        if let Some(kind) = remote.map_err(|error| refused(&path, "look", error))? {
            return Err(LockError::misconfigured(format!(
                "the lock directory {} is on {kind}, where other machines may not see its locks or \
                 may lose them; choose a directory on a local disk or in memory, or a lock server",
                path.display()
            )));
        }
        // Tells systemd-tmpfiles to leave the directory and all in it alone (tmpfiles.d(5)). Where
        // another process holds a lock on it, the same is reached.
        let _ = file.try_lock_shared();
        let id = FileId::of(&metadata);
        Ok(Self { path, file, id })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes an error of what the operating system says.
    pub(super) fn failed<E: Into<io::Error>>(
        &self,
        doing: &'static str,
    ) -> impl FnOnce(E) -> LockError {
        move |error| refused(&self.path, doing, error)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Whether the path still leads to this directory. If it does not, another process that opens
    /// the path has other locks.
    pub(super) fn is_in_place(&self) -> Result<bool, LockError> {
        match rustix::fs::statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileId::of_stat(&stat) == self.id),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            Err(error) => Err(self.failed("look")(error)),
        }
    }

    /// What a file name in the directory stands for now.
    pub(super) fn look(&self, name: &str) -> Result<Option<Stat>, LockError> {
        match rustix::fs::statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("look at a lock file")(error)),
        }
    }

    /// What is in the directory, also of other programs.
    pub(super) fn entries(
        &self,
    ) -> Result<impl Iterator<Item = Result<DirEntry, LockError>>, LockError> {
        let list = self.open_file(".", OFlags::RDONLY | OFlags::DIRECTORY);
        let list = list.map_err(self.failed("list the files"))?;
        let entries = Dir::new(list).map_err(self.failed("list the files"))?;
        Ok(entries.map(|entry| entry.map_err(self.failed("list the files"))))
    }

    /// Opens a file; no file that is opened here outlives an `exec`.
    pub(super) fn open_file(&self, name: &str, flags: OFlags) -> rustix::io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.file, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    }

    /// Opens a file that may not be there, without waiting for whatever else has its name.
    pub(super) fn open_if_there(
        &self,
        name: &str,
        access: OFlags,
        doing: &'static str,
    ) -> Result<Option<File>, LockError> {
        match self.open_file(name, access | OFlags::NONBLOCK) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed(doing)(error)),
        }
    }

    pub(super) fn unlink(&self, name: &str) -> rustix::io::Result<()> {
        rustix::fs::unlinkat(&self.file, name, AtFlags::empty())
    }

    /// Whether a file could be created now.
    pub(super) fn probe(&self) -> Result<(), LockError> {
        static PROBES: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = PROBES.fetch_add(1, Ordering::Relaxed);
            let name = format!("probe-{}-{number}", process::id());
            // A new one: only what was created here is removed.
            match self.open_file(&name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL) {
                Ok(_) => return self.unlink(&name).map_err(self.failed("remove a file")),
                // Left behind by a process with our number: the next may be free.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(self.failed("create a file")(error)),
            }
        }
    }
}

/// Where the locks of this user are by default.
pub(super) fn default_path() -> PathBuf {
    let uid = geteuid().as_raw();
    let runtime_dir = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    default_path_in(runtime_dir, &env::temp_dir(), uid)
}

/// A runtime directory that is not ours (`sudo` keeps the variable) is passed over.
fn default_path_in(runtime_dir: Option<PathBuf>, temp_dir: &Path, uid: u32) -> PathBuf {
    let ours = |dir: &PathBuf| {
        dir.is_absolute() && fs::metadata(dir).is_ok_and(|m| m.is_dir() && m.uid() == uid)
    };
    match runtime_dir.filter(ours) {
        Some(dir) => dir.join("distributed-lock"),
        None => temp_dir.join(format!("distributed-lock-{uid}")),
    }
}

/// The path from the root, so that it means the same when the process changes its directory, and
/// without a slash at its end, which would make the kernel follow a symlink.
fn absolute(path: &Path) -> Result<PathBuf, LockError> {
    if path.as_os_str().is_empty() {
        let detail = "the path of the lock directory is empty; give one, or use the default";
        return Err(LockError::misconfigured(detail));
    }
    let absolute = std::path::absolute(path).map_err(|error| refused(path, "look", error))?;
    Ok(absolute.components().collect())
}

fn create(path: &Path) -> Result<(), LockError> {
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NOENT | Errno::NOTDIR) => Err(LockError::misconfigured(format!(
            "the lock directory {} cannot be created: its parent is not a directory that exists; \
             create it, or choose another directory",
            path.display()
        ))),
        Err(error) => {
            // What is there already needs no right to create it.
            match fs::symlink_metadata(path) {
                Ok(_) => Ok(()),
                Err(_) => Err(refused(
                    path.parent().unwrap_or(path),
                    "create a directory",
                    error,
                )),
            }
        }
    }
}

fn not_a_directory(path: &Path) -> LockError {
    let is_symlink = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    let path = path.display();
    LockError::misconfigured(if is_symlink {
        format!(
            "the lock directory {path} is a symlink, which can be pointed elsewhere; give the directory itself"
        )
    } else {
        format!("the lock directory {path} is not a directory; choose another path")
    })
}

fn check_private(path: &Path, metadata: &Metadata, user: u32) -> Result<(), LockError> {
    let path = path.display();
    if metadata.uid() != user {
        return Err(LockError::misconfigured(format!(
            "the lock directory {path} belongs to user {}, but this process runs as user {user}; \
             choose a directory of its own",
            metadata.uid(),
        )));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o1000 != 0 {
        // Such as /tmp: it is for others as well, and not to be made private.
        return Err(LockError::misconfigured(format!(
            "the lock directory {path} is shared, with mode {mode:04o}; choose a directory of its own \
             below it, such as {path}/locks",
        )));
    }
    if mode & 0o777 != 0o700 {
        return Err(LockError::misconfigured(format!(
            "the lock directory {path} has mode {mode:04o}, but must be private; choose a directory of \
             its own, such as {path}/locks or, if {path} is for locks alone, run `chmod 700 {path}`",
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::LockErrorKind;

    fn refusal(path: &Path) -> String {
        let error = Directory::open(path).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Misconfigured, "{error}");
        error.to_string()
    }

    #[test]
    fn it_is_created_private_and_found_again() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("locks");
        let first = Directory::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        let second = Directory::open(&base.path().join("./locks//")).unwrap();
        assert_eq!(first.id, second.id);
        assert_eq!(first.path, second.path);
    }

    #[test]
    fn a_symlink_is_refused_with_and_without_a_slash_at_its_end() {
        let base = tempfile::tempdir().unwrap();
        Directory::open(&base.path().join("locks")).unwrap();
        symlink(base.path().join("locks"), base.path().join("link")).unwrap();
        symlink(base.path().join("nowhere"), base.path().join("dangling")).unwrap();
        for link in ["link", "link/", "link/.", "dangling"] {
            let text = refusal(&base.path().join(link));
            assert!(text.contains("symlink"), "{link}: {text}");
        }
    }

    #[test]
    fn nobody_is_told_to_make_a_shared_directory_private() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("locks");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
        let text = refusal(&path);
        assert!(text.contains("1777") && !text.contains("chmod"), "{text}");
    }

    #[test]
    fn one_that_others_can_enter_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("locks");
        fs::create_dir(&path).unwrap();
        for mode in [0o755, 0o770, 0o701, 0o500] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let text = refusal(&path);
            assert!(text.contains("chmod 700"), "{text}");
        }
    }

    #[test]
    fn one_of_another_user_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("locks");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
            assert!(refusal(&path).contains("belongs to user 12345"));
        } else {
            assert!(refusal(Path::new("/")).contains("belongs to user 0"));
        }
        // And without any rights: the same check for a user that we are not.
        let metadata = fs::metadata(base.path()).unwrap();
        let error = check_private(&path, &metadata, metadata.uid() + 1).unwrap_err();
        assert!(error.to_string().contains("belongs to user"), "{error}");
    }

    #[test]
    fn a_missing_parent_and_what_is_no_directory_are_refused() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("file"), "").unwrap();
        assert!(refusal(&base.path().join("a/b")).contains("parent"));
        assert!(refusal(&base.path().join("file/b")).contains("parent"));
        assert!(refusal(&base.path().join("file")).contains("not a directory"));
        assert!(refusal(Path::new("")).contains("empty"));
    }

    #[test]
    fn a_file_system_that_cannot_be_written_is_refused() {
        // No rights help there, not even root's.
        let text = refusal(Path::new("/proc/self/locks"));
        assert!(text.contains("cannot") || text.contains("parent"), "{text}");
    }

    #[test]
    fn one_that_was_replaced_is_not_in_place() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("locks");
        let directory = Directory::open(&path).unwrap();
        assert!(directory.is_in_place().unwrap());
        fs::rename(&path, base.path().join("old")).unwrap();
        assert!(!directory.is_in_place().unwrap());
        fs::create_dir(&path).unwrap();
        assert!(!directory.is_in_place().unwrap());
        fs::remove_dir(&path).unwrap();
        symlink(base.path().join("old"), &path).unwrap();
        assert!(
            !directory.is_in_place().unwrap(),
            "a symlink to it is not it"
        );
        fs::remove_file(&path).unwrap();
        fs::rename(base.path().join("old"), &path).unwrap();
        assert!(directory.is_in_place().unwrap());
    }

    #[test]
    fn the_default_is_the_runtime_directory_if_it_is_ours() {
        let base = tempfile::tempdir().unwrap();
        let uid = geteuid().as_raw();
        let temp = Path::new("/tmp");
        let shared = temp.join(format!("distributed-lock-{uid}"));
        let runtime = base.path().to_path_buf();
        assert_eq!(
            default_path_in(Some(runtime.clone()), temp, uid),
            runtime.join("distributed-lock")
        );
        assert_eq!(default_path_in(None, temp, uid), shared);
        assert_eq!(default_path_in(Some(PathBuf::new()), temp, uid), shared);
        assert_eq!(
            default_path_in(Some(runtime.join("gone")), temp, uid),
            shared
        );
        let other = default_path_in(Some(runtime), temp, uid + 1);
        assert_eq!(other, temp.join(format!("distributed-lock-{}", uid + 1)));
    }
}
