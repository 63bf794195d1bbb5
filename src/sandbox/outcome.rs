//! What comes back from a run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::learn::Learned;
use super::network::Contact;
use super::receipt::Receipt;
use super::ring::Captured;

/// How a run ended, what it printed and left, and what held it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// What is kept of its standard output.
    pub stdout: Captured,
    /// What is kept of its standard error.
    pub stderr: Captured,
    /// Its output directories, in the policy's order.
    pub outputs: Vec<TakenOutput>,
    /// What really held it.
    pub receipt: Receipt,
    /// Whom it asked its proxies for, at most 100; the receipt has a note where there were more.
    pub network: Vec<Contact>,
    /// What it was refused; of learning runs only.
    pub learned: Option<Learned>,
    /// Milliseconds from launch to the end of its last process.
    pub wall_ms: u64,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The main process exited with this code.
    Exited(i32),
    /// The main process was killed by this signal, not by us.
    Signaled(i32),
    /// The wall clock ran out.
    TimedOut,
    /// The caller cancelled.
    Cancelled,
    /// It failed, and had reached this limit.
    LimitHit(Limit),
    /// The system call filter killed it.
    Denied,
}

impl End {
    /// Whether the program succeeded.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }
}

/// A limit that a run can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Bytes of memory.
    Memory,
    /// Processes and threads.
    Processes,
    /// Bytes printed.
    Output,
    /// Files, bytes or depth of an output directory.
    Files,
    /// Processor time.
    Cpu,
}

/// What was copied of an output directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenOutput {
    /// The path inside.
    pub at: PathBuf,
    /// The host directory that took it.
    pub into: PathBuf,
    /// The files, sorted by path.
    pub files: Vec<TakenFile>,
    /// Bytes of all files.
    pub bytes: u64,
    /// What was left out, and why; at most 100 are named.
    pub skipped: Vec<SkippedEntry>,
    /// The cap that ended the copying early, if one did.
    pub over_cap: Option<OutputCap>,
}

/// A file that was copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenFile {
    /// Path below the output directory.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of what was stored, in lowercase hex.
    pub sha256: String,
}

/// An entry that was not copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedEntry {
    /// Path below the output directory, unprintable bytes replaced.
    pub path: String,
    /// Why not.
    pub why: SkipReason,
}

/// Why an entry was not copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// A symbolic link.
    Link,
    /// A device, fifo or socket.
    Special,
    /// Its name is not UTF-8 or has control characters.
    Name,
    /// It could not be read.
    Unreadable,
}

/// A cap on what is copied from an output directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputCap {
    /// Too many files and directories.
    Files,
    /// Too many bytes.
    Bytes,
    /// Too deep.
    Depth,
}

/// The end of a run that had the caller's own streams.
#[derive(Clone, Debug)]
pub struct ExecStatus {
    /// The exit code to pass on: the program's own, or 128 and the signal's number.
    pub code: i32,
    /// How it ended.
    pub end: End,
    /// What really held it.
    pub receipt: Receipt,
    /// What it was refused; of learning runs only.
    pub learned: Option<Learned>,
}
