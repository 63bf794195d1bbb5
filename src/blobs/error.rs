//! What can go wrong with blobs.

use std::sync::Arc;

use crate::names::{Digest, UploadId};
use crate::state::StateError;

/// Says which step failed, with the digest or upload it was about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The records failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file operation failed; the source names the path.
    #[error("cannot {step}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The bytes are not those that were announced.
    #[error("the content does not match: expected {expected}, got {found}")]
    DigestMismatch {
        /// The digest that was announced.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// No blob has this digest.
    #[error("blob {0} is unknown")]
    Unknown(Digest),
    /// A record names the blob, but its file is gone.
    #[error("the file of blob {0} is missing")]
    Missing(Digest),
    /// The stored bytes are no longer those of the digest.
    #[error("the stored bytes of blob {0} are damaged")]
    Damaged(Digest),
    /// Somebody is storing the same bytes.
    #[error("blob {0} is being stored by another request")]
    InUse(Digest),
    /// There are more bytes than may be.
    #[error("the content is larger than {cap} bytes")]
    TooLarge {
        /// The cap.
        cap: u64,
    },
    /// An earlier write or sync of this upload failed, so that nothing of it can be trusted.
    #[error("upload {id} failed before and takes no more: {why}")]
    Spoiled {
        /// The upload.
        id: UploadId,
        /// The first failure, in one line.
        why: Arc<str>,
        /// It was that the disk is full.
        disk_full: bool,
    },
    /// Another request is writing to the upload.
    #[error("upload {0} is being written by another request")]
    UploadBusy(UploadId),
    /// The recorded state of the upload cannot be read.
    #[error("the record of upload {0} is damaged")]
    UploadDamaged(UploadId),
    /// The process is stopping.
    #[error("the process is stopping")]
    Stopping,
}

impl BlobError {
    /// The stable code of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::State(error) => error.code(),
            _ if self.is_disk_full() => "disk_full",
            Self::Io { .. } => "blob_io_failed",
            Self::DigestMismatch { .. } => "blob_digest_mismatch",
            Self::Unknown(_) => "blob_unknown",
            Self::Missing(_) => "blob_missing",
            Self::Damaged(_) => "blob_damaged",
            Self::InUse(_) => "blob_in_use",
            Self::TooLarge { .. } => "blob_too_large",
            Self::Spoiled { .. } => "upload_spoiled",
            Self::UploadBusy(_) => "upload_busy",
            Self::UploadDamaged(_) => "upload_damaged",
            Self::Stopping => "stopping",
        }
    }

    /// What a person can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::State(error) => return error.hint(),
            _ if self.is_disk_full() => "free space on the disk of the root, then send the content again",
            Self::Io { .. } => "check the permissions and the free space of the folder",
            Self::DigestMismatch { .. } => "send the content again, whole, with its own digest",
            Self::Missing(_) | Self::Damaged(_) => "check the disk, and push or fetch the content again",
            Self::Spoiled { .. } | Self::UploadDamaged(_) => "start a new upload",
            Self::UploadBusy(_) => "wait for the other request, then ask for the offset",
            Self::InUse(_) => "try again when that push has ended",
            Self::Unknown(_) | Self::TooLarge { .. } | Self::Stopping => return None,
        };
        Some(text.to_owned())
    }

    /// Tells whether there is no room for more bytes: the disk is full, or a quota is used up.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            }
            Self::Spoiled { disk_full, .. } => *disk_full,
            _ => false,
        }
    }

    pub(super) fn io(step: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io { step, source }
    }
}
