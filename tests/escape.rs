//! Ways out of the jail, each tried from inside after a positive control outside: as the caller and, when that is root,
//! once more without root. `docs/security.md` names the tests by threat.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "sandbox/bench.rs"]
#[allow(dead_code)]
mod bench;
#[path = "escape/bombs.rs"]
mod bombs;
#[path = "escape/denied.rs"]
mod denied;
#[path = "escape/files.rs"]
mod files;
#[path = "escape/network.rs"]
mod network;
#[path = "escape/outputs.rs"]
mod outputs;
#[path = "escape/processes.rs"]
mod processes;
#[cfg(target_arch = "x86_64")]
#[path = "escape/sweep.rs"]
mod sweep;
#[path = "escape/terminal.rs"]
mod terminal;
#[path = "escape/threats.rs"]
mod threats;
