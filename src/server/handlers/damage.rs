//! Blobs that were found damaged.

pub(in crate::server) mod list;
