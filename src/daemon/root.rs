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
        make(path, 0o755)?;
        let path = fs::canonicalize(path)?;
        let (owner, ours) = (fs::metadata(&path)?.uid(), nix::unistd::geteuid().as_raw());
        if owner != ours {
            return Err(DaemonError::RootNotOurs { root: path, owner, ours });
        }
        make(&path.join("run"), 0o755)?;
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
            make(&path.join(folder), mode)?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// The folder, absolute and without links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn make(path: &Path, mode: u32) -> Result<(), DaemonError> {
    match std::fs::DirBuilder::new().recursive(true).mode(mode).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) => {
            return Err(DaemonError::Root(std::io::Error::new(
                error.kind(),
                format!("{}: {error}", path.display()),
            )));
        }
    }
    // A folder that was there with other rights is brought to ours only where it is ours to bring.
    let found = fs::metadata(path)?;
    if found.uid() == nix::unistd::geteuid().as_raw()
        && mode != 0o755
        && found.permissions().mode() & 0o777 != mode
    {
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
}
