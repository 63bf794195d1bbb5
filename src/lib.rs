//! Pantry: a self-hosted package appliance in one Linux binary.
//!
//! Each module is a part; the floors they stand on are in `docs/architecture.md`.

pub mod access;
pub mod audit;
pub mod blobs;
pub mod callback;
pub mod changes;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod install;
pub mod keys;
pub mod names;
pub mod packs;
pub mod registry;
pub mod repos;
pub mod rootfs;
pub mod runner;
pub mod sandbox;
pub mod server;
pub mod state;
pub mod store;
pub mod trees;
