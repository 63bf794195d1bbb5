//! Long work.

pub(in crate::server) mod abort;
pub(in crate::server) mod begun;
pub(in crate::server) mod list;
pub(in crate::server) mod show;
