//! Figures for a monitoring system.

pub(in crate::server) mod show;
