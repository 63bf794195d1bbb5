//! What a layer removes of those below it: a layer of its own that holds deletion marks and the directories above them.
//!
//! It goes right below the layer's tree, so that a directory which the layer made anew hides the one of before, and
//! needs no attribute for that. A mark is a device with the number 0:0, which everybody may make and nobody can open.
//!
//! *Source*: the kernel's documentation of overlayfs, section whiteouts and opaque directories.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::TreeError;
use super::path::EntryPath;
use super::walk;

/// Where the marks of a tree stand.
pub(crate) fn of(tree: &Path) -> PathBuf {
    tree.with_extension("mask")
}

/// Makes the marks for these paths, in the place of those of before; none where nothing is removed.
///
/// The paths come out of a jail that has read hostile bytes: they are parsed again.
pub(crate) fn make(mask: &Path, removed: &[String]) -> Result<(), TreeError> {
    walk::remove_tree(mask)?;
    if removed.is_empty() {
        return Ok(());
    }
    let paths: Vec<EntryPath> = removed
        .iter()
        .map(|path| EntryPath::parse(path.as_bytes(), u32::MAX))
        .collect::<Result<_, _>>()
        .map_err(|refusal| TreeError::Refused { code: refusal.code, message: refusal.message })?;
    let marked: HashSet<&str> = paths.iter().map(EntryPath::as_str).collect();
    fs_err::create_dir(mask)?;
    for path in &paths {
        // Below what is gone nothing is left to be removed.
        if path.is_root() || path.ancestors().any(|above| marked.contains(above)) {
            continue;
        }
        mark(walk::open_directory(mask)?, path)
            .map_err(TreeError::at("mark as removed", mask.join(path.as_str())))?;
    }
    walk::settle(mask)
}

fn mark(root: OwnedFd, path: &EntryPath) -> Result<(), Errno> {
    let mut here = root;
    for name in path.parent().split('/').filter(|name| !name.is_empty()) {
        match rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        here = rustix::fs::openat(&here, name, flags, Mode::empty())?;
    }
    match rustix::fs::mknodat(&here, path.name(), FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

    use super::*;

    #[test]
    fn marks_stand_where_something_was_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mask = of(&folder.path().join("tree"));
        let removed = ["etc/motd", "usr/share/doc", "usr/share/doc/x", "opt"].map(str::to_owned);
        for _ in 0..2 {
            make(&mask, &removed).unwrap();
            for path in ["etc/motd", "usr/share/doc", "opt"] {
                let mark = fs_err::symlink_metadata(mask.join(path)).unwrap();
                assert!(mark.file_type().is_char_device() && mark.rdev() == 0, "{path}");
            }
        }
        for hostile in ["../x", "/x", "a/../../x", ""] {
            assert!(make(&mask, &[hostile.to_owned()]).is_err(), "{hostile:?}");
        }
        make(&mask, &[]).unwrap();
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
    }
}
