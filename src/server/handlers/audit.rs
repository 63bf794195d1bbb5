//! The audit log.

pub(in crate::server) mod list;
