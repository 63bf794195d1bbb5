//! An executable on a read-only mount: a program inside that gets at its init's executable can't open it for writing
//! (CVE-2019-5736).

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use fs_err as fs;
use nix::libc;
use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::error::{Fault, Step};
use super::sys;

pub(crate) const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// An executable on a detached read-only mount, made once, from which helpers are started.
///
/// Without one each init makes its own in its namespace and executes the program a second time from there.
#[derive(Debug)]
pub(crate) struct Guarded(OwnedFd);

impl Guarded {
    /// Makes one if this process may make mounts.
    pub(crate) fn new(executable: &Path) -> Option<Self> {
        rustix::process::geteuid().is_root().then(|| clone_of(executable).ok().map(Self)).flatten()
    }

    /// Where a process that inherits the descriptor finds the executable.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// Whether this process runs from a read-only mount.
pub(crate) fn holds() -> bool {
    rustix::fs::statvfs(OWN_EXECUTABLE).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// A read-only detached mount of an executable.
pub(crate) fn clone_of(executable: &Path) -> Result<OwnedFd, Fault> {
    let step = "protect our own executable";
    // By path: the mount behind /proc/self/exe may belong to an outer mount namespace and can't be cloned then.
    let path = fs::canonicalize(executable)
        .map_err(|error| Fault { step: step.to_owned(), errno: error.raw_os_error().unwrap_or(libc::EIO) })?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, &path, flags).step(step)?;
    let (wanted, there) = (rustix::fs::stat(executable).step(step)?, rustix::fs::fstat(&tree).step(step)?);
    if (wanted.st_dev, wanted.st_ino) != (there.st_dev, there.st_ino) {
        // Replaced by an upgrade since it was started.
        return Err(Fault { step: step.to_owned(), errno: libc::ESTALE });
    }
    sys::set_mount_attr(tree.as_fd(), sys::ATTR_RDONLY | sys::ATTR_NOSUID | sys::ATTR_NODEV, false)
        .step(step)?;
    Ok(tree)
}
