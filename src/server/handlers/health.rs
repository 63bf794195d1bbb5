//! Whether this server is well.

pub(in crate::server) mod show;
