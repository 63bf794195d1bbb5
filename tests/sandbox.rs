//! Jails made with the real binary: every case as the caller and, when that is root, once more without root.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "sandbox/bench.rs"]
#[allow(dead_code)]
mod bench;
#[path = "sandbox/cgroup2.rs"]
mod cgroup2;
#[path = "sandbox/ending.rs"]
mod ending;
#[path = "sandbox/executing.rs"]
mod executing;
#[path = "sandbox/grants.rs"]
mod grants;
#[path = "sandbox/hosts.rs"]
mod hosts;
#[path = "sandbox/kept.rs"]
mod kept;
#[path = "sandbox/landlock.rs"]
mod landlock;
#[path = "sandbox/launch.rs"]
mod launch;
#[path = "sandbox/learning.rs"]
mod learning;
#[path = "sandbox/leftovers.rs"]
mod leftovers;
#[path = "sandbox/limits.rs"]
mod limits;
#[path = "sandbox/network.rs"]
mod network;
#[path = "sandbox/procfs.rs"]
mod procfs;
#[path = "sandbox/terminal.rs"]
mod terminal;
