//! Why a task failed, and why a question about changes could not be answered.

use serde::{Deserialize, Serialize};

use crate::names::ChangeId;
use crate::state::StateError;

/// Why a task failed. `code` is stable and shown to people; a change with a failed task is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct TaskFailure {
    /// The stable code.
    pub code: String,
    /// What went wrong, as a sentence.
    pub message: String,
    /// What the reader can do about it.
    pub hint: Option<String>,
    /// Whether the cause is not in the task's input: it runs again, a bounded number of times, before the change fails.
    pub retry: bool,
}

impl TaskFailure {
    /// A failure that is not tried again.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), hint: None, retry: false }
    }

    /// The same failure with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure, to be tried again with back-off.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retry = true;
        self
    }
}

impl From<StateError> for TaskFailure {
    fn from(error: StateError) -> Self {
        // A value that is too large or not readable stays so; a disk may recover.
        let retry = matches!(
            error,
            StateError::Closed
                | StateError::Failed
                | StateError::Io { .. }
                | StateError::Storage { .. }
                | StateError::Commit { .. }
        );
        Self { code: error.code().to_owned(), message: error.to_string(), hint: error.hint(), retry }
    }
}

/// Why a question about changes could not be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The state could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no such change, or it ended too long ago.
    #[error("change {0} is unknown")]
    Unknown(ChangeId),
    /// The engine stopped before the change had ended.
    #[error("the engine stopped while change {0} was unfinished")]
    Stopped(ChangeId),
    /// The log of an ended change is not among the blobs.
    #[error("the log of change {id} can't be read")]
    Log {
        /// The change.
        id: ChangeId,
        /// What the store of bytes says.
        #[source]
        source: crate::blobs::BlobError,
    },
    /// The log of a running change can't be read.
    #[error("the log of change {id} can't be read")]
    LiveLog {
        /// The change.
        id: ChangeId,
        /// What the file system says, with the path.
        #[source]
        source: std::io::Error,
    },
}

impl ChangeError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::State(error) => error.code(),
            Self::Unknown(_) => "change_unknown",
            Self::Stopped(_) => "change_engine_stopped",
            Self::Log { .. } | Self::LiveLog { .. } => "change_log_unreadable",
        }
    }

    /// What the reader can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::State(error) => return error.hint(),
            Self::Unknown(_) => "`pantry changes` lists those that are kept",
            Self::Stopped(_) => "it goes on when the daemon runs again",
            Self::Log { .. } | Self::LiveLog { .. } => "the daemon's own log says more",
        };
        Some(text.to_owned())
    }
}
