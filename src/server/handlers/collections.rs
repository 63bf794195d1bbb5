//! Runs of upkeep: `collections`.

pub(in crate::server) mod create;
