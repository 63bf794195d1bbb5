//! The configuration: flags, environment, `pantry.yaml` and defaults become one typed, validated [`Config`].
//!
//! It also owns [`Secret`], the value that never prints, and how a secret is kept in a file of ours.
//!
//! This part must never read the process environment (it is passed in), guess a value, or let a secret reach a
//! message.
//!
//! Invariants:
//! - every key is in one table (`config/settings.rs`), from which file keys, environment names, defaults and the list with
//!   provenance are made, so that they can't drift apart;
//! - an unknown key in the file is an error; a value that doesn't parse is an error; an empty environment variable
//!   counts as unset;
//! - [`load`] accepts what is well formed, [`guard`] refuses what must not be started.

mod error;
mod file;
mod guard;
mod load;
mod model;
mod nearest;
mod secret;
mod settings;
mod sources;
mod values;

pub use error::ConfigError;
pub use guard::guard;
pub use load::{Flags, Loaded, default_root, load};
pub use model::{
    AcmeConfig, AuthMode, BundleConfig, CallbackConfig, Config, LimitsConfig, LogConfig, RegistryConfig,
    RunnerConfig, RunnerKind, SandboxConfig, StorageConfig, StoreConfig, TlsConfig, TlsMode,
};
pub use secret::{MIN_KEY_BYTES, Secret, SecretFileError};
