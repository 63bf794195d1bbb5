//! Reports of runs of upkeep.

pub(in crate::server) mod show;
