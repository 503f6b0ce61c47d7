//! The directories that the way to a lock directory leads through: a user who can rename an entry of one
//! can put another lock directory in the place of ours, with other locks.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::errors::refused;
use crate::LockError;

/// How many links a way may lead through, as for the kernel.
const LINKS: u32 = 40;

const STICKY: u32 = 0o1000;
const GROUP: u32 = 0o020;
const OTHERS: u32 = 0o002;

/// Whether only root and this user can put another directory in the place of `locks`, which is in
/// `parent`. What is missing is for others to tell.
pub(super) fn check(parent: &Path, locks: &Path, user: u32) -> Result<(), LockError> {
    // In a user namespace without root, what root owns shows as another user's.
    let root = fs::symlink_metadata("/").map_or(0, |metadata| metadata.uid());
    let way = Way {
        locks,
        trusted: [0, root, user],
    };
    way.check(parent, LINKS)
}

struct Way<'a> {
    locks: &'a Path,
    /// Who may own what the way leads through.
    trusted: [u32; 3],
}

impl Way<'_> {
    /// From the root down: what is below a directory of others says nothing.
    fn check(&self, path: &Path, links: u32) -> Result<(), LockError> {
        let mut steps: Vec<_> = path.ancestors().collect();
        steps.reverse();
        let mut device = None;
        for step in steps {
            let metadata = match fs::symlink_metadata(step) {
                Ok(metadata) => metadata,
                // Not there, or in no directory.
                Err(error) if is_missing(&error) => return Ok(()),
                Err(error) => return Err(refused(step, "look", error)),
            };
            let is_mounted = device.replace(metadata.dev()) != Some(metadata.dev());
            match self.why_open_to_others(&metadata) {
                // Volumes of containers are so, and their user may not change it.
                Some(why) if is_mounted && metadata.uid() == self.trusted[1] => {
                    tracing::warn!(
                        "{}; run no process of another user in this container",
                        self.danger(step, &why)
                    );
                }
                Some(why) => return Err(self.refusal(step, &why)),
                None => {}
            }
            if metadata.is_symlink() && links > 0 {
                let target = fs::read_link(step).map_err(|error| refused(step, "look", error))?;
                let target = step.parent().unwrap_or(step).join(target);
                self.check(&target, links - 1)?;
            }
        }
        Ok(())
    }

    /// Who else can rename what is in this directory, or point this link elsewhere.
    fn why_open_to_others(&self, metadata: &Metadata) -> Option<String> {
        let (owner, mode) = (metadata.uid(), metadata.mode());
        if !self.trusted.contains(&owner) {
            return Some(format!("belongs to user {owner}"));
        }
        // A link has no rights of its own. In a sticky directory an entry is its owner's.
        if metadata.is_symlink() || mode & STICKY != 0 {
            return None;
        }
        // The group of the owner alone, by its number: for many it may write by default.
        let is_private = metadata.gid() == owner;
        let open = mode & OTHERS != 0 || (mode & GROUP != 0 && !is_private);
        open.then(|| format!("can be written to by others (mode {:04o})", mode & 0o7777))
    }

    fn danger(&self, step: &Path, why: &str) -> String {
        format!(
            "the lock directory {} could be moved away by another user, which lets two processes hold \
             one lock: {} {why}",
            self.locks.display(),
            step.display()
        )
    }

    fn refusal(&self, step: &Path, why: &str) -> LockError {
        LockError::misconfigured(format!(
            "{}; choose a directory below one that only root and this user can write to, or mend that \
             one (`chown`, `chmod go-w`, or `chmod +t` where it is for all)",
            self.danger(step, why)
        ))
    }
}

fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotADirectory | NotFound)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::PathBuf;

    use rustix::process::geteuid;

    use super::*;
    use crate::LockErrorKind;
    use crate::file::FileBackend;

    /// A directory with these rights.
    fn directory(base: &Path, name: &str, mode: u32) -> PathBuf {
        let path = base.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn refusal(locks: &Path) -> String {
        let error = FileBackend::open(locks).unwrap_err();
        assert_eq!(error.kind(), LockErrorKind::Misconfigured, "{error}");
        error.to_string()
    }

    #[test]
    fn a_parent_that_others_can_write_to_is_refused_unless_it_is_sticky() {
        let base = tempfile::tempdir().unwrap();
        for mode in [0o777, 0o757, 0o702] {
            let parent = directory(base.path(), &format!("open-{mode:o}"), mode);
            let text = refusal(&parent.join("locks"));
            let named = format!("{} can be written", parent.display());
            assert!(
                text.contains(&named) && text.contains("chmod go-w"),
                "{text}"
            );
            assert!(!parent.join("locks").exists(), "nothing is made there");
            // However far below.
            let below = directory(&parent, "below", 0o700);
            assert!(refusal(&below.join("locks")).contains(&named));
        }
        for mode in [0o755, 0o1777, 0o711, 0o500] {
            let parent = directory(base.path(), &format!("closed-{mode:o}"), mode);
            if mode != 0o500 || geteuid().is_root() {
                FileBackend::open(parent.join("locks")).unwrap();
            }
        }
    }

    #[test]
    fn a_group_may_write_if_it_is_that_of_the_owner_alone() {
        let base = tempfile::tempdir().unwrap();
        let parent = directory(base.path(), "shared", 0o775);
        let metadata = fs::metadata(&parent).unwrap();
        let is_refused = |user, group| {
            let way = Way {
                locks: &parent,
                trusted: [0, 0, user],
            };
            // As if it belonged to that group.
            if geteuid().is_root() {
                chown(&parent, Some(user), Some(group)).unwrap();
            }
            way.why_open_to_others(&fs::metadata(&parent).unwrap())
                .is_some()
        };
        if geteuid().is_root() {
            assert!(is_refused(1_000, 4) && !is_refused(1_000, 1_000));
        } else {
            let is_private = metadata.gid() == metadata.uid();
            assert_eq!(is_refused(metadata.uid(), 0), !is_private);
        }
    }

    #[test]
    fn a_parent_of_another_user_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let parent = directory(base.path(), "theirs", 0o755);
        if geteuid().is_root() {
            chown(&parent, Some(12_345), None).unwrap();
            let text = refusal(&parent.join("locks"));
            assert!(text.contains("belongs to user 12345"), "{text}");
        }
        // And without any rights: the same for a user that we are not.
        let user = fs::metadata(&parent).unwrap().uid() + 1;
        let way = Way {
            locks: &parent,
            trusted: [user; 3],
        };
        assert!(way.check(&parent, LINKS).is_err());
    }

    #[test]
    fn a_link_on_the_way_is_followed_and_what_it_leads_through_is_looked_at() {
        let base = tempfile::tempdir().unwrap();
        let closed = directory(base.path(), "closed", 0o755);
        let open = directory(base.path(), "open", 0o777);
        let within = directory(&open, "within", 0o700);
        symlink(&closed, base.path().join("to-closed")).unwrap();
        symlink("open/within", base.path().join("to-open")).unwrap();
        symlink("to-open", base.path().join("to-link")).unwrap();
        symlink(&closed, within.join("back")).unwrap();
        FileBackend::open(base.path().join("to-closed/locks")).unwrap();
        for way in ["to-open/locks", "to-link/locks", "open/within/back/locks"] {
            let text = refusal(&base.path().join(way));
            assert!(text.contains(&format!("{} can", open.display())), "{text}");
        }
        // In a circle, which the kernel refuses.
        symlink("circle", base.path().join("circle")).unwrap();
        FileBackend::open(base.path().join("circle/locks")).unwrap_err();
        if geteuid().is_root() {
            // Whose link it is, where every user may have some.
            let shared = directory(base.path(), "shared", 0o1777);
            let link = shared.join("link");
            symlink(&closed, &link).unwrap();
            std::os::unix::fs::lchown(&link, Some(12_345), None).unwrap();
            assert!(refusal(&link.join("locks")).contains("belongs to user 12345"));
        }
    }
}
