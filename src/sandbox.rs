//! The jail: takes a policy (data), returns an outcome and a receipt.
//!
//! It knows no other part of Pantry, and must hold against code written to get out.
//!
//! Invariants:
//! - The caller (threads, runtime) never forks itself into a jail. It starts its own executable as a small
//!   single-threaded helper, recognised by [`jail_entry`] before anything else happens.
//! - A user namespace is always made, also for root.
//! - Every process of a run is dead before its output is touched.
//! - A limit that isn't enforced is said in the receipt, never assumed.
//! - A failed set-up is never mistaken for the program's exit code: they come over different messages, and the
//!   program has no descriptor of ours.
//! - A learning run lets nothing through that an ordinary one would refuse.
//! - After a run nothing is left: no process, thread, mount, control group, namespace, temporary file.
//!
//! From the outside in: `engine` (the door's functions) → `run` (one run seen from the caller) → `helper` (between) →
//! `init` (pid 1 inside, builds the `world`, watches) → `payload` (the last steps before the program).

mod cancel;
mod cgroup;
mod collect;
mod doctor;
mod engine;
mod error;
mod filter;
mod grant;
mod guarded;
mod helper;
mod host;
mod init;
mod kept;
mod landlock;
mod learn;
mod network;
mod outcome;
mod payload;
mod policy;
mod receipt;
mod record;
mod ring;
mod run;
mod streams;
#[allow(unsafe_code)]
mod sys;
mod terminal;
mod validate;
mod watchdog;
mod wire;
mod words;
mod world;

pub use cancel::Cancel;
pub use collect::take_output;
pub use doctor::{Finding, Verdict};
pub use engine::{ExecOptions, Sandbox, Swept, exec, exec_with, terminal_kind};
pub use error::SandboxError;
pub use grant::{Capability, Grant};
pub use learn::{AddressRefusal, Learned, PathRefusal, RefusedAddress, RefusedCall, RefusedPath};
pub use network::{
    AllowedHost, Contact, ContactVerdict, HostPattern, Outside, Plug, Serve, Server, ServiceAddress, Upstream,
};
pub use outcome::{
    End, ExecStatus, Limit, Outcome, OutputCap, SkipReason, SkippedEntry, TakenFile, TakenOutput,
};
pub use policy::{
    DEFAULT_ID, DataMount, Identity, Input, Limits, Network, OutputDir, Policy, Require, SeccompProfile,
    Stdio, Tmpfs,
};
pub use receipt::{Enforced, EnforcedLimits, Enforcement, Features, OwnExecutable, Receipt, RootKind};
pub use ring::Captured;
pub use streams::StdinBytes;

/// Takes over when this process was started as the helper or the init of a jail; then it never returns.
///
/// Call it as the first statement of `main`: before a thread, a runtime or an argument parser exists.
pub fn jail_entry() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != "__jail") {
        return;
    }
    match (arguments.next(), arguments.next()) {
        (Some(stage), Some(how)) if stage == "init" => {
            let how = if how == "copy" { OwnExecutable::SealedCopy } else { OwnExecutable::ReadOnlyMount };
            init::run(how, None)
        }
        // Of which each run gets a copy; see `kept`.
        (Some(stage), None) if stage == "keep" => helper::keep(),
        // What an empty job runs; see `doctor`.
        (Some(stage), None) if stage == "nothing" => sys::exit(0),
        _ => helper::run(),
    }
}

/// Keeps the C library from loading modules of the host's name service into this static binary.
///
/// Call it in `main` before any thread exists; it stands here because it needs a call for which there is no safe
/// wrapper, and those live in this part alone.
pub fn settle_name_service() {
    sys::settle_name_service();
}

/// Makes the allocator give memory back to the system when a burst of work is over.
///
/// Call it in `main` before any thread exists; it stands here for the same reason.
pub fn settle_memory() {
    sys::settle_memory();
}
