//! The calls for which neither rustix nor nix has a safe wrapper.
//!
//! This folder is the only place of the crate with `unsafe`. Every function here takes and returns owned or
//! borrowed descriptors and plain values, so that callers need no `unsafe` of their own.

mod filter;
mod memory;
mod mount;
mod name_service;
mod notify;
mod process;

pub(crate) use filter::{Insn, load_filter};
pub(crate) use memory::settle_memory;
pub(crate) use mount::{ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, make_private, set_mount_attr};
pub(crate) use name_service::settle_name_service;
pub(crate) use notify::{
    Answer, Notified, answer_report, load_reporting_filter, receive_report, reports_fit, still_waits,
};
pub(crate) use process::{
    Cloned, close_from, default_signals, exit, fork_single_threaded, join_new_session_keyring,
    new_cgroup_namespace, place, same_memory, spawn_in_namespaces, spawn_sibling, take_inherited,
};
