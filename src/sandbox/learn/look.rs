//! Whether a path inside a run would be refused: worked out from its mount, its place in `/proc`, its owner and mode.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::io::Errno;

use super::PathRefusal;
use crate::sandbox::filter::Use;

/// What decides beside the files themselves.
#[derive(Clone, Debug)]
pub(super) struct Rights {
    /// The outside ids of the program.
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Groups that it has besides, as seen outside.
    pub(super) groups: Vec<u32>,
    /// Whether file modes don't hold it.
    pub(super) overrides: bool,
    /// Whether Landlock holds it.
    pub(super) landlock: bool,
}

const READ: u32 = 4;
const WRITE: u32 = 2;
const EXECUTE: u32 = 1;

/// Deeper paths are not looked at.
const MOST_PARTS: usize = 128;

/// A run's root and what its program may do there.
pub(super) struct View<'a> {
    pub(super) root: &'a OwnedFd,
    pub(super) rights: &'a Rights,
}

/// What is wanted of a path, with the flags of an open applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Read,
    Write { or_create: bool },
    Create,
    Remove,
    Change,
    Execute,
}

impl Wanted {
    /// What a call wants; none where no refusal can come of it.
    pub(super) fn of(what: Use, arguments: &[u64; 6]) -> Option<Self> {
        Some(match what {
            Use::Open(flags) => {
                let flags = arguments.get(usize::from(flags)).copied().unwrap_or(0) & u64::from(u32::MAX);
                let flags = u32::try_from(flags).unwrap_or(0).cast_signed();
                if flags & libc::O_PATH != 0 {
                    return None;
                }
                let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
                let creates = flags & libc::O_CREAT != 0;
                if flags & libc::O_TMPFILE == libc::O_TMPFILE || writes {
                    Self::Write { or_create: creates }
                } else if creates {
                    Self::Write { or_create: true }
                } else {
                    Self::Read
                }
            }
            Use::Rewrite => Self::Write { or_create: true },
            Use::Write => Self::Write { or_create: false },
            Use::Create => Self::Create,
            Use::Remove => Self::Remove,
            Use::Change => Self::Change,
            Use::Execute => Self::Execute,
        })
    }
}

impl View<'_> {
    /// Why `wanted` of this absolute path is refused; none where it isn't, or can't be told.
    pub(super) fn judge(&self, path: &[u8], wanted: Wanted) -> Result<Option<PathRefusal>, Errno> {
        let found = match wanted {
            // The name itself counts, whether something is there or not.
            Wanted::Remove => return self.judge_parent(path),
            _ => self.open(path, OFlags::empty()),
        };
        let found = match found {
            Ok(found) => found,
            Err(Errno::NOENT)
                if wanted == Wanted::Create || wanted == (Wanted::Write { or_create: true }) =>
            {
                // A link that leads nowhere from here can lead somewhere from inside, as those to /proc/self do.
                if self.open(path, OFlags::NOFOLLOW).is_ok() {
                    return Ok(None);
                }
                return self.judge_parent(path);
            }
            Err(Errno::ACCESS) => return Ok(Some(PathRefusal::NoPermission)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let stat = rustix::fs::fstat(&found)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let flags = rustix::fs::fstatvfs(&found)?.f_flag;
        let in_proc = is_proc(&found)?;
        let masked = path.starts_with(b"/proc/") && !in_proc;
        let written = matches!(kind, FileType::RegularFile | FileType::Directory);
        let read_only = written && flags.contains(StatVfsMountFlags::RDONLY);
        Ok(match wanted {
            // There is something already, so that is the answer.
            Wanted::Create | Wanted::Remove => None,
            Wanted::Read | Wanted::Write { .. } if masked => Some(PathRefusal::Masked),
            Wanted::Read => self.unless_allowed(&stat, READ),
            Wanted::Execute if written && flags.contains(StatVfsMountFlags::NOEXEC) => {
                Some(PathRefusal::NoExec)
            }
            Wanted::Execute => self.unless_allowed(&stat, EXECUTE),
            Wanted::Write { .. } | Wanted::Change if read_only => Some(PathRefusal::ReadOnly),
            Wanted::Change => (!self.rights.overrides && stat.st_uid != self.rights.uid)
                .then_some(PathRefusal::NoPermission),
            Wanted::Write { .. } if in_proc && self.rights.landlock => Some(PathRefusal::Landlock),
            Wanted::Write { .. } => self.unless_allowed(&stat, WRITE),
        })
    }

    /// The same for a name that is to be made or taken away: what counts is the directory, or where that is missing
    /// too, the nearest one above.
    fn judge_parent(&self, path: &[u8]) -> Result<Option<PathRefusal>, Errno> {
        let mut at = Path::new(std::ffi::OsStr::from_bytes(path));
        for step in 0..MOST_PARTS {
            let Some(parent) = at.parent() else { return Ok(None) };
            at = parent;
            let found = match self.open(at.as_os_str().as_bytes(), OFlags::DIRECTORY) {
                Ok(found) => found,
                Err(Errno::NOENT) => continue,
                Err(Errno::ACCESS) => return Ok(Some(PathRefusal::NoPermission)),
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => return Ok(None),
                Err(errno) => return Err(errno),
            };
            if rustix::fs::fstatvfs(&found)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
                return Ok(Some(PathRefusal::ReadOnly));
            }
            // Further up it is the missing directory that ends the call.
            return if step == 0 {
                Ok(self.unless_allowed(&rustix::fs::fstat(&found)?, WRITE | EXECUTE))
            } else {
                Ok(None)
            };
        }
        Ok(None)
    }

    /// Opens without touching what is there: no device, no fifo, nothing outside the root.
    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat2(
            self.root,
            path,
            OFlags::PATH | OFlags::CLOEXEC | flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    fn unless_allowed(&self, stat: &rustix::fs::Stat, asked: u32) -> Option<PathRefusal> {
        let rights = self.rights;
        let given = if stat.st_uid == rights.uid {
            stat.st_mode >> 6
        } else if stat.st_gid == rights.gid || rights.groups.contains(&stat.st_gid) {
            stat.st_mode >> 3
        } else {
            stat.st_mode
        };
        (!rights.overrides && given & asked != asked).then_some(PathRefusal::NoPermission)
    }
}

fn is_proc(file: impl AsFd) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatfs(file)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// An absolute path without empty parts, `.` and `..`, for people.
pub(super) fn tidy(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    let mut tidied = vec![b'/'];
    tidied.extend(parts.join(&b'/'));
    tidied
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_tidied_for_people() {
        for (path, tidied) in [("/", "/"), ("//a/./b/../c/", "/a/c"), ("/../../x", "/x"), ("/tmp/../..", "/")]
        {
            assert_eq!(tidy(path.as_bytes()), tidied.as_bytes(), "{path}");
        }
    }

    #[test]
    fn opens_want_what_their_flags_say() {
        let wanted =
            |flags: i32| Wanted::of(Use::Open(1), &[0, u64::from(flags.cast_unsigned()), 0, 0, 0, 0]);
        assert_eq!(wanted(libc::O_RDONLY | libc::O_CLOEXEC), Some(Wanted::Read));
        assert_eq!(wanted(libc::O_RDWR), Some(Wanted::Write { or_create: false }));
        assert_eq!(wanted(libc::O_TRUNC), Some(Wanted::Write { or_create: false }));
        assert_eq!(wanted(libc::O_WRONLY | libc::O_CREAT), Some(Wanted::Write { or_create: true }));
        assert_eq!(wanted(libc::O_RDWR | libc::O_TMPFILE), Some(Wanted::Write { or_create: false }));
        assert_eq!(wanted(libc::O_PATH), None);
    }

    #[test]
    fn modes_are_read_as_the_kernel_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let root: OwnedFd = fs_err::File::open(dir.path()).unwrap().into_file().into();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let rights =
            |uid: u32, overrides: bool| Rights { uid, gid, groups: Vec::new(), overrides, landlock: false };
        fs_err::write(dir.path().join("file"), "").unwrap();
        for (mode, own, group) in
            [(0o640, None, Some(PathRefusal::NoPermission)), (0o460, Some(PathRefusal::NoPermission), None)]
        {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs_err::set_permissions(dir.path().join("file"), mode).unwrap();
            for (uid, expected) in [(uid, own), (uid + 1, group)] {
                let rights = rights(uid, false);
                let view = View { root: &root, rights: &rights };
                assert_eq!(view.judge(b"/file", Wanted::Write { or_create: false }).unwrap(), expected);
            }
        }
        let rights = rights(uid + 1, true);
        let view = View { root: &root, rights: &rights };
        assert_eq!(view.judge(b"/file", Wanted::Write { or_create: false }).unwrap(), None);
        assert_eq!(view.judge(b"/missing/file", Wanted::Write { or_create: true }).unwrap(), None);
        assert_eq!(
            view.judge(b"/../../etc/passwd", Wanted::Read).unwrap(),
            None,
            "there is none in this root"
        );
    }
}
