//! Tags of a repository.

pub(in crate::server) mod list;
