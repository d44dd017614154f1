//! Where this host has its control groups (cgroup v2), and which one this process is in, as /proc tells it.
//!
//! Not here: making groups.
//!
//! Invariant: an answer is a folder of a mounted cgroup2 file system, or there is none.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// A mounted cgroup2 file system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// The folder at which it is mounted.
    pub point: PathBuf,
    /// The group that this folder shows: `/`, or less than all of them.
    pub root: PathBuf,
}

/// The cgroup2 file system that a process finds, by the text of /proc/self/mountinfo. Where there are several, the last
/// one: it may lie over an earlier one.
pub fn mount(mountinfo: &str) -> Option<Mount> {
    let of_line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        after.starts_with("cgroup2 ").then(|| Mount { point: unescaped(point), root: unescaped(root) })
    };
    mountinfo.lines().rev().find_map(of_line)
}

/// The group of a process in the hierarchy of cgroup2, by the text of its /proc/PID/cgroup.
pub fn own(cgroup: &str) -> Option<&Path> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::")).map(Path::new)
}

/// The folder of this group. None: the mount does not show it.
pub fn folder(mount: &Mount, group: &Path) -> Option<PathBuf> {
    let below = group.strip_prefix(&mount.root).ok()?;
    let is_plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    is_plain.then(|| mount.point.join(below))
}

/// mountinfo writes blanks, tabs, line ends and backslashes as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let octal = bytes.get(at + 1..at + 4).filter(|_| *byte == b'\\');
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(value.unwrap_or(*byte));
        at += if value.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:39 / /mnt rw,relatime shared:7 - ext4 /dev/cgroup2 rw
";

    fn mounted(root: &str, point: &str) -> Option<Mount> {
        Some(Mount { point: point.into(), root: root.into() })
    }

    #[test]
    fn the_mount_is_told_by_its_type_wherever_it_is() {
        assert_eq!(mount(HYBRID), mounted("/", "/sys/fs/cgroup/unified"));
        let systemd = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 master:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(mount(systemd), mounted("/", "/sys/fs/cgroup"));
        let odd = "30 23 0:26 /../a\\134b /sys/fs/my\\040groups\\011x rw - cgroup2 none rw\n";
        assert_eq!(mount(odd), mounted("/../a\\b", "/sys/fs/my groups\tx"));
        let twice = "1 2 0:3 / /a rw - cgroup2 c rw\n4 5 0:3 / /b rw - cgroup2 c rw\n";
        assert_eq!(mount(twice), mounted("/", "/b"));
        for none in ["", "nonsense", "1 2 0:3 / /x rw - cgroup cgroup rw,cpu", "1 2 - cgroup2 c rw", "1 2 0:3 / /x rw"]
        {
            assert_eq!(mount(none), None, "{none:?}");
        }
    }

    #[test]
    fn the_own_group_is_that_of_the_line_without_controllers() {
        assert_eq!(
            own("4:memory:/a\n1:cpu:/\n0::/system.slice/wing.service\n"),
            Some("/system.slice/wing.service".as_ref())
        );
        assert_eq!(own("0::/\n"), Some("/".as_ref()));
        assert_eq!(own("4:memory:/a\n"), None);
        assert_eq!(own(""), None);
    }

    #[test]
    fn a_group_that_the_mount_does_not_show_has_no_folder() {
        let all = mounted("/", "/sys/fs/cgroup").unwrap();
        assert_eq!(folder(&all, "/".as_ref()), Some("/sys/fs/cgroup".into()));
        assert_eq!(folder(&all, "/a/b.service".as_ref()), Some("/sys/fs/cgroup/a/b.service".into()));
        let part = mounted("/docker/7", "/groups").unwrap();
        assert_eq!(folder(&part, "/docker/7/x".as_ref()), Some("/groups/x".into()));
        assert_eq!(folder(&part, "/docker/77".as_ref()), None);
        // Outside of the namespace, or removed.
        assert_eq!(folder(&all, "/../x".as_ref()), None);
    }
}
