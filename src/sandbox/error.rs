//! What can go wrong before, around and after a run. What the program itself does is no error: see `End`.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::outcome::End;

/// Why a run could not be made, or its result not be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// A step of the set-up failed, before the program was started.
    #[error("the jail could not be set up: {step}: {}", describe(*errno))]
    Setup {
        /// The step, in words.
        step: String,
        /// The kernel's error number; 0 where there is none.
        errno: i32,
    },
    /// The policy asks for what it may not have.
    #[error("the policy was refused: {what}: {why}")]
    Refused {
        /// The field or value.
        what: String,
        /// What is wrong with it.
        why: String,
        /// How to mend it.
        hint: String,
    },
    /// The host lacks something without which there is no jail.
    #[error("this host can't make a jail: {what}")]
    Unsupported {
        /// What is missing.
        what: String,
        /// The setting to change, or what else to do.
        hint: String,
    },
    /// The run of a probe ended otherwise than with 0.
    #[error("the probe did not succeed: it {}", end.in_words(None))]
    Probe {
        /// How it ended.
        end: End,
    },
    /// The output of a run could not be stored.
    #[error("the output of the run could not be stored in {}", into.display())]
    Output {
        /// The host directory that was to take it.
        into: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A call of the caller's side failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn describe(errno: i32) -> String {
    if errno == 0 {
        "it ended without a word".to_owned()
    } else {
        io::Error::from_raw_os_error(errno).to_string()
    }
}

impl SandboxError {
    /// The stable code of this kind of error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Setup { .. } => "sandbox_setup_failed",
            Self::Refused { .. } => "sandbox_policy_refused",
            Self::Unsupported { .. } => "sandbox_unsupported",
            Self::Probe { .. } => "sandbox_probe_failed",
            Self::Output { .. } => "sandbox_output_failed",
            Self::Io { .. } => "sandbox_io",
        }
    }

    /// What the person can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } | Self::Unsupported { hint, .. } => Some(hint.clone()),
            Self::Setup { errno, .. } if *errno == nix::libc::ENOENT => {
                Some("check that the root, its program and every input exist".to_owned())
            }
            Self::Setup { errno, .. } if *errno == nix::libc::EACCES => {
                Some("as root the trees of a jail must be readable by everybody".to_owned())
            }
            _ => None,
        }
    }

    pub(crate) fn refused(what: impl Into<String>, why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), why: why.into(), hint: hint.into() }
    }
}

/// Names what was being done when a call failed.
pub(crate) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, SandboxError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str) -> Result<T, SandboxError> {
        self.map_err(|source| SandboxError::Io { doing, source: source.into() })
    }
}

/// A failed step inside the helper: what travels over the status socket.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Fault {
    pub(crate) step: String,
    pub(crate) errno: i32,
}

/// Names the step of a failed call in the helper.
pub(crate) trait Step<T> {
    fn step(self, step: &str) -> Result<T, Fault>;
    fn step_at(self, step: &str, path: &std::path::Path) -> Result<T, Fault>;
}

impl<T> Step<T> for Result<T, rustix::io::Errno> {
    fn step(self, step: &str) -> Result<T, Fault> {
        self.map_err(|errno| Fault { step: step.to_owned(), errno: errno.raw_os_error() })
    }

    fn step_at(self, step: &str, path: &std::path::Path) -> Result<T, Fault> {
        self.map_err(|errno| Fault {
            step: format!("{step} {}", path.display()),
            errno: errno.raw_os_error(),
        })
    }
}

impl<T> Step<T> for nix::Result<T> {
    fn step(self, step: &str) -> Result<T, Fault> {
        self.map_err(|errno| Fault { step: step.to_owned(), errno: errno as i32 })
    }

    fn step_at(self, step: &str, path: &std::path::Path) -> Result<T, Fault> {
        self.map_err(|errno| Fault { step: format!("{step} {}", path.display()), errno: errno as i32 })
    }
}
