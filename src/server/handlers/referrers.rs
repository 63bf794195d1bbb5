//! What refers to a manifest.

pub(in crate::server) mod list;
