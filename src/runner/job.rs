//! What a runner is given.

use serde::{Deserialize, Serialize};

use crate::names::{Digest, Nonce, SubmissionId};

/// One attempt at testing one submission.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The submission.
    pub submission: SubmissionId,
    /// The attempt.
    pub nonce: Nonce,
    /// The manifest of the pack to test.
    pub pack: Digest,
    /// The package's components.
    pub components: Vec<TestComponent>,
    /// The package's own test.
    pub test: Option<TestCommand>,
    /// The whole URL to which the result is posted.
    pub callback_url: String,
}

/// A component of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestComponent {
    /// Its type, such as `command`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its file, relative to the application's folder.
    pub path: String,
}

/// A package's own test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestCommand {
    /// The program, looked up on the pack's `PATH`, and its arguments.
    pub argv: Vec<String>,
    /// The time it asks for; it can only shorten what this machine grants.
    pub timeout_seconds: u64,
}
