//! Why an installation is refused or fails.

use std::path::PathBuf;

use crate::blobs::BlobError;
use crate::changes::{ChangeError, TaskFailure};
use crate::names::{ChangeId, CommandName, Digest, PackId};
use crate::packs::PackError;
use crate::state::StateError;
use crate::trees::TreeError;

/// What a caller is told when no change could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InstallRefusal {
    /// The stable code.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The change that is in the way.
    pub conflict: Option<String>,
}

/// Why an installation or a removal is refused, or fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The caller has no right to install.
    #[error("{who} may not install or remove packages")]
    Forbidden {
        /// Who asked.
        who: String,
    },
    /// Another change works on the package, or on one of its commands.
    #[error("another change is under way for {what}: {holder}")]
    Busy {
        /// The package or command.
        what: String,
        /// The change.
        holder: ChangeId,
    },
    /// Nothing of that name is installed.
    #[error("`{0}` is not installed")]
    NotInstalled(String),
    /// More than one package of that name is installed.
    #[error("`{name}` is installed from more than one publisher: {}", .publishers.join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Who publishes them.
        publishers: Vec<String>,
    },
    /// The pack says that it is another one.
    #[error("{digest} is {found}, not {wanted}")]
    OtherPack {
        /// The manifest.
        digest: Digest,
        /// What it says it is.
        found: String,
        /// The package and version that were asked for.
        wanted: String,
    },
    /// The pack is for other machines.
    #[error("{id} is for {found}, and this machine is {ours}")]
    Platform {
        /// The package.
        id: PackId,
        /// Its platform.
        found: String,
        /// That of this machine.
        ours: String,
    },
    /// The pack asks for what can't be granted.
    #[error("{id} asks for the capability `{capability}`, which can't be granted")]
    Capability {
        /// The package.
        id: PackId,
        /// What it asks for.
        capability: String,
    },
    /// Another pack has the command.
    #[error("the command `{command}` belongs to {owner}")]
    CommandConflict {
        /// The command.
        command: CommandName,
        /// The pack that has it.
        owner: PackId,
    },
    /// A file that is no wrapper of ours has the command's name.
    #[error("{path} is in the way: it is no wrapper")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The bytes of a blob are gone.
    #[error("{0} is not stored here")]
    BlobMissing(Digest),
    /// The bytes of a blob are damaged.
    #[error("the bytes of {expected} are damaged: their digest is {found}")]
    BlobDamaged {
        /// Its name.
        expected: Digest,
        /// What its bytes hash to.
        found: Digest,
    },
    /// No `#!` line can name this program.
    #[error("no wrapper can start {path}: {why}")]
    Interpreter {
        /// Our own program.
        path: PathBuf,
        /// Which rule of the kernel stands against it.
        why: &'static str,
    },
    /// The pack can't be read.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// It can't be unpacked.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The store of bytes failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The state failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The engine of changes failed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A file operation failed; the source names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A thread ended without a result.
    #[error("the work was interrupted")]
    Interrupted,
}

impl InstallError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "forbidden",
            Self::Busy { .. } => "change_in_progress",
            Self::NotInstalled(_) => "not_installed",
            Self::Ambiguous { .. } => "ambiguous_name",
            Self::OtherPack { .. } => "pack_mismatch",
            Self::Platform { .. } => "platform_not_supported",
            Self::Capability { .. } => "capability_not_supported",
            Self::CommandConflict { .. } => "command_conflict",
            Self::Foreign { .. } => "wrapper_in_the_way",
            Self::BlobMissing(_) => "blob_missing",
            Self::BlobDamaged { .. } => "digest_mismatch",
            Self::Interpreter { .. } => "wrapper_impossible",
            Self::Pack(error) => error.code(),
            Self::Tree(error) => error.code(),
            Self::Blob(error) => error.code(),
            Self::State(error) => error.code(),
            Self::Change(error) => error.code(),
            Self::Io(error) => match error.kind() {
                std::io::ErrorKind::StorageFull => "disk_full",
                std::io::ErrorKind::PermissionDenied => "permission_denied",
                _ => "install_io",
            },
            Self::Interrupted => "interrupted",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Forbidden { .. } => "ask over the local socket as root or a member of the group `pantry`",
            Self::Busy { holder, .. } => return Some(format!("wait for it: pantry change {holder}")),
            Self::NotInstalled(_) => "`pantry list` shows what is installed",
            Self::Ambiguous { .. } => "name it as <publisher>/<name>",
            Self::CommandConflict { owner, .. } => {
                return Some(format!("remove it first: pantry remove {owner}"));
            }
            Self::Foreign { .. } => "move it away; only wrappers belong there",
            Self::BlobMissing(_) | Self::BlobDamaged { .. } => "submit the package again",
            Self::Interpreter { .. } => "put the pantry program and the root at short paths without spaces",
            Self::Pack(error) => return error.hint(),
            Self::Tree(error) => return error.hint(),
            Self::State(error) => return error.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Whether the same thing may work later without anybody doing anything.
    fn passes(&self) -> bool {
        matches!(self, Self::Interrupted)
            || matches!(self, Self::Io(error) if error.kind() == std::io::ErrorKind::Interrupted)
    }
}

impl From<InstallError> for InstallRefusal {
    fn from(error: InstallError) -> Self {
        let conflict = match &error {
            InstallError::Busy { holder, .. } => Some(holder.to_string()),
            _ => None,
        };
        Self { code: error.code().to_owned(), message: error.to_string(), hint: error.hint(), conflict }
    }
}

impl From<InstallError> for TaskFailure {
    fn from(error: InstallError) -> Self {
        if let InstallError::State(error) = error {
            return error.into();
        }
        Self {
            code: error.code().to_owned(),
            message: error.to_string(),
            hint: error.hint(),
            retry: error.passes(),
        }
    }
}
