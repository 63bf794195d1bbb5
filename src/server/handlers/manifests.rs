//! Manifests of a repository.

pub(in crate::server) mod delete;
pub(in crate::server) mod get;
pub(in crate::server) mod put;
