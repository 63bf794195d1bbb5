//! Going through a tree by open directories: taking it over, reading it again, removing it. No link is followed.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use crate::names::Sha256Stream;

use super::destination::EPOCH;
use super::error::TreeError;
use super::listing::{Listed, Listing};

/// Deeper than any archive may be; a bound for the stack.
const DEPTH_LIMIT: usize = 256;

/// Opens a directory itself, not what a link of that name leads to.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, TreeError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(TreeError::at("open", path))
}

fn open_below(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn names(directory: &OwnedFd) -> Result<Vec<std::ffi::CString>, Errno> {
    // A second descriptor, so that the place in the listing is our own.
    let mut buffer = Vec::with_capacity(32 * 1024);
    let fd = open_below(directory.as_fd(), c".")?;
    let mut raw = RawDir::new(&fd, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Takes over what the jail wrote: everything becomes ours, and must be what the extractor makes.
///
/// Gives the number of entries. As root the jail's files belong to an id of its own; without root they are ours.
pub(crate) fn adopt(root: &Path) -> Result<u64, TreeError> {
    let fd = open_directory(root)?;
    let owner = (rustix::process::geteuid(), rustix::process::getegid());
    let mut count = 0;
    adopt_directory(&fd, root, owner, 0, &mut count)?;
    Ok(count)
}

type Owner = (rustix::process::Uid, rustix::process::Gid);

fn adopt_directory(
    directory: &OwnedFd,
    path: &Path,
    owner: Owner,
    depth: usize,
    count: &mut u64,
) -> Result<(), TreeError> {
    if depth > DEPTH_LIMIT {
        return Err(TreeError::Foreign { path: path.to_owned(), what: "it lies too deep" });
    }
    for name in names(directory).map_err(TreeError::at("list", path))? {
        let below = path.join(std::ffi::OsStr::new(&*name.to_string_lossy()));
        let stat = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(TreeError::at("look at", &below))?;
        *count += 1;
        let foreign = |what| Err(TreeError::Foreign { path: below.clone(), what });
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let fd = open_below(directory.as_fd(), &name).map_err(TreeError::at("open", &below))?;
                adopt_directory(&fd, &below, owner, depth + 1, count)?;
            }
            FileType::RegularFile | FileType::Symlink => {
                take_over(directory, &name, &stat, owner).map_err(TreeError::at("take over", &below))?;
            }
            _ => return foreign("it is neither a file nor a directory nor a link"),
        }
        if stat.st_mode & 0o6000 != 0 && FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return foreign("it has a setuid or setgid bit");
        }
    }
    let stat = rustix::fs::fstat(directory).map_err(TreeError::at("look at", path))?;
    if (stat.st_uid, stat.st_gid) != (owner.0.as_raw(), owner.1.as_raw()) {
        rustix::fs::fchown(directory, Some(owner.0), Some(owner.1))
            .map_err(TreeError::at("take over", path))?;
    }
    Ok(())
}

fn take_over(directory: &OwnedFd, name: &std::ffi::CStr, stat: &Stat, owner: Owner) -> Result<(), Errno> {
    if (stat.st_uid, stat.st_gid) == (owner.0.as_raw(), owner.1.as_raw()) {
        return Ok(());
    }
    rustix::fs::chownat(directory, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)
}

/// Reads a whole tree again.
pub(crate) fn list(root: &Path) -> Result<Listing, TreeError> {
    let mut listing = Listing::default();
    list_directory(&open_directory(root)?, root, "", &mut listing)?;
    Ok(listing)
}

fn list_directory(
    directory: &OwnedFd,
    path: &Path,
    prefix: &str,
    listing: &mut Listing,
) -> Result<(), TreeError> {
    let foreign = |path: &Path, what| TreeError::Foreign { path: path.to_owned(), what };
    if prefix.matches('/').count() > DEPTH_LIMIT {
        return Err(foreign(path, "it lies too deep"));
    }
    for name in names(directory).map_err(TreeError::at("list", path))? {
        let text = name.to_str().map_err(|_| foreign(path, "it holds a name that is not UTF-8"))?;
        let below = path.join(text);
        let key = if prefix.is_empty() { text.to_owned() } else { format!("{prefix}/{text}") };
        let stat = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(TreeError::at("look at", &below))?;
        let mode = stat.st_mode & 0o7777;
        let listed = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let fd = open_below(directory.as_fd(), &name).map_err(TreeError::at("open", &below))?;
                list_directory(&fd, &below, &key, listing)?;
                Listed::Directory { mode }
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let file = rustix::fs::openat(directory, &name, flags, Mode::empty())
                    .map_err(TreeError::at("open", &below))?;
                let (content, size) = digest(File::from(file))?;
                Listed::File { mode, size, content }
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, &name, Vec::new())
                    .map_err(TreeError::at("read", &below))?;
                let target = target.into_string().map_err(|_| foreign(&below, "its target is not UTF-8"))?;
                Listed::Link { target }
            }
            _ => return Err(foreign(&below, "it is neither a file nor a directory nor a link")),
        };
        listing.0.insert(key, listed);
    }
    Ok(())
}

fn digest(mut file: File) -> Result<(crate::names::Digest, u64), TreeError> {
    let mut hash = Sha256Stream::default();
    let mut buffer = vec![0; 128 * 1024];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hash.finish(), size));
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

/// Removes a tree, whatever the modes in it are; what is not there is removed already.
///
/// # Errors
/// [`TreeError`] when something can't be removed; the rest may be gone by then.
pub(crate) fn remove_tree(root: &Path) -> Result<(), TreeError> {
    let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
        return Err(TreeError::Foreign { path: root.to_owned(), what: "it has no place to be removed from" });
    };
    let parent_fd = match open_directory(parent) {
        Err(TreeError::At { source: Errno::NOENT, .. }) => return Ok(()),
        other => other?,
    };
    let name = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(name))
        .map_err(|_| TreeError::At { step: "remove", path: root.to_owned(), source: Errno::INVAL })?;
    match remove_entry(&parent_fd, &name, 0) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(TreeError::At { step: "remove", path: root.to_owned(), source: errno }),
    }
}

fn remove_entry(parent: &OwnedFd, name: &std::ffi::CStr, depth: usize) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    if depth > DEPTH_LIMIT {
        return Err(Errno::NAMETOOLONG);
    }
    let directory = match open_below(parent.as_fd(), name) {
        Err(Errno::ACCESS) => {
            // Closed to us by its own mode; it is a real directory, as the open above would have said otherwise.
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            open_below(parent.as_fd(), name)?
        }
        other => other?,
    };
    let _ = rustix::fs::fchmod(&directory, Mode::RWXU);
    for below in names(&directory)? {
        remove_entry(&directory, &below, depth + 1)?;
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Sets the time of a directory back to that of everything unpacked: filling it has moved it.
pub(crate) fn settle(root: &Path) -> Result<(), TreeError> {
    let fd = open_directory(root)?;
    rustix::fs::futimens(&fd, &EPOCH).map_err(TreeError::at("settle", root))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755)).map_err(TreeError::at("settle", root))
}
