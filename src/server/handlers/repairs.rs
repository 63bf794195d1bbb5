//! Runs of upkeep: `repairs`.

pub(in crate::server) mod create;
