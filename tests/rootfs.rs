//! The bundle from outside: assembled from this machine's programs, checked with planted faults, embedded and damaged.
//!
//! uv is stood in for by another ELF program, so no test needs a package index.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "rootfs/bench.rs"]
mod bench;
#[path = "rootfs/embedding.rs"]
mod embedding;
#[path = "rootfs/faults.rs"]
mod faults;
#[path = "rootfs/inside.rs"]
mod inside;
#[path = "rootfs/making.rs"]
mod making;
