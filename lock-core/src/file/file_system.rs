//! Which file systems a lock directory may be on.

use std::fs::File;
use std::io;

/// File systems whose locks are, or may be, shared with or kept by another machine; by the magic
/// number that `statfs` gives (`linux/magic.h`, and the sources of those that are not in it).
///
/// A list of those to refuse, not of those to allow: local file systems are too many.
const REMOTE: [(u32, &str); 20] = [
    (0x0000_6969, "NFS"),
    (0x0000_517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    // Ambiguous: sshfs, object stores and volumes of hypervisors hide behind it, besides local
    // ones. Its locks are local to the kernel unless the server behind it does better.
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x564c, "NCP"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x1983_0326, "BeeGFS"),
    (0xaad7_aaea, "PanFS"),
    (0x2003_0528, "OrangeFS"),
    (0x786f_4256, "VirtualBox shared folders"),
    (0xbacb_acbc, "VMware shared folders"),
];

/// The name of the file system of this directory, if no lock should be kept there. The numbers are those of
/// Linux: on another system all pass.
pub(super) fn remote(directory: &File) -> io::Result<Option<&'static str>> {
    if cfg!(not(target_os = "linux")) {
        return Ok(None);
    }
    // The width and the sign of the number differ between machines; its low 32 bits do not.
    Ok(remote_magic(rustix::fs::fstatfs(directory)?.f_type as u32))
}

fn remote_magic(magic: u32) -> Option<&'static str> {
    let known = REMOTE.iter().find(|(remote, _)| *remote == magic);
    known.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_and_local_ones_pass() {
        assert_eq!(remote_magic(0x6969), Some("NFS"));
        assert_eq!(remote_magic(0xff53_4d42), Some("CIFS"));
        assert_eq!(remote_magic(0x6573_5546), Some("FUSE"));
        let local = [
            ("ext4", 0xef53),
            ("tmpfs", 0x0102_1994),
            ("xfs", 0x5846_5342),
            ("btrfs", 0x9123_683e),
            ("overlayfs", 0x794c_7630),
            ("zfs", 0x2fc1_2fc1),
        ];
        for (name, magic) in local {
            assert_eq!(remote_magic(magic), None, "{name}");
        }
    }

    #[test]
    fn a_file_system_of_the_kernel_itself_is_asked_by_its_descriptor() {
        let proc = File::open("/proc").unwrap();
        assert_eq!(remote(&proc).unwrap(), None);
    }

    #[test]
    fn no_magic_is_listed_twice() {
        let mut magics: Vec<_> = REMOTE.iter().map(|(magic, _)| magic).collect();
        magics.sort_unstable();
        magics.dedup();
        assert_eq!(magics.len(), REMOTE.len());
    }
}
