//! What keeps a runner from reporting a verdict.

use crate::packs::PackError;
use crate::sandbox::SandboxError;
use crate::trees::TreeError;

/// Why no verdict was delivered. The change that waits for it tries again, or gives up with this.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunnerError {
    /// The pack can't be read back from its blobs.
    #[error("the pack cannot be read from its blobs")]
    Pack(#[source] PackError),
    /// The pack's layers can't be unpacked.
    #[error("the pack's layers cannot be unpacked")]
    Tree(#[source] TreeError),
    /// A jail could not be set up.
    #[error("the jail of the test {test} could not be run")]
    Jail {
        /// The test.
        test: String,
        /// Why.
        #[source]
        source: SandboxError,
    },
    /// The work was cancelled.
    #[error("testing was cancelled")]
    Cancelled,
    /// The result can't be put into a request.
    #[error("the result cannot be sent to {url}")]
    Request {
        /// Where to.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Nobody answered.
    #[error("{url} did not answer at any of {attempts} attempts")]
    Unreachable {
        /// Where to.
        url: String,
        /// How often it was tried.
        attempts: usize,
        /// What happened at the last.
        #[source]
        source: reqwest::Error,
    },
    /// The server failed each time.
    #[error("{url} answered {status} at the last of {attempts} attempts")]
    ServerFailed {
        /// Where to.
        url: String,
        /// The last answer's status.
        status: u16,
        /// How often it was tried.
        attempts: usize,
    },
    /// The server refused the result.
    #[error("the result was refused with {status} ({code})")]
    Refused {
        /// The answer's status.
        status: u16,
        /// The answer's code, or `unknown`.
        code: String,
    },
}

impl RunnerError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Pack(_) => "runner_pack_unreadable",
            Self::Tree(_) => "runner_pack_not_unpacked",
            Self::Jail { .. } => "runner_jail_failed",
            Self::Cancelled => "cancelled",
            Self::Request { .. } | Self::Unreachable { .. } | Self::ServerFailed { .. } => {
                "runner_callback_undelivered"
            }
            Self::Refused { .. } => "runner_callback_refused",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Pack(source) => source.hint(),
            Self::Tree(source) => source.hint(),
            Self::Jail { source, .. } => source.hint(),
            Self::Cancelled => None,
            Self::Request { .. } | Self::Unreachable { .. } => {
                Some("check that public_url or callback.url leads to this server".to_owned())
            }
            Self::ServerFailed { .. } => Some("the server's log says why it failed".to_owned()),
            Self::Refused { status: 401, .. } => Some(
                "both sides must have the same signing key; see docs/runbooks/key-rotation.md".to_owned(),
            ),
            Self::Refused { .. } => Some("the submission no longer awaits this result".to_owned()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An error of the jail itself.
    pub(in super::super) fn broken_jail() -> SandboxError {
        SandboxError::Setup { step: "a step".to_owned(), errno: 1 }
    }
}
