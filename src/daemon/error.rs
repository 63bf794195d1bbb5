//! Why a daemon does not start or has to end.

use std::path::PathBuf;

/// What keeps the daemon from starting, or ended it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The root folder belongs to another user.
    #[error("{} belongs to user id {owner}, and this is user id {ours}", root.display())]
    RootNotOurs {
        /// The root folder.
        root: PathBuf,
        /// Its owner.
        owner: u32,
        /// The effective user id of this process.
        ours: u32,
    },
    /// Others may write the root folder, and so replace everything in it.
    #[error("{} can be written by others (mode {mode:o})", root.display())]
    RootWritable {
        /// The root folder.
        root: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Something else is in the place of a folder of the root.
    #[error("{} is not a folder of ours", path.display())]
    NotOurFolder {
        /// The path.
        path: PathBuf,
    },
    /// Another process serves this root.
    #[error("{} is in use by another Pantry", root.display())]
    RootInUse {
        /// The root folder.
        root: PathBuf,
    },
    /// The root cannot be made or read.
    #[error("cannot prepare the root folder: {0}")]
    Root(#[from] std::io::Error),
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The state file cannot be opened.
    #[error(transparent)]
    State(#[from] crate::state::StateError),
    /// The blob store cannot be opened.
    #[error(transparent)]
    Blobs(#[from] crate::blobs::BlobError),
    /// A key cannot be read or made.
    #[error(transparent)]
    Keys(#[from] crate::keys::KeyError),
    /// The access files cannot be read or made.
    #[error(transparent)]
    Access(#[from] crate::access::AccessError),
    /// The jail cannot be prepared.
    #[error(transparent)]
    Sandbox(#[from] crate::sandbox::SandboxError),
    /// The bundle is damaged or cannot be made.
    #[error(transparent)]
    Rootfs(#[from] crate::rootfs::RootfsError),
    /// The bundle cannot be unpacked.
    #[error(transparent)]
    Trees(#[from] crate::trees::TreeError),
    /// The bundle's image cannot be put into the registry.
    #[error(transparent)]
    Packs(#[from] crate::packs::PackError),
    /// Installed packs cannot be recovered.
    #[error("cannot recover the installed packs: {0}")]
    Install(#[from] crate::install::InstallError),
    /// The changes of the last run cannot be read.
    #[error(transparent)]
    Changes(#[from] crate::changes::ChangeError),
    /// The server cannot bind or failed.
    #[error(transparent)]
    Server(#[from] crate::server::ServerError),
    /// A digest that the bundle names is malformed.
    #[error("the bundle names a malformed digest: {0}")]
    BundleDigest(#[from] crate::names::NameError),
    /// A task of start-up ended without an answer.
    #[error("a start-up task was lost: {0}")]
    Lost(#[from] tokio::task::JoinError),
}

impl DaemonError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::RootNotOurs { .. } => "root_not_ours",
            Self::RootWritable { .. } => "root_writable",
            Self::NotOurFolder { .. } => "root_folder_not_ours",
            Self::RootInUse { .. } => "root_in_use",
            Self::Root(_) => "root_not_usable",
            Self::Config(error) => error.code(),
            Self::State(error) => error.code(),
            Self::Blobs(error) => error.code(),
            Self::Keys(error) => error.code(),
            Self::Access(error) => error.code(),
            Self::Sandbox(error) => error.code(),
            Self::Rootfs(error) => error.code(),
            Self::Trees(error) => error.code(),
            Self::Packs(error) => error.code(),
            Self::Install(error) => error.code(),
            Self::Changes(error) => error.code(),
            Self::Server(error) => error.code(),
            Self::BundleDigest(_) => "bundle_damaged",
            Self::Lost(_) => "internal_error",
        }
    }

    /// What to do about it, where that can be said.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::RootNotOurs { root, .. } => {
                Some(format!("run as the owner of {}, or choose another folder by --root", root.display()))
            }
            Self::RootInUse { .. } => Some(
                "stop the other one, talk to it with the same --root, or choose another --root".to_owned(),
            ),
            Self::Config(error) => error.hint(),
            Self::Keys(error) => error.hint(),
            Self::State(error) => error.hint(),
            Self::Sandbox(error) => error.hint(),
            Self::Rootfs(error) => error.hint(),
            Self::Trees(error) => error.hint(),
            Self::Packs(error) => error.hint(),
            Self::Server(error) => error.hint(),
            _ => None,
        }
    }
}
