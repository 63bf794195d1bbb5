//! Why a tree could not be made.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::blobs::BlobError;
use crate::names::Digest;
use crate::sandbox::SandboxError;

/// Why an archive was refused, as a stable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RefusalCode {
    /// A cap on bytes, entries or the compression ratio was passed.
    SourceTooLarge,
    /// It is not an archive, or a damaged one.
    ArchiveNotReadable,
    /// An entry does what no entry may.
    ArchiveEntryRefused,
    /// A layer deletes something of the layers below it.
    LayerWhiteoutNotSupported,
    /// There is no room left.
    DiskFull,
    /// Writing failed for another reason.
    ExtractionFailed,
}

impl RefusalCode {
    /// The code as it goes over the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SourceTooLarge => "source_too_large",
            Self::ArchiveNotReadable => "archive_not_readable",
            Self::ArchiveEntryRefused => "archive_entry_refused",
            Self::LayerWhiteoutNotSupported => "layer_whiteout_not_supported",
            Self::DiskFull => "disk_full",
            Self::ExtractionFailed => "extraction_failed",
        }
    }
}

/// What the extractor says of an archive that it refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refusal {
    pub(crate) code: RefusalCode,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::SourceTooLarge, message)
    }

    pub(crate) fn unreadable(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::ArchiveNotReadable, message)
    }

    /// An entry is refused; its name is shown escaped and cut, as it may be anything.
    pub(crate) fn entry(name: &[u8], why: &str) -> Self {
        Self::new(RefusalCode::ArchiveEntryRefused, format!("the entry `{}` {why}", shown(name)))
    }

    pub(crate) fn writing(name: &str, source: rustix::io::Errno) -> Self {
        let code = match source {
            rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT => RefusalCode::DiskFull,
            _ => RefusalCode::ExtractionFailed,
        };
        Self::new(code, format!("writing `{}` failed: {source}", shown(name.as_bytes())))
    }
}

/// A name out of an archive as people may see it: escaped, and cut to 120 bytes.
fn shown(name: &[u8]) -> String {
    let cut = &name[..name.len().min(120)];
    cut.escape_ascii().to_string()
}

/// Why a tree could not be made, checked or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The archive holds what may not be unpacked, or is none.
    #[error("{message}")]
    Refused {
        /// Which rule it breaks.
        code: RefusalCode,
        /// A sentence that names the entry, where it is one.
        message: String,
    },
    /// The bytes of a layer are not those that its name promises.
    #[error("the layer {expected} has other bytes: their digest is {found}")]
    Digest {
        /// The name of the layer.
        expected: Digest,
        /// What its bytes hash to.
        found: Digest,
    },
    /// The archive in a layer is not the one that the image's configuration promises.
    #[error("the layer {layer} unpacks to {found}, but the image promises {expected}")]
    DiffId {
        /// The layer.
        layer: Digest,
        /// What the configuration says.
        expected: Digest,
        /// What came out.
        found: Digest,
    },
    /// The blob of a layer is not there.
    #[error("the layer {0} is not stored here")]
    BlobMissing(Digest),
    /// The store of bytes failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The jail could not be started.
    #[error("the confined extraction could not be started: {0}")]
    Sandbox(#[from] SandboxError),
    /// The extractor ended without a report.
    #[error("the confined extraction ended without a result ({end}){}", if .stderr.is_empty() { String::new() } else { format!(": {}", .stderr) })]
    Ended {
        /// How it ended.
        end: String,
        /// The last that it wrote.
        stderr: String,
    },
    /// The extraction took longer than it may.
    #[error("unpacking took longer than {seconds} seconds")]
    TimedOut {
        /// The limit.
        seconds: u64,
    },
    /// A tree holds something that the extractor can't have written.
    #[error("{path} does not belong into a tree: {what}")]
    Foreign {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A finished tree is no longer what was unpacked.
    #[error("the tree of {chain} was altered")]
    Altered {
        /// The layer chain.
        chain: Digest,
    },
    /// A file operation failed; the source names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A file operation by descriptor failed.
    #[error("{step} {path}: {source}")]
    At {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// The error of the system.
        source: rustix::io::Errno,
    },
}

impl TreeError {
    pub(crate) fn at(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.into();
        move |source| Self::At { step, path, source }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { code, .. } => code.as_str(),
            Self::Digest { .. } => "digest_mismatch",
            Self::DiffId { .. } => "layer_diff_id_mismatch",
            Self::BlobMissing(_) => "blob_missing",
            Self::Blob(error) => error.code(),
            Self::Sandbox(error) => error.code(),
            Self::Ended { .. } => "extraction_failed",
            Self::TimedOut { .. } => "extraction_timeout",
            Self::Foreign { .. } => "tree_not_clean",
            Self::Altered { .. } => "tree_altered",
            Self::Io(source) if source.kind() == std::io::ErrorKind::StorageFull => "disk_full",
            Self::At { source: rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT, .. } => "disk_full",
            Self::Io(_) | Self::At { .. } => "tree_io",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Refused { code, .. } => match code {
                RefusalCode::SourceTooLarge => "leave build results and data out of the archive",
                RefusalCode::ArchiveNotReadable => {
                    "send a whole .tar or .tar.gz, such as `tar -czf package.tar.gz -C DIR .` makes"
                }
                RefusalCode::ArchiveEntryRefused => {
                    "archives may hold plain files, directories, and links that stay inside"
                }
                RefusalCode::LayerWhiteoutNotSupported => {
                    "build the image without deleting files of its base"
                }
                RefusalCode::DiskFull => "make room on the disk that holds the root",
                RefusalCode::ExtractionFailed => return None,
            },
            Self::Sandbox(error) => return error.hint(),
            Self::Digest { .. } | Self::DiffId { .. } => {
                "the content is damaged or was made up; fetch it again"
            }
            Self::BlobMissing(_) => "install or submit the package again",
            Self::Altered { .. } => "stop what uses it and start Pantry again: it is unpacked anew",
            _ => return None,
        };
        Some(text.to_owned())
    }
}
