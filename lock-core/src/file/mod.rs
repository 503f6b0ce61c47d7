//! Locks for the processes of one machine: files in a private directory.
//!
//! No server, nothing to configure: the kernel keeps the locks (`flock`), and takes them back the
//! moment a process ends, however it ends.
//!
//! # Rules
//!
//! - **One machine.** All processes that are to exclude each other open the *same* directory: the
//!   same inode, not the same text. Containers, services with a private `/tmp`, and processes of
//!   different users have different ones, and so do not exclude each other; the log says which
//!   directory is used. For several machines use a server.
//! - **One user.** The directory has mode 0700 and belongs to the user that the process runs as.
//!   It is created if only its last component is missing. A symlink is refused. Every directory that
//!   leads to it belongs to root or that user, and no others can write to it unless it is sticky, as
//!   `/tmp` is: a user who can rename the lock directory can put another one in its place. A group may
//!   write whose number is that of the owner, since many systems give each user a group of its own.
//! - **A local file system.** What is shared over a network is refused (NFS, SMB, 9p, Ceph, Lustre,
//!   AFS and others): there a lock may hold on one machine only, or be dropped by a server. FUSE is
//!   refused as well, since what is behind it cannot be known: it may be `sshfs`, or a volume that
//!   a hypervisor shares with other machines. `/dev/shm` and `/run` are fine choices in a container.
//! - **A directory for locks alone.** A file of another program in it is neither removed nor locked, and
//!   a program that tidies the directory takes locks away.
//! - **A fast directory.** Acquiring and releasing make a few system calls on the thread of the caller, and
//!   a disk that stalls keeps it there: no deadline bounds that. In `/run` or `/dev/shm` nothing waits for
//!   a disk but the first token of each thousand. Health is asked on a thread of its own.
//! - **A frozen holder still holds**, and is still the only holder. There is no lease.
//! - **A forked child** that goes on without `exec` has a copy of every lock's file: a release
//!   frees the lock nevertheless, but after a crash of the parent the child keeps it until it ends.
//!   `exec` closes the copies.
//! - **Each held lock is one file descriptor.** With none left, acquiring is
//!   [`Unavailable`](crate::LockErrorKind::Unavailable).
//! - **No other program tidies up** in the directory. If it is removed, renamed or replaced, or a lock
//!   file is, the locks in it are lost. Their holders notice within one second, and count on them
//!   until then. A process that had the directory open grants nothing for two seconds after it has
//!   seen that it is gone; but a process that opens the path for the first time, and after the loss of
//!   a lock file any process, knows of no earlier directory or file and can be granted the lock
//!   immediately. So there can be two valid holders for up to a second;
//!   [tokens](crate::FencingToken) tell them apart, the later holder's being greater. While it is open
//!   the directory is locked in the way that tells `systemd-tmpfiles` to leave it alone; other
//!   cleaners of old files are to be kept away from it.
//!
//! # Waiting
//!
//! Who waits takes no descriptor: one inotify instance and one thread for each backend, from its
//! first wait on, tell of releases. Without inotify (its limits are per user; no other system has it; or by
//! [`polling`](FileBackendBuilder::polling)) waiters ask again, after 1 ms at first and every 50 ms later. A release that saw a waiter of another backend lets it
//! go first: for up to 5 ms, or until the other has taken the lock, our own tries are answered with
//! "held". Another thread looks after what is held; it ends when nothing is.
//!
//! # Readers
//!
//! [Readers](crate::DistributedLock::shared) lock one file together, each by a descriptor of its own, and the last to
//! leave removes it. A reader that dies is gone as any holder is.
//!
//! A writer that was refused for readers keeps new ones out, in all processes, by a file of its own in the directory,
//! `v1-….wait`, and one descriptor for each process and lock. It does so until it is granted the lock, gives up, or its
//! process ends; after it has given up readers can be refused for up to 20 ms more. A try of a reader that was
//! under way when the writer came may still be granted. A writer that waits for a writer keeps readers out from its
//! next try on after one of them has begun to wait: 50 ms later at most.
//!
//! # Who holds a lock
//!
//! A holder writes which [instance](FileBackendBuilder::instance) it is into its lock file, for
//! [`holder`](crate::LockProvider::holder) and for people; nothing is decided by that. Its lock is the
//! kernel's, with or without the text, which is missing where the disk is full. Readers have one text for all of them:
//! the instance that came last, until it leaves; a list has one row for them.
//!
//! # Tokens
//!
//! Fencing tokens come from one counter for the directory, in the file `tokens`. They survive
//! crashes of processes and of the machine. A directory that is created anew starts at the wall
//! clock, in microseconds: above all its earlier tokens, unless the clock has been set back.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use lock_core::LockProvider;
//! use lock_core::file::FileBackend;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("locks");
//! let here = LockProvider::new(FileBackend::open(&dir)?);
//! let other_process = LockProvider::new(FileBackend::open(&dir)?);
//!
//! let guard = here.lock("order:process:42")?.acquire(Duration::ZERO).await?;
//! assert!(other_process.lock("order:process:42")?.try_acquire(Duration::ZERO).await?.is_none());
//!
//! guard.release().await?;
//! assert!(other_process.lock("order:process:42")?.try_acquire(Duration::ZERO).await?.is_some());
//! # Ok(())
//! # }
//! ```

mod attempt;
mod backend;
mod blocking;
mod directory;
mod errors;
mod file_system;
mod flock;
mod grant;
mod hand_over;
mod keeper;
mod key;
mod listing;
mod lock_file;
mod parents;
mod read_lock;
mod registration;
mod signature;
mod store;
mod tidy;
mod token;
mod turnstile;
mod waiting_writers;
mod watch;

pub use backend::{FileBackend, FileBackendBuilder};
#[doc(hidden)]
pub use grant::FileGrant;
pub(crate) use registration::REGISTRATION;
