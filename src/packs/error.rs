//! Why a pack could not be built or read.

use std::path::PathBuf;

use crate::blobs::BlobError;
use crate::names::{Digest, NameError};
use crate::rootfs::RootfsError;
use crate::state::StateError;

/// Why a pack could not be built, placed or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// Something in a directory may not be packed.
    #[error("{path} can't be packed: {why}")]
    Content {
        /// Where it is, below the directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A directory holds more than a pack may.
    #[error("the content has more than {cap} {what}")]
    TooMuch {
        /// What was counted.
        what: &'static str,
        /// How much is allowed.
        cap: u64,
    },
    /// What the pack says of itself is not allowed.
    #[error("the pack's {field} is not valid: {why}")]
    Info {
        /// Which part of the annotation.
        field: &'static str,
        /// The rule that it breaks.
        why: String,
    },
    /// The manifest has no annotation of ours.
    #[error("{0} is an image, but not a pack: it lacks the annotation dev.pantry.pack.v1")]
    NotAPack(Digest),
    /// A document of the pack does not parse or contradicts another.
    #[error("the {document} of {digest} is not valid: {why}")]
    Document {
        /// Manifest, annotation or config.
        document: &'static str,
        /// Which pack.
        digest: Digest,
        /// What is wrong with it.
        why: String,
    },
    /// A bundle names something by what is no name.
    #[error("the bundle is not valid: {0}")]
    Bundle(#[from] NameError),
    /// The bundle lacks its runtime layer.
    #[error("the bundle has no runtime layer")]
    NoRuntimeLayer,
    /// A layer of the bundle, or one just written, has other bytes than it should.
    #[error("the layer {expected} came out as {found}")]
    LayerDiffers {
        /// The digest it should have.
        expected: Digest,
        /// The digest that was stored.
        found: Digest,
    },
    /// Writing or reading a layer failed.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The store of bytes failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The state failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file operation failed; the source names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A thread that was building ended without a result.
    #[error("building a layer was interrupted")]
    Interrupted,
}

impl PackError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Content { .. } => "pack_content_refused",
            Self::TooMuch { .. } => "pack_too_large",
            Self::Info { .. } => "pack_info_invalid",
            Self::NotAPack(_) => "not_a_pack",
            Self::Document { .. } => "pack_not_readable",
            Self::Bundle(_) | Self::NoRuntimeLayer => "bundle_invalid",
            Self::LayerDiffers { .. } => "digest_mismatch",
            Self::Rootfs(_) => "layer_error",
            Self::Blob(error) => error.code(),
            Self::State(error) => error.code(),
            Self::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => "disk_full",
            Self::Io(_) => "pack_io",
            Self::Interrupted => "pack_interrupted",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Content { .. } => "packs hold plain files, directories, and links that stay inside",
            Self::TooMuch { .. } => "leave build results and data out of the source",
            Self::NotAPack(_) => "any OCI client can run it; only packs can be installed here",
            Self::Document { .. } => "the pack is damaged or was made by something else; submit it again",
            Self::Bundle(_) | Self::NoRuntimeLayer => {
                "assemble the bundle again with `pantry rootfs assemble`"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}
