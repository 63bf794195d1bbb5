//! Submissions of packages.

pub(in crate::server) mod container_result;
pub(in crate::server) mod create;
pub(in crate::server) mod events;
pub(in crate::server) mod list;
pub(in crate::server) mod show;
