//! What the registry has acknowledged survives every loss of power and every failing disk; nothing is half there.
//!
//! A script of requests and chores runs on a disk in memory (`blobs::Disk`) that holds the files and the state alike.
//! At one point its power goes, or the process ends. Then the registry is opened again on what survived: everything
//! after the end of the process, after a loss of power what a seed chooses among everything that was not synced. It
//! is compared with a model of what was acknowledged. `PANTRY_POWER_RUNS=<n>` multiplies the number of runs.
#![allow(clippy::unwrap_used)]

mod chores;
mod costs;
mod failing;
mod model;
mod power;
mod script;
mod world;
