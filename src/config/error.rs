//! What can be wrong with a configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::model::TlsMode;
use super::secret::{MIN_KEY_BYTES, SecretFileError};

/// What is wrong with the configuration; never carries the value of a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file that was named can't be read.
    #[error("the configuration file {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("the configuration file {} is larger than {cap} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        cap: u64,
    },
    /// The file isn't YAML of the expected shape.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1; 0 when the parser names none.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What the parser says.
        message: String,
    },
    /// The file has a key that no setting has.
    #[error("{}:{line}:{column}: the key `{key}` is unknown{}", path.display(), meant(nearest.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// The key with its section.
        key: String,
        /// The known key that is nearest.
        nearest: Option<String>,
    },
    /// A value isn't what the setting takes.
    #[error("{origin}: `{key}` must be {expected}{}", given.as_ref().map(|given| format!(", not {given:?}")).unwrap_or_default())]
    Value {
        /// The setting.
        key: &'static str,
        /// The flag, variable, or file with line, that gave it.
        origin: String,
        /// What was given; `None` for secrets.
        given: Option<String>,
        /// What is expected.
        expected: String,
    },
    /// The name of the runner is none that exists.
    #[error("{origin}: the runner {given:?} is unknown; allowed are `embedded` and `github_actions`")]
    UnknownRunner {
        /// The flag, variable, or file with line, that gave it.
        origin: String,
        /// What was given.
        given: String,
    },
    /// Two variables give one setting different values.
    #[error("{first} and {second} both set `{key}`")]
    Conflict {
        /// The setting.
        key: &'static str,
        /// One variable.
        first: String,
        /// The other.
        second: String,
    },
    /// A file that holds a secret can't be used.
    #[error("{origin} names a file for `{key}` that cannot be used")]
    SecretFile {
        /// The setting.
        key: &'static str,
        /// The variable that named the file.
        origin: String,
        /// Why.
        #[source]
        source: SecretFileError,
    },
    /// The file below the root names another root.
    #[error("{} is found through the root and can't name another one", path.display())]
    RootInRootFile {
        /// The file.
        path: PathBuf,
    },
    /// Everybody would be let in from outside.
    #[error("auth.mode `none` is allowed on loopback only, and the server listens on {listen}")]
    OpenToAll {
        /// The address.
        listen: SocketAddr,
    },
    /// The mode of TLS lacks something.
    #[error("tls.mode `{}` needs `{key}`", mode.as_str())]
    TlsIncomplete {
        /// The mode.
        mode: TlsMode,
        /// The setting that is missing.
        key: &'static str,
    },
    /// A setting of another mode of TLS is given, and would not be used.
    #[error("`{key}` is set, and tls.mode `{}` does not use it", mode.as_str())]
    TlsUnused {
        /// The mode.
        mode: TlsMode,
        /// The setting.
        key: &'static str,
        /// The mode that uses it.
        of: TlsMode,
    },
    /// A signing key is too short to be one.
    #[error("{variable} has {found} bytes; a signing key needs {MIN_KEY_BYTES} at least")]
    ShortKey {
        /// The variable of the key.
        variable: &'static str,
        /// Its length in bytes.
        found: usize,
    },
    /// A previous key without a current one.
    #[error("PANTRY_CALLBACK_SIGNING_KEY_PREVIOUS is set, and PANTRY_CALLBACK_SIGNING_KEY is not")]
    PreviousKeyAlone,
    /// The dispatched runner lacks something.
    #[error("the runner `github_actions` needs {what}: {variable} is not set")]
    RunnerIncomplete {
        /// The variable to set.
        variable: &'static str,
        /// What it holds.
        what: &'static str,
    },
    /// A dispatched runner could not reach the callback URL.
    #[error("the runner `github_actions` can't reach {url}, which is an address of this machine only")]
    CallbackNotPublic {
        /// The URL.
        url: String,
    },
    /// The dispatched runner is fully configured, and this version can't dispatch.
    #[error("this version of Pantry tests submissions itself; the runner `github_actions` is not part of it")]
    RunnerNotAvailable,
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default()
}

impl ConfigError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } | Self::TooLarge { .. } => "config_unreadable",
            Self::Syntax { .. } => "config_syntax",
            Self::UnknownKey { .. } => "config_unknown_key",
            Self::Value { .. } => "config_invalid_value",
            Self::UnknownRunner { .. } => "runner_unknown",
            Self::Conflict { .. } | Self::RootInRootFile { .. } => "config_conflict",
            Self::SecretFile { .. } => "config_secret_unreadable",
            Self::OpenToAll { .. } => "auth_none_not_on_loopback",
            Self::TlsIncomplete { .. } => "tls_not_configured",
            Self::TlsUnused { .. } => "tls_setting_unused",
            Self::ShortKey { .. } => "callback_key_too_short",
            Self::PreviousKeyAlone => "callback_key_missing",
            Self::RunnerIncomplete { .. } | Self::CallbackNotPublic { .. } => "runner_not_configured",
            Self::RunnerNotAvailable => "runner_not_available",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreadable { .. } => {
                "check the path given by --config or PANTRY_CONFIG, and that this user may read it".into()
            }
            Self::TooLarge { .. } => "a configuration is a few lines; is this the right file?".into(),
            Self::Syntax { .. } => {
                "each section is a mapping, each value a scalar; indent with spaces".into()
            }
            Self::UnknownKey { key, .. } => {
                format!("correct or remove `{key}`; docs/operations lists every key")
            }
            Self::Value { key, .. } => format!("correct `{key}`, or remove it to take the default"),
            Self::UnknownRunner { .. } => "use `embedded` to test submissions on this machine".into(),
            Self::Conflict { first, second, .. } => format!("unset {first} or {second}"),
            Self::RootInRootFile { .. } => "give the root by --root or PANTRY_ROOT".into(),
            Self::SecretFile { .. } => {
                "the file must exist, be readable by this user and hold one line".into()
            }
            Self::OpenToAll { .. } => {
                "set auth.mode to `token` (PANTRY_AUTH_MODE=token), or listen on 127.0.0.1".into()
            }
            Self::TlsIncomplete { key, .. } => {
                format!("set `{key}`, or choose another tls.mode; docs/operations/tls.md describes them")
            }
            Self::TlsUnused { key, of, .. } => {
                format!("remove `{key}`, or set tls.mode to `{}`", of.as_str())
            }
            Self::ShortKey { variable, .. } => {
                format!("make one with `openssl rand -base64 32` and put it into {variable} on both sides")
            }
            Self::PreviousKeyAlone => {
                "set the current key too; the previous one only bridges a change".into()
            }
            Self::RunnerIncomplete { variable, .. } => {
                format!("set {variable}, or use PANTRY_CONTAINER_RUNNER=embedded")
            }
            Self::CallbackNotPublic { .. } => {
                "set PANTRY_PUBLIC_URL (or PANTRY_CALLBACK_URL) to an address that the runner reaches".into()
            }
            Self::RunnerNotAvailable => "set PANTRY_CONTAINER_RUNNER=embedded, or unset it".into(),
        })
    }
}
