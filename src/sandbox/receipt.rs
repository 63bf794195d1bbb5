//! The receipt: which limits were really enforced, by what, on which kernel.

use serde::{Deserialize, Serialize};

use super::grant::Grant;

/// What enforces a limit, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// Nothing does.
    None,
    /// A resource limit of each process.
    Rlimit,
    /// Sampling by the jail's own init or by the caller, which ends the run.
    Watchdog,
    /// A controller of cgroup version 1.
    Cgroup1,
    /// A controller of cgroup version 2.
    Cgroup2,
}

impl std::fmt::Display for Enforcement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Rlimit => "rlimit",
            Self::Watchdog => "watchdog",
            Self::Cgroup1 => "cgroup1",
            Self::Cgroup2 => "cgroup2",
        })
    }
}

/// A limit and what enforced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforced {
    /// The value, in the unit of the policy's field.
    pub limit: u64,
    /// What enforced it.
    pub enforced_by: Enforcement,
}

/// Every limit of a run with what enforced it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnforcedLimits {
    /// Bytes of memory.
    pub memory: Enforced,
    /// Processes and threads.
    pub processes: Enforced,
    /// Hundredths of one CPU. By the watchdog it is a budget over the whole wall clock, not a rate.
    pub cpu: Enforced,
    /// Milliseconds.
    pub wall: Enforced,
    /// Open files of a process.
    pub open_files: Enforced,
    /// Bytes of a file.
    pub file_size: Enforced,
    /// Bytes printed.
    pub output: Enforced,
}

/// The kernel features that a run used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // each is one kernel feature, there or not
pub struct Features {
    /// A user namespace of its own.
    pub user_namespace: bool,
    /// A network namespace of its own.
    pub network_namespace: bool,
    /// The system call filter.
    pub seccomp: bool,
    /// Landlock's ABI as it was used, which the jail itself told; none where the kernel has no Landlock, or none that
    /// can be used (before Linux 5.19).
    pub landlock_abi: Option<u32>,
    /// Whether a session keyring of its own could be made (without one keys are still out of reach: the calls are
    /// denied).
    pub session_keyring: bool,
    /// How our own executable was protected; none if the run was cancelled before its program began.
    pub own_executable: Option<OwnExecutable>,
    /// How the root was made; none if the run was cancelled before its program began.
    pub root: Option<RootKind>,
}

/// How our own executable is kept from being written through `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnExecutable {
    /// Executed from a detached read-only mount.
    ReadOnlyMount,
    /// Executed from a sealed copy in memory.
    SealedCopy,
}

/// How the root of a jail was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootKind {
    /// A read-only clone of one directory.
    Clone,
    /// A read-only overlay.
    Overlay,
    /// An empty tmpfs with mount points only.
    Tmpfs,
}

/// What a run was really held by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Each limit with what enforced it.
    pub limits: EnforcedLimits,
    /// Release of the running kernel.
    pub kernel: String,
    /// Whether the sandbox was started by root.
    pub root_mode: bool,
    /// The kernel features used.
    pub features: Features,
    /// Whether `chown` and its like answered 0 without acting.
    pub ownership_emulated: bool,
    /// What was granted by name.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// The most memory used at a time, where something measured it.
    pub peak_memory_bytes: Option<u64>,
    /// The outside user id of the program.
    pub host_uid: u32,
    /// What else there is to know of how it was held: what a limit does not count, why it ended early.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What sampling can't see: said in every receipt of a run whose memory was watched that way.
const NOT_COUNTED: &str = "memory was sampled: a burst between two samples, scratch files (which have caps of their own) \
and records that the kernel keeps (locks, mappings, file tables) are not counted";

const LEARNING: &str = "a learning run: what the filter refuses was reported and then refused as in any other, which takes \
more time; nothing may rest on such a run";

/// The notes of a run.
pub(crate) fn notes(
    limits: &EnforcedLimits,
    init_lost: bool,
    contacts_left_out: u64,
    learning: bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    if limits.memory.enforced_by == Enforcement::Watchdog {
        notes.push(NOT_COUNTED.to_owned());
    }
    if init_lost {
        notes.push(
            "the jail's init ended after the program had begun, and everything inside with it".to_owned(),
        );
    }
    if contacts_left_out > 0 {
        notes.push(format!("{contacts_left_out} attempts to reach further hosts are not listed"));
    }
    if learning {
        notes.push(LEARNING.to_owned());
    }
    notes
}
