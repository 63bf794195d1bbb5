//! The work folders of changes: made on demand, removed at the end, swept at the start.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::names::ChangeId;

/// `<root>/tmp`, whose entries are named by changes.
#[derive(Clone, Debug)]
pub(super) struct Workspace(PathBuf);

impl Workspace {
    pub(super) fn below(root: &Path) -> Self {
        Self(root.join("tmp"))
    }

    /// The folder of a change, whether it exists or not.
    pub(super) fn of(&self, id: &ChangeId) -> PathBuf {
        self.0.join(id.as_str())
    }

    /// The folder of a change, made if need be; only this user may enter it.
    pub(super) fn make(&self, id: &ChangeId) -> io::Result<PathBuf> {
        let folder = self.of(id);
        fs_err::create_dir_all(&self.0)?;
        match fs_err::create_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(folder),
            made => made?,
        }
        fs_err::set_permissions(&folder, Permissions::from_mode(0o700))?;
        Ok(folder)
    }

    /// Removes the folder of a change with all that is in it.
    pub(super) fn remove(&self, id: &ChangeId) -> io::Result<()> {
        remove_whole(&self.of(id))
    }

    /// What lies in the folder of work folders.
    pub(super) fn entries(&self) -> io::Result<Vec<OsString>> {
        match fs_err::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?.map(|entry| Ok(entry?.file_name())).collect(),
        }
    }

    /// Removes those of `entries` that no change in `kept` names; what can't be removed is reported and stays.
    pub(super) fn sweep(&self, entries: Vec<OsString>, kept: &HashSet<String>) {
        let strangers =
            entries.into_iter().filter(|name| name.to_str().is_none_or(|name| !kept.contains(name)));
        for name in strangers {
            if let Err(error) = remove_whole(&self.0.join(name)) {
                tracing::warn!(%error, "a left-over work folder can't be removed");
            }
        }
    }
}

/// Removes a file or a folder; an unpacked folder that forbids its owner to write is made writable first.
fn remove_whole(path: &Path) -> io::Result<()> {
    let removed = match fs_err::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.is_dir() => return fs_err::remove_file(path),
        Ok(_) => fs_err::remove_dir_all(path),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            open_folders(path)?;
            fs_err::remove_dir_all(path)
        }
        other => other,
    }
}

/// Makes every folder below `top` writable, without following links and without recursion, however deep it is.
fn open_folders(top: &Path) -> io::Result<()> {
    let mut left = vec![top.to_owned()];
    while let Some(folder) = left.pop() {
        fs_err::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs_err::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(())
}
