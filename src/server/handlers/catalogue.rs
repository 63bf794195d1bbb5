//! The list of repositories.

pub(in crate::server) mod list;
