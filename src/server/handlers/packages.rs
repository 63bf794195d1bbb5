//! Published packages.

pub(in crate::server) mod list;
pub(in crate::server) mod show;
