//! What the operating system refuses: descriptors, space, a file system that cannot be written.

use std::process::Command;

use crate::child::{Child, command_after};
use crate::support::Base;

#[test]
fn without_descriptors_acquiring_is_unavailable_and_what_is_held_stays() {
    let base = Base::new();
    let reports = Child::start("few-descriptors", base.path(), "").reports();
    assert!(reports[0].contains("ulimit -n"), "{reports:?}");
    assert!(base.lock_files().is_empty());
}

/// Whether this user may have a file system of its own, in a namespace. Where not, the error of
/// each errno is still checked by the unit tests.
#[allow(clippy::print_stdout, reason = "says why a test did nothing")]
fn can_mount() -> bool {
    let tried = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "mount",
            "-t",
            "tmpfs",
            "none",
            "/mnt",
        ])
        .output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        println!("skipped: no mount namespaces here");
    }
    can
}

#[test]
fn on_a_full_file_system_acquiring_is_unavailable_and_what_is_held_stays() {
    if !can_mount() {
        return;
    }
    let base = Base::new();
    let script = format!(
        "mount -t tmpfs -o nr_inodes=8 none {}",
        base.path().display()
    );
    let reports = Child::spawn(command_after(&script, "fill", base.path(), "")).reports();
    assert!(reports[0].contains("is full"), "{reports:?}");
}

#[test]
fn a_read_only_file_system_is_refused() {
    if !can_mount() {
        return;
    }
    let base = Base::new();
    let path = base.path().display();
    for prepare in ["mkdir -m 700 locks", "true"] {
        let script = format!(
            "mount -t tmpfs none {path} && cd {path} && {prepare} && cd / && mount -o remount,ro {path}"
        );
        let reports = Child::spawn(command_after(&script, "open", base.path(), "")).reports();
        assert!(reports[0].starts_with("Misconfigured"), "{reports:?}");
        assert!(reports[0].contains("read-only"), "{reports:?}");
    }
}

#[test]
fn a_full_file_system_is_refused_when_it_is_opened() {
    if !can_mount() {
        return;
    }
    let base = Base::new();
    let path = base.path().display();
    let script = format!("mount -t tmpfs -o nr_inodes=2 none {path} && mkdir -m 700 {path}/locks");
    let reports = Child::spawn(command_after(&script, "open", base.path(), "")).reports();
    assert!(reports[0].starts_with("Unavailable"), "{reports:?}");
    assert!(reports[0].contains("is full"), "{reports:?}");
}
