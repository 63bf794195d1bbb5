//! The folders: where a blob and an upload lie, and how a file becomes a blob.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::BlobError;
use crate::names::{Algorithm, Digest, Faults, UploadId};

/// Nobody writes to a blob again.
const BLOB_MODE: u32 = 0o444;

/// `<root>/blobs/sha256/<2>/<64 hex>` and `<root>/uploads/<id>`.
#[derive(Debug)]
pub(super) struct Layout {
    sha256: PathBuf,
    uploads: PathBuf,
    quarantine: PathBuf,
}

impl Layout {
    /// Makes the folders that are missing, and syncs those that hold them.
    pub(super) fn make(root: &Path) -> Result<Self, BlobError> {
        let layout = Self {
            sha256: root.join("blobs").join("sha256"),
            uploads: root.join("uploads"),
            quarantine: root.join("quarantine"),
        };
        let io = BlobError::io("make the folders of blobs");
        fs_err::create_dir_all(&layout.sha256).map_err(&io)?;
        fs_err::create_dir_all(&layout.uploads).map_err(&io)?;
        let mut made = false;
        for first in 0..=u8::MAX {
            match fs_err::create_dir(layout.sha256.join(format!("{first:02x}"))) {
                Ok(()) => made = true,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io(error)),
            }
        }
        if made {
            for folder in [&layout.sha256, &root.join("blobs"), &layout.uploads, root] {
                sync_folder(folder).map_err(&io)?;
            }
        }
        Ok(layout)
    }

    /// The file of a blob; `None` for a digest under which nothing is stored.
    pub(super) fn blob(&self, digest: &Digest) -> Option<PathBuf> {
        let hex = digest.hex();
        (digest.algorithm() == Algorithm::Sha256).then(|| self.sha256.join(&hex[..2]).join(hex))
    }

    pub(super) fn upload(&self, id: &UploadId) -> PathBuf {
        self.uploads.join(id.as_str())
    }

    pub(super) fn uploads(&self) -> &Path {
        &self.uploads
    }

    /// The folder of the blobs whose digest begins with this byte.
    pub(super) fn folder(&self, first: u8) -> PathBuf {
        self.sha256.join(format!("{first:02x}"))
    }

    /// A free name in `<root>/quarantine`.
    fn aside(&self, digest: &Digest) -> std::io::Result<PathBuf> {
        fs_err::create_dir_all(&self.quarantine)?;
        let mut target = self.quarantine.join(digest.hex());
        for number in 1_u32.. {
            if !target.try_exists()? {
                break;
            }
            target = self.quarantine.join(format!("{}.{number}", digest.hex()));
        }
        Ok(target)
    }

    /// Writes damaged bytes that had no file of their own to `<root>/quarantine`.
    pub(super) fn keep_aside(&self, digest: &Digest, bytes: &[u8]) -> std::io::Result<()> {
        fs_err::write(self.aside(digest)?, bytes)
    }

    /// Moves the file of a damaged blob to `<root>/quarantine/<hex>`, or beside what is there already; when this returns,
    /// both names are durable. `None` when the file is gone.
    pub(super) fn set_aside(&self, digest: &Digest) -> std::io::Result<Option<PathBuf>> {
        let source = self.blob(digest).ok_or(ErrorKind::Unsupported)?;
        let target = self.aside(digest)?;
        match fs_err::rename(&source, &target) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        }
        sync_folder(&self.quarantine)?;
        if let Some(root) = self.quarantine.parent() {
            sync_folder(root)?;
        }
        sync_folder(source.parent().ok_or(ErrorKind::NotFound)?)?;
        Ok(Some(target))
    }

    /// Makes the complete upload the blob of `digest`; when this returns, its name is durable.
    ///
    /// A file of that name and size is left as it is and the upload is removed: somebody may be reading it, and its
    /// bytes are the same. It is synced nevertheless, as the writer who made it may not have come that far.
    pub(super) fn close(
        &self,
        upload: &fs_err::File,
        digest: &Digest,
        size: u64,
        faults: &Faults,
    ) -> std::io::Result<()> {
        let target = self.blob(digest).ok_or(ErrorKind::Unsupported)?;
        let folder = target.parent().ok_or(ErrorKind::NotFound)?;
        if fs_err::metadata(&target).is_ok_and(|found| found.is_file() && found.len() == size) {
            fs_err::File::open(&target)?.sync_all()?;
            sync_folder(folder)?;
            return fs_err::remove_file(upload.path());
        }
        upload.set_permissions(std::fs::Permissions::from_mode(BLOB_MODE))?;
        faults.pass("blobs.close.before_fsync");
        upload.sync_all()?;
        faults.pass("blobs.close.after_fsync");
        fs_err::rename(upload.path(), &target)?;
        faults.pass("blobs.close.after_rename");
        sync_folder(folder)?;
        faults.pass("blobs.close.after_dirsync");
        Ok(())
    }
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    fs_err::File::open(folder)?.sync_all()
}
