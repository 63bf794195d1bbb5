//! Blobs of a repository.

pub(in crate::server) mod delete;
pub(in crate::server) mod get;
