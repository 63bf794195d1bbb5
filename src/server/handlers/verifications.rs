//! Runs of upkeep: `verifications`.

pub(in crate::server) mod create;
