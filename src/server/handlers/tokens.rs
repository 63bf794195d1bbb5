//! API tokens.

pub(in crate::server) mod create;
pub(in crate::server) mod delete;
pub(in crate::server) mod list;
