//! Mount points, reached one component at a time.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use nix::libc;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Kind;
use crate::sandbox::error::{Fault, Step};

/// Opens a mount point below `root`, following no link; makes what is missing if `make`.
pub(super) fn open(root: &OwnedFd, path: &Path, kind: Kind, make: bool) -> Result<OwnedFd, Fault> {
    let mut here = root.as_fd().try_clone_to_owned().map_err(|error| Fault {
        step: "reach a mount point".to_owned(),
        errno: error.raw_os_error().unwrap_or(libc::EIO),
    })?;
    let names: Vec<&Path> = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .map(|part| Path::new(part.as_os_str()))
        .collect();
    for (index, name) in names.iter().enumerate() {
        let kind = if index + 1 == names.len() { kind } else { Kind::Directory };
        here = open_one(&here, name, kind, make).step_at(reason(kind), path)?;
    }
    Ok(here)
}

fn reason(kind: Kind) -> &'static str {
    match kind {
        Kind::Directory => "find the mount point (it must be a real directory, reached over no link)",
        Kind::File => "find the mount point (it must be a regular file, reached over no link)",
    }
}

fn open_one(parent: &OwnedFd, name: &Path, kind: Kind, make: bool) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) if make => {
            make_one(parent, name, kind, Mode::from_raw_mode(0o755))?;
            rustix::fs::openat(parent, name, flags, Mode::empty())?
        }
        other => other?,
    };
    match (FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode), kind) {
        (FileType::Directory, Kind::Directory) | (FileType::RegularFile, Kind::File) => Ok(opened),
        (FileType::Symlink, _) => Err(Errno::LOOP),
        (_, Kind::Directory) => Err(Errno::NOTDIR),
        (_, Kind::File) => Err(Errno::ISDIR),
    }
}

/// Makes a directory or an empty file.
pub(super) fn make_one(parent: &OwnedFd, name: &Path, kind: Kind, mode: Mode) -> Result<(), Errno> {
    match kind {
        Kind::Directory => rustix::fs::mkdirat(parent, name, mode),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o444)).map(drop)
        }
    }
}
