//! Who has an account.

pub(in crate::server) mod create;
pub(in crate::server) mod delete;
pub(in crate::server) mod list;
pub(in crate::server) mod show;
pub(in crate::server) mod update;
