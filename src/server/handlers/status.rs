//! What this server is.

pub(in crate::server) mod show;
