//! What the registry has acknowledged survives every loss of power and every failing disk; nothing is half there.
//!
//! A script of requests runs on a disk in memory (`blobs::Disk`) that holds the files and the state alike. At one
//! point its power goes. Then the registry is opened again on what survived, which a seed chooses among everything
//! that was not synced, and is compared with a model of what was acknowledged. `PANTRY_POWER_RUNS=<n>` multiplies
//! the number of runs.
#![allow(clippy::unwrap_used)]

mod failing;
mod model;
mod power;
mod script;
mod world;
