//! What can go wrong with a bundle.

use std::io;
use std::path::{Path, PathBuf};

use super::check::Finding;

/// A failure of the rootfs part; each variant has a stable [`code`](RootfsError::code) and often a [`hint`](RootfsError::hint).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootfsError {
    /// A file operation fails; the message names the path.
    #[error("{0}")]
    File(#[from] io::Error),
    /// Reading or writing a stream fails.
    #[error("{}: {source}", path.display())]
    Stream {
        /// The file or blob that was being worked on.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The bundle's description isn't valid.
    #[error("the bundle's description isn't valid: {detail}")]
    Spec {
        /// What is wrong with it.
        detail: String,
    },
    /// A program of this machine can't be used for the bundle.
    #[error("{} can't be used for the bundle: {reason}", path.display())]
    Program {
        /// The program's path.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
        /// The package that brings it, when known.
        package: Option<String>,
    },
    /// A file that the bundle needs isn't on this machine.
    #[error("{} isn't on this machine, and the bundle needs it", path.display())]
    Missing {
        /// The path looked for.
        path: PathBuf,
        /// The package that brings it, when known.
        package: Option<String>,
    },
    /// A library that a program asks for isn't found where the loader would look.
    #[error("library {library}, needed by {}, isn't found", needed_by.display())]
    Library {
        /// The name asked for.
        library: String,
        /// Who asks.
        needed_by: PathBuf,
    },
    /// A file can't be read as ELF although it starts as one.
    #[error("{} isn't a readable ELF file: {source}", path.display())]
    Elf {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: object::read::Error,
    },
    /// A file is larger than this part is willing to hold.
    #[error("{} has {size_bytes} bytes, more than the limit of {limit_bytes}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A helper program fails.
    #[error("{program} fails ({status}): {stderr}")]
    Helper {
        /// Which one.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// uv isn't on the machine and its wheel can't be had.
    #[error("uv {version} can't be had: {detail}")]
    Uv {
        /// The version the bundle wants.
        version: String,
        /// What was tried, and how it ended.
        detail: String,
    },
    /// Content doesn't have the digest it should have.
    #[error("{what} has digest {actual}, expected {expected}")]
    Digest {
        /// What was read.
        what: String,
        /// The digest it should have.
        expected: String,
        /// The digest it has.
        actual: String,
    },
    /// The machine's architecture has no bundle.
    #[error("there is no bundle for the architecture {architecture}")]
    Architecture {
        /// Its name.
        architecture: String,
    },
    /// The place to write to is taken.
    #[error("{} exists already", path.display())]
    OutputExists {
        /// The path.
        path: PathBuf,
    },
    /// Entries of a layer come out of order or twice.
    #[error("layer entry {entry} doesn't sort after {previous}")]
    LayerOrder {
        /// The offending entry.
        entry: String,
        /// The one before it.
        previous: String,
    },
    /// A layer entry's path isn't plain and relative.
    #[error("{entry:?} can't be the path of a layer entry")]
    LayerPath {
        /// The offending path.
        entry: String,
    },
    /// A layer entry's content isn't as long as announced.
    #[error("{entry} has {actual_bytes} bytes, {announced_bytes} were announced")]
    LayerLength {
        /// The entry.
        entry: String,
        /// Length announced.
        announced_bytes: u64,
        /// Length read.
        actual_bytes: u64,
    },
    /// A directory isn't an OCI layout with one image.
    #[error("{} isn't a bundle's layout: {detail}", path.display())]
    Layout {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// An executable isn't one that can carry a payload.
    #[error("{} can't carry a bundle: {detail}", path.display())]
    Executable {
        /// The file.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
    /// The bundle inside an executable is cut off.
    #[error("the bundle in {} is cut: {detail}", path.display())]
    PayloadCut {
        /// The file.
        path: PathBuf,
        /// What is missing.
        detail: String,
    },
    /// The bundle inside an executable was altered.
    #[error("the bundle in {} was altered: {detail}", path.display())]
    PayloadAltered {
        /// The file.
        path: PathBuf,
        /// What differs.
        detail: String,
    },
    /// What was assembled breaks the rules.
    #[error("the bundle breaks {} rule(s); the first: {}", findings.len(), findings.first().map(ToString::to_string).unwrap_or_default())]
    Check {
        /// All findings.
        findings: Vec<Finding>,
    },
}

impl RootfsError {
    /// The stable code of this failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::File(_) | Self::Stream { .. } => "rootfs_io",
            Self::Spec { .. } => "rootfs_spec_invalid",
            Self::Program { .. } => "rootfs_program_unusable",
            Self::Missing { .. } => "rootfs_file_missing",
            Self::Library { .. } => "rootfs_library_missing",
            Self::Elf { .. } => "rootfs_elf_invalid",
            Self::TooLarge { .. } => "rootfs_too_large",
            Self::Helper { .. } => "rootfs_helper_failed",
            Self::Uv { .. } => "rootfs_uv_unavailable",
            Self::Digest { .. } => "rootfs_digest_mismatch",
            Self::Architecture { .. } => "rootfs_architecture_unknown",
            Self::OutputExists { .. } => "rootfs_output_exists",
            Self::LayerOrder { .. } | Self::LayerPath { .. } | Self::LayerLength { .. } => {
                "rootfs_layer_invalid"
            }
            Self::Layout { .. } => "rootfs_layout_invalid",
            Self::Executable { .. } => "rootfs_executable_unusable",
            Self::PayloadCut { .. } => "rootfs_payload_cut",
            Self::PayloadAltered { .. } => "rootfs_payload_altered",
            Self::Check { .. } => "rootfs_check_failed",
        }
    }

    /// What a person can do about it, when there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Program { package: Some(package), .. } | Self::Missing { package: Some(package), .. } => {
                Some(format!("on Debian or Ubuntu: apt-get install {package}"))
            }
            Self::Uv { .. } => Some(
                "give uv's path, or install pip (on Debian or Ubuntu: apt-get install python3-pip) and set up its index"
                    .to_owned(),
            ),
            Self::OutputExists { .. } => Some("name another place, or remove it first".to_owned()),
            Self::PayloadCut { .. } | Self::PayloadAltered { .. } => {
                Some("copy the executable anew from where it was built, or embed a bundle again".to_owned())
            }
            _ => None,
        }
    }

    pub(crate) fn stream(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Stream { path, source }
    }
}
