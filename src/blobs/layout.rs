//! The folders: where a blob and an upload lie, and how a file becomes a blob.

use std::ffi::OsStr;
use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};

use super::BlobError;
use super::files::{Access, Files, OpenFile};
use crate::names::{Algorithm, Digest, Faults, UploadId};

/// How the name of marks ends, which no id does.
const MARK: &str = ".mark";

/// What becomes of a file that lies where the blob will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InPlace {
    /// It is kept when it has the right size: its bytes were durable before its name.
    Keep,
    /// Its bytes were found damaged or gone: a loss of power may have brought them back after that.
    Replace,
}

/// What of an upload a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What came.
    Bytes,
    /// How far it has come (see [`super::marks`]).
    Marks,
}

/// `<root>/blobs/sha256/<2>/<64 hex>` and `<root>/uploads/<id>`.
#[derive(Debug)]
pub(super) struct Layout {
    sha256: PathBuf,
    uploads: PathBuf,
    quarantine: PathBuf,
}

impl Layout {
    /// Makes the folders that are missing, and syncs those that hold them.
    ///
    /// They are synced also when none was missing: the process that made them may have ended before it came to that.
    pub(super) fn make(files: &dyn Files, root: &Path) -> Result<Self, BlobError> {
        let blobs = root.join("blobs");
        let layout = Self {
            sha256: blobs.join("sha256"),
            uploads: root.join("uploads"),
            quarantine: root.join("quarantine"),
        };
        let io = BlobError::io("make the folders of blobs");
        for folder in [&blobs, &layout.sha256, &layout.uploads] {
            files.make_folder(folder).map_err(&io)?;
        }
        for first in 0..=u8::MAX {
            files.make_folder(&layout.sha256.join(format!("{first:02x}"))).map_err(&io)?;
        }
        for folder in [&layout.sha256, &blobs, root] {
            files.sync_folder(folder).map_err(&io)?;
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

    /// Where it is noted how far an upload has come.
    pub(super) fn mark(&self, id: &UploadId) -> PathBuf {
        self.uploads.join(format!("{}{MARK}", id.as_str()))
    }

    /// The upload that a name in the folder of uploads belongs to: its file, or its marks.
    pub(super) fn upload_of(name: &OsStr) -> Option<(UploadId, Part)> {
        let name = name.to_str()?;
        let (stem, part) = match name.strip_suffix(MARK) {
            Some(stem) => (stem, Part::Marks),
            None => (name, Part::Bytes),
        };
        Some((UploadId::parse(stem).ok()?, part))
    }

    pub(super) fn uploads(&self) -> &Path {
        &self.uploads
    }

    /// The folder of the blobs whose digest begins with this byte.
    pub(super) fn folder(&self, first: u8) -> PathBuf {
        self.sha256.join(format!("{first:02x}"))
    }

    /// A free name in `<root>/quarantine`, whose folder has a durable name.
    fn aside(&self, files: &dyn Files, digest: &Digest) -> std::io::Result<PathBuf> {
        files.make_folder(&self.quarantine)?;
        files.sync_folder(self.quarantine.parent().ok_or(ErrorKind::NotFound)?)?;
        let (mut target, mut number) = (self.quarantine.join(digest.hex()), 0_u64);
        loop {
            match files.open(&target, Access::Read) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(target),
                // Whoever cannot tell whether a name is free will not find one that is, however many there are.
                Err(error) => return Err(error),
                Ok(_) => number += 1,
            }
            target = self.quarantine.join(format!("{}.{number}", digest.hex()));
        }
    }

    /// Writes damaged bytes that had no file of their own to `<root>/quarantine`.
    pub(super) fn keep_aside(&self, files: &dyn Files, digest: &Digest, bytes: &[u8]) -> std::io::Result<()> {
        let file = files.create(&self.aside(files, digest)?)?;
        let mut at = 0;
        while at < bytes.len() {
            match file.write_at(&[IoSlice::new(&bytes[at..])], at as u64)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                count => at += count,
            }
        }
        file.sync()?;
        files.sync_folder(&self.quarantine)
    }

    /// Moves the file of a damaged blob to `<root>/quarantine/<hex>`, or beside what is there already; when this returns,
    /// both names are durable. `None` when the file is gone.
    pub(super) fn set_aside(&self, files: &dyn Files, digest: &Digest) -> std::io::Result<Option<PathBuf>> {
        let source = self.blob(digest).ok_or(ErrorKind::Unsupported)?;
        let target = self.aside(files, digest)?;
        match files.rename(&source, &target) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        }
        files.sync_folder(&self.quarantine)?;
        files.sync_folder(source.parent().ok_or(ErrorKind::NotFound)?)?;
        Ok(Some(target))
    }

    /// Makes the complete upload the blob of `digest`; when this returns, its name is durable.
    ///
    /// A file of that name and size that is to be kept is left as it is and the upload is removed: somebody may be
    /// reading it, and its bytes are the same. It is synced nevertheless, as the writer who made it may not have come
    /// that far.
    pub(super) fn close(
        &self,
        files: &dyn Files,
        upload: (&dyn OpenFile, &Path),
        (digest, size): (&Digest, u64),
        in_place: InPlace,
        faults: &Faults,
    ) -> std::io::Result<()> {
        let (upload, path) = upload;
        let target = self.blob(digest).ok_or(ErrorKind::Unsupported)?;
        let folder = target.parent().ok_or(ErrorKind::NotFound)?;
        if in_place == InPlace::Keep
            && let Ok(found) = files.open(&target, Access::Read)
            && found.status().is_ok_and(|status| status.length == size)
        {
            faults.pass("blobs.close.found.before_fsync");
            found.sync()?;
            files.sync_folder(folder)?;
            faults.pass("blobs.close.found.after_dirsync");
            return files.remove(path);
        }
        upload.seal()?;
        faults.pass("blobs.close.before_fsync");
        upload.sync()?;
        faults.pass("blobs.close.after_fsync");
        files.rename(path, &target)?;
        faults.pass("blobs.close.after_rename");
        files.sync_folder(folder)?;
        faults.pass("blobs.close.after_dirsync");
        Ok(())
    }
}
