//! The root folder: made, owned, and locked.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use nix::fcntl::{Flock, FlockArg};

use super::DaemonError;

/// The root folder, held by this process alone as long as the value lives.
pub(super) struct Root {
    path: PathBuf,
    _lock: Flock<std::fs::File>,
}

impl Root {
    /// Makes what is missing and takes the lock.
    pub(super) fn open(path: &Path) -> Result<Self, DaemonError> {
        create(path, 0o755)?;
        let path = fs::canonicalize(path)?;
        let found = fs::metadata(&path)?;
        let (owner, ours) = (found.uid(), nix::unistd::geteuid().as_raw());
        if owner != ours {
            return Err(DaemonError::RootNotOurs { root: path, owner, ours });
        }
        if found.mode() & 0o022 != 0 {
            return Err(DaemonError::RootWritable { root: path, mode: found.mode() & 0o7777 });
        }
        own(&path.join("run"), 0o755)?;
        let file =
            fs::OpenOptions::new().create(true).truncate(false).write(true).open(path.join("run/lock"))?;
        let (file, _) = file.into_parts();
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => DaemonError::RootInUse { root: path.clone() },
            other => DaemonError::Root(other.into()),
        })?;
        for (folder, mode) in [
            ("bin", 0o755),
            ("bin/.launch", 0o755),
            ("trees", 0o755),
            ("uploads", 0o700),
            ("keys", 0o700),
            ("tmp", 0o711),
            ("run/jails", 0o700),
        ] {
            own(&path.join(folder), mode)?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// The folder, absolute and without links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the root itself, which may lie behind a link of the operator's.
fn create(path: &Path, mode: u32) -> Result<(), DaemonError> {
    match std::fs::DirBuilder::new().recursive(true).mode(mode).create(path) {
        Err(error) if !path.is_dir() => {
            let named = format!("{}: {error}", path.display());
            Err(DaemonError::Root(std::io::Error::new(error.kind(), named)))
        }
        _ => Ok(()),
    }
}

/// Makes a folder of the root with these rights. A link or a folder of somebody else in its place would let what
/// Pantry writes land elsewhere.
fn own(path: &Path, mode: u32) -> Result<(), DaemonError> {
    create(path, mode)?;
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(DaemonError::NotOurFolder { path: path.to_owned() });
    }
    if found.permissions().mode() & 0o7777 != mode {
        fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_held_by_one_process_only() {
        let folder = tempfile::tempdir().unwrap();
        let first = Root::open(folder.path()).unwrap();
        assert!(matches!(Root::open(folder.path()), Err(DaemonError::RootInUse { .. })));
        drop(first);
        Root::open(folder.path()).unwrap();
    }

    #[test]
    fn keys_and_uploads_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        for private in ["keys", "uploads"] {
            assert_eq!(fs::metadata(root.path().join(private)).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_root_that_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Root::open(folder.path()), Err(DaemonError::RootWritable { mode: 0o777, .. })));
    }

    #[test]
    fn a_link_in_the_place_of_a_folder_is_refused() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("bin")).unwrap();
        assert!(matches!(Root::open(folder.path()), Err(DaemonError::NotOurFolder { .. })));
        assert!(fs::read_dir(elsewhere.path()).unwrap().next().is_none());
    }
}
