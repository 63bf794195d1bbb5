//! What can go wrong, in the words of the specification.

use crate::blobs::BlobError;
use crate::names::{Digest, NameError, RepoName, Tag};
use crate::repos::ManifestError;
use crate::state::StateError;

use super::Upload;

/// An answer names so many missing digests at most.
const MISSING_TOLD: usize = 100;

/// Why the registry refuses or fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The repository name breaks the grammar.
    #[error(transparent)]
    NameInvalid(NameError),
    /// There is no such repository.
    #[error("there is no repository {name:?}")]
    NameUnknown {
        /// As it was asked for, cut to 255 characters.
        name: String,
    },
    /// The repository does not hold the blob.
    #[error("{repo} holds no blob {digest}")]
    BlobUnknown {
        /// Where it was looked for.
        repo: RepoName,
        /// What was looked for.
        digest: Digest,
    },
    /// There is no such upload, or no longer.
    #[error("there is no upload of this id; begin a new one")]
    UploadUnknown,
    /// The request to an upload makes no sense.
    #[error("{why}")]
    UploadInvalid {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A chunk does not begin where the last one ended; the upload lives on.
    #[error("the chunk must begin at byte {}", at.received)]
    OutOfOrder {
        /// Where the upload stands.
        at: Upload,
    },
    /// A range that the blob does not have.
    #[error("the blob has {size} bytes; the range is outside of it")]
    RangeInvalid {
        /// The size of the blob.
        size: u64,
    },
    /// The digest in the request is none.
    #[error(transparent)]
    DigestInvalid(NameError),
    /// The request needs a digest and has none.
    #[error("the query must name the content's digest: `?digest=sha256:…`")]
    DigestMissing,
    /// The bytes are not those that the digest names.
    #[error("the content's digest is {found}, not {expected} as the request says")]
    DigestMismatch {
        /// As the request says.
        expected: Digest,
        /// As the bytes say.
        found: Digest,
    },
    /// The body is not as long as it must be.
    #[error("{why}")]
    SizeInvalid {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The manifest is larger than is taken.
    #[error("manifests may have {cap} bytes at most")]
    ManifestTooLarge {
        /// The cap in bytes.
        cap: u64,
    },
    /// There is no such manifest or tag.
    #[error("{repo} holds no manifest {reference:?}")]
    ManifestUnknown {
        /// Where it was looked for.
        repo: RepoName,
        /// What was looked for, cut to 200 characters.
        reference: String,
    },
    /// The document is not a manifest that is taken.
    #[error(transparent)]
    ManifestInvalid(#[from] ManifestError),
    /// The tag breaks the grammar.
    #[error(transparent)]
    TagInvalid(NameError),
    /// The manifest refers to what the repository does not hold.
    #[error("the repository lacks {} of what the manifest refers to", missing.len())]
    ManifestBlobUnknown {
        /// What is missing.
        missing: Vec<Digest>,
    },
    /// One request asks for more tags than are set at once.
    #[error("one request may set {cap} tags at most")]
    TooManyTags {
        /// So many.
        cap: usize,
    },
    /// A tag may not move to another digest, nor go.
    #[error("the tag {tag} is immutable in this repository")]
    TagImmutable {
        /// Which.
        tag: Tag,
    },
    /// What the request makes a condition is not so.
    #[error("the manifest is not as the request's `If-Match` or `If-None-Match` demands")]
    PreconditionFailed,
    /// A number in the query is none.
    #[error("`{name}` must be a whole number that is not negative")]
    NumberInvalid {
        /// The name of the parameter.
        name: &'static str,
    },
    /// Somebody who has shown no credentials needs some.
    #[error("this needs credentials")]
    Unauthorized,
    /// The token shown is for less than this.
    #[error("the token does not cover this")]
    InsufficientScope,
    /// Not allowed to this principal, or to nobody.
    #[error("{why}")]
    Denied {
        /// Why not.
        why: &'static str,
    },
    /// Switched off in this registry.
    #[error("{what} is switched off in the configuration of this registry")]
    Unsupported {
        /// What is switched off.
        what: &'static str,
    },
    /// Too many uploads are being written at this moment.
    #[error("too many uploads are being written at this moment; try again")]
    TooManyUploads,
    /// Whether a manifest may go could not be told, since it was tagged again whenever its tags were looked through.
    #[error("the manifest was given tags again and again while it was to be deleted; try again")]
    Tagged,
    /// Another request wanted the upload while this one had nothing to write.
    #[error("another request took the upload over while no byte came on this one")]
    Interrupted,
    /// The connection broke, or was too slow, in the middle of the body.
    #[error("the body broke off: {0}")]
    BodyBroken(#[source] std::io::Error),
    /// The bytes could not be written or read.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The records could not be written or read.
    #[error(transparent)]
    State(#[from] StateError),
}

impl RegistryError {
    /// The code of the specification.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NameInvalid(_) => "NAME_INVALID",
            Self::NameUnknown { .. } => "NAME_UNKNOWN",
            Self::BlobUnknown { .. } => "BLOB_UNKNOWN",
            Self::UploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::UploadInvalid { .. }
            | Self::OutOfOrder { .. }
            | Self::Interrupted
            | Self::BodyBroken(_) => "BLOB_UPLOAD_INVALID",
            Self::RangeInvalid { .. } => "RANGE_INVALID",
            Self::DigestInvalid(_) | Self::DigestMissing | Self::DigestMismatch { .. } => "DIGEST_INVALID",
            Self::SizeInvalid { .. } | Self::ManifestTooLarge { .. } => "SIZE_INVALID",
            Self::ManifestUnknown { .. } => "MANIFEST_UNKNOWN",
            Self::ManifestInvalid(_) | Self::TagInvalid(_) | Self::TooManyTags { .. } => "MANIFEST_INVALID",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::ManifestBlobUnknown { .. } => "MANIFEST_BLOB_UNKNOWN",
            Self::NumberInvalid { .. } => "PAGINATION_NUMBER_INVALID",
            Self::Unauthorized | Self::InsufficientScope => "UNAUTHORIZED",
            Self::Denied { .. } | Self::TagImmutable { .. } => "DENIED",
            Self::Unsupported { .. } => "UNSUPPORTED",
            Self::TooManyUploads | Self::Tagged => "TOOMANYREQUESTS",
            Self::Blobs(_) | Self::State(_) => "UNKNOWN",
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NameUnknown { .. } => {
                Some("names begin with a repository of this registry, such as local/")
            }
            Self::Denied { .. } => Some("push below local/"),
            Self::TagImmutable { .. } => Some("push under another tag, or ask an administrator"),
            Self::PreconditionFailed => Some("read the manifest again, and decide anew"),
            Self::TooManyTags { .. } => Some("set the others with further requests"),
            Self::UploadUnknown => Some("POST to `…/blobs/uploads/` begins one"),
            Self::OutOfOrder { .. } | Self::Interrupted | Self::BodyBroken(_) => {
                Some("GET the upload's location tells where to go on")
            }
            Self::Unauthorized => Some("log in with a name and a password or API token (`pty_…`)"),
            Self::InsufficientScope => Some("ask the token service for the scope in `WWW-Authenticate`"),
            Self::ManifestBlobUnknown { .. } => Some("push the blobs and child manifests first"),
            _ => None,
        }
    }

    /// More than the sentence says, for programs.
    #[must_use]
    pub fn detail(&self) -> Option<serde_json::Value> {
        match self {
            Self::ManifestBlobUnknown { missing } => {
                let told = missing.iter().take(MISSING_TOLD);
                Some(told.map(|digest| serde_json::json!({ "digest": digest })).collect())
            }
            Self::BlobUnknown { digest, .. } => Some(serde_json::json!({ "digest": digest })),
            _ => None,
        }
    }
}
