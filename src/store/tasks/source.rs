//! The source in the work folder, taken from its blob whenever it is not there whole.

use std::path::{Path, PathBuf};

use crate::blobs::{BlobError, Blobs};
use crate::changes::{Step, TaskFailure};
use crate::names::Digest;
use crate::trees::{SourceCaps, TreeError, Trees, Unpacked};

use super::super::checks;
use super::super::finding::Finding;
use super::super::refusal::archive_finding;
use super::super::resolver::remove;
use super::{Job, broken};

/// Why a source is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl SourceError {
    /// The finding, where the archive is at fault.
    pub(crate) fn finding(&self) -> Option<Finding> {
        match self {
            Self::Tree(error) => archive_finding(error),
            Self::Blob(_) | Self::Io(_) => None,
        }
    }

    fn failure(&self) -> TaskFailure {
        let code = match self {
            Self::Tree(error) => error.code(),
            Self::Blob(error) => error.code(),
            Self::Io(_) => "io_failed",
        };
        broken(code, self)
    }
}

/// Unpacks the source `digest` into `work/source`; a stamp beside it says that it is whole. Blocking.
pub(crate) fn unpack(
    blobs: &Blobs,
    trees: &Trees,
    digest: &Digest,
    work: &Path,
    caps: &SourceCaps,
) -> Result<Option<Unpacked>, SourceError> {
    let (into, stamp, archive) =
        (work.join("source"), work.join("source.stamp"), work.join("source.archive"));
    let text = digest.to_string();
    if into.is_dir() && fs_err::read_to_string(&stamp).is_ok_and(|known| known == text) {
        return Ok(None);
    }
    match fs_err::remove_file(&stamp) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    remove(&into)?;
    let reader = blobs.open_blob_blocking(digest)?.ok_or_else(|| BlobError::Unknown(digest.clone()))?;
    let mut file =
        fs_err::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&archive)?;
    std::io::copy(&mut reader.into_blocking(), &mut file)?;
    let unpacked = trees.unpack_source(file.into_parts().0, &into, caps)?;
    fs_err::remove_file(&archive)?;
    fs_err::write(&stamp, text)?;
    Ok(Some(unpacked))
}

impl Job<'_> {
    /// `submit.fetch`: the snapshot that everything after works with.
    pub(super) async fn fetch(&self) -> Result<Step, TaskFailure> {
        match self.unpack_source().await? {
            Ok(_) => Ok(Step::Done),
            Err(finding) => self.reject(vec![finding]).await,
        }
    }

    /// The root of the source, which a restart may have taken away.
    pub(super) async fn source(&self) -> Result<PathBuf, TaskFailure> {
        self.unpack_source().await?.map_err(|finding| {
            let message = finding.message.unwrap_or(finding.reason_code);
            TaskFailure::new(
                "source_changed",
                format!("the source was unpacked before and now isn't: {message}"),
            )
        })
    }

    async fn unpack_source(&self) -> Result<Result<PathBuf, Finding>, TaskFailure> {
        let missing = || TaskFailure::new("source_missing", "the submission has no source");
        let digest = self.row.source.as_ref().ok_or_else(missing)?.digest.clone();
        let parts = &self.inner.parts;
        let (blobs, trees, work) = (parts.blobs.clone(), parts.trees.clone(), self.ctx.work_dir()?);
        let caps = SourceCaps { bytes: parts.config.store.upload_cap_bytes, ..SourceCaps::default() };
        let path = work.join("source");
        match self.blocking(move |_| unpack(&blobs, &trees, &digest, &work, &caps)).await? {
            Ok(Some(unpacked)) => {
                self.ctx.log(&format!("unpacked {} files, {} bytes", unpacked.files, unpacked.bytes)).await;
                Ok(Ok(checks::source_root(&path)))
            }
            Ok(None) => Ok(Ok(checks::source_root(&path))),
            Err(error) => error.finding().map_or_else(|| Err(error.failure()), |finding| Ok(Err(finding))),
        }
    }
}
