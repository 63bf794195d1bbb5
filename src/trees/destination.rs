//! Creating entries below one open directory, without ever following a link.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

/// The time of everything that is unpacked.
pub(crate) const EPOCH: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: 0, tv_nsec: 0 },
};

/// How a path below a directory is resolved: inside it, over no link, onto no other mount.
pub(crate) const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// The directory that is being filled.
pub(crate) struct Destination {
    root: OwnedFd,
    /// The directory of the entry before: archives list neighbours one after the other.
    last: Option<(String, OwnedFd)>,
}

impl Destination {
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self { root, last: None }
    }

    fn directory(&mut self, path: &str) -> Result<&OwnedFd, Errno> {
        if path.is_empty() {
            return Ok(&self.root);
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let fd = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), INSIDE)?;
            self.last = Some((path.to_owned(), fd));
        }
        Ok(self.last.as_ref().map_or(&self.root, |(_, fd)| fd))
    }

    /// Makes a directory that only we may use until its mode is set at the end.
    pub(crate) fn make_directory(&mut self, parent: &str, name: &str) -> Result<(), Errno> {
        rustix::fs::mkdirat(self.directory(parent)?, name, Mode::RWXU)
    }

    /// Makes a new file, never over something that is there.
    pub(crate) fn make_file(&mut self, parent: &str, name: &str) -> Result<File, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(self.directory(parent)?, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    }

    /// Makes a symbolic link.
    pub(crate) fn make_link(&mut self, parent: &str, name: &str, target: &str) -> Result<(), Errno> {
        let parent = self.directory(parent)?;
        rustix::fs::symlinkat(target, parent, name)?;
        rustix::fs::utimensat(parent, name, &EPOCH, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Gives a file that is there a second name.
    pub(crate) fn make_hard_link(&mut self, old: (&str, &str), new: (&str, &str)) -> Result<(), Errno> {
        let from = self.directory(old.0)?.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?;
        rustix::fs::linkat(&from, old.1, self.directory(new.0)?, new.1, AtFlags::empty())
    }

    /// Gives a directory its mode and time. Deepest first: afterwards it may be closed to us.
    pub(crate) fn finish_directory(&self, path: &str, mode: u32) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let path = if path.is_empty() { "." } else { path };
        let fd = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), INSIDE)?;
        rustix::fs::futimens(&fd, &EPOCH)?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))
    }
}

/// Gives a file its mode and time.
pub(crate) fn finish_file(file: &File, mode: u32) -> Result<(), Errno> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    rustix::fs::futimens(file, &EPOCH)
}
