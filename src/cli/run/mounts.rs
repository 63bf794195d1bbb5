//! What is mounted in a directory of the host comes along when it is shown: a /proc or /sys in it would show the host
//! itself, as the host's own would.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;

/// Types of file systems by which a kernel shows itself and its devices.
const KERNELS: [&str; 13] = [
    "proc",
    "sysfs",
    "devtmpfs",
    "devpts",
    "cgroup",
    "cgroup2",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "efivarfs",
    "configfs",
    "mqueue",
];

/// A mount, in the order in which they were made.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    at: PathBuf,
    kind: String,
    /// Whether it is of a type by which a kernel shows itself.
    kernels: bool,
}

/// The root and the kernel's own places are no directories to be shown at all.
pub(super) fn is_the_hosts(path: &Path) -> bool {
    path == Path::new("/") || ["/proc", "/sys", "/dev"].iter().any(|own| path.starts_with(own))
}

/// Refuses a canonical path that lies on such a file system, or has one below it. `what` names the option.
pub(super) fn refuse_kernels(code: &str, what: &str, path: &Path) -> Result<(), Failure> {
    let found = shown_by(&parse(&fs_err::read("/proc/self/mountinfo")?), path);
    let Some((at, kind)) = found else { return Ok(()) };
    let detail =
        format!("{what} would show the host itself: at {} something of type {kind} is mounted", at.display());
    Err(Failure::usage(code, detail)
        .with_hint(Some(format!("unmount {}, or name a directory without it", at.display()))))
}

/// Where something of the kernel's would be seen through a path, and its type.
fn shown_by(mounts: &[Mount], path: &Path) -> Option<(PathBuf, String)> {
    let named = |mount: &Mount| (mount.at.clone(), mount.kind.clone());
    if let Some(below) = mounts.iter().find(|mount| mount.kernels && mount.at.starts_with(path)) {
        // What another mount hides is refused too: it may be uncovered at any time.
        return Some(named(below));
    }
    // The mount that the path itself lies on: the innermost, and of several at one place the last.
    let around = mounts.iter().filter(|mount| path.starts_with(&mount.at));
    around.max_by_key(|mount| mount.at.components().count()).filter(|mount| mount.kernels).map(named)
}

/// The mounts of a `mountinfo`; lines of another form are none.
///
/// *Source*: the kernel's documentation of /proc, section 3.5.
fn parse(text: &[u8]) -> Vec<Mount> {
    let lines = text.split(|byte| *byte == b'\n');
    let mounts = lines.filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let at = fields.nth(4)?;
        // Any number of optional fields stand before the dash.
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        let kind = String::from_utf8_lossy(kind).into_owned();
        let kernels = KERNELS.contains(&kind.as_str());
        Some(Mount { at: PathBuf::from(OsString::from_vec(unescaped(at))), kind, kernels })
    });
    mounts.collect()
}

/// Blanks, line ends and backslashes stand as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
24 22 0:22 / /sys rw shared:7 master:2 - sysfs sysfs rw
40 22 0:23 / /srv/root/proc rw - proc none rw
41 22 0:24 / /srv/with\\040blank\\134s/dev rw shared:9 propagate_from:3 - devtmpfs none rw
42 22 0:25 / /srv/rootless rw - tmpfs none rw
43 22 0:21 /sys /mnt/sysctl ro - proc proc rw
44 43 0:26 / /mnt/sysctl/kernel rw - tmpfs none rw
45 22 0:21 / /mnt/covered rw - proc proc rw
46 45 0:27 / /mnt/covered rw - tmpfs none rw
47 22 0:28 / /srv/caf\xe9 rw - cgroup2 none rw
nonsense
48 22 0:29 / /srv/short rw -
49 22
";

    #[test]
    fn what_is_mounted_is_read_with_its_type() {
        let mounts = parse(TABLE);
        assert_eq!(mounts.len(), 11, "{mounts:?}");
        assert_eq!(mounts[0], Mount { at: "/".into(), kind: "ext4".to_owned(), kernels: false });
        let blank = Mount { at: "/srv/with blank\\s/dev".into(), kind: "devtmpfs".to_owned(), kernels: true };
        assert_eq!(mounts[4], blank);
        assert_eq!(mounts[10].at.as_os_str().as_encoded_bytes(), b"/srv/caf\xe9");
        assert_eq!(unescaped(b"a\\04\\\\9990\\"), b"a\\04\\\\9990\\");
        assert!(parse(b"").is_empty());
    }

    #[test]
    fn a_directory_shows_what_is_mounted_in_it_and_around_it() {
        let mounts = parse(TABLE);
        let found = |path: &str| {
            shown_by(&mounts, Path::new(path)).map(|(at, kind)| format!("{kind} {}", at.display()))
        };
        assert_eq!(found("/srv/root").as_deref(), Some("proc /srv/root/proc"));
        assert_eq!(found("/srv/root/proc").as_deref(), Some("proc /srv/root/proc"));
        assert_eq!(found("/srv/root/proc/1").as_deref(), Some("proc /srv/root/proc"));
        assert_eq!(found("/srv/with blank\\s").as_deref(), Some("devtmpfs /srv/with blank\\s/dev"));
        assert_eq!(found("/mnt/sysctl").as_deref(), Some("proc /mnt/sysctl"));
        assert_eq!(found("/mnt/sysctl/vm").as_deref(), Some("proc /mnt/sysctl"));
        for harmless in [
            "/srv/roo",
            "/srv/root/pro",
            "/srv/root/process",
            "/srv/rootless",
            "/home",
            "/mnt/sysctl/kernel/x",
            "/mnt/covered/x",
        ] {
            assert_eq!(found(harmless), None, "{harmless}");
        }
    }
}
