//! Drives the real binary from outside: over HTTP, by command line, with real clients.
//!
//! A test here may use public interfaces only. All of them share one bundle, named by `PANTRY_TEST_BUNDLE`
//! (`make test` makes it); each server they start has a root and a port of its own and ends with its test.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::format_collect, missing_docs)]

#[path = "appliance/account_commands.rs"]
mod account_commands;
#[path = "appliance/accounts.rs"]
mod accounts;
#[path = "appliance/accounts_tokens.rs"]
mod accounts_tokens;
#[path = "appliance/acme.rs"]
mod acme;
#[path = "appliance/acme_authority.rs"]
mod acme_authority;
#[path = "appliance/bundles.rs"]
mod bundles;
#[path = "appliance/callbacks.rs"]
mod callbacks;
#[path = "appliance/clients.rs"]
mod clients;
#[path = "appliance/collection.rs"]
mod collection;
#[path = "appliance/command_line.rs"]
mod command_line;
#[path = "appliance/conformance.rs"]
mod conformance;
#[path = "appliance/crash.rs"]
mod crash;
#[path = "appliance/crash_install.rs"]
mod crash_install;
#[path = "appliance/crash_registry.rs"]
mod crash_registry;
#[path = "appliance/demo.rs"]
mod demo;
#[path = "appliance/failures.rs"]
mod failures;
#[path = "appliance/guides.rs"]
mod guides;
#[path = "appliance/hardening.rs"]
mod hardening;
#[path = "appliance/images.rs"]
mod images;
#[path = "appliance/install.rs"]
mod install;
#[path = "appliance/leaks.rs"]
mod leaks;
#[path = "appliance/private.rs"]
mod private;
#[path = "appliance/registry.rs"]
mod registry;
#[path = "appliance/repositories.rs"]
mod repositories;
#[path = "appliance/rights.rs"]
mod rights;
#[path = "appliance/rootless.rs"]
mod rootless;
#[path = "appliance/run_command.rs"]
mod run_command;
#[path = "appliance/run_images.rs"]
mod run_images;
#[path = "appliance/sequences.rs"]
mod sequences;
#[path = "appliance/serve.rs"]
mod serve;
#[path = "appliance/strange_registries.rs"]
mod strange_registries;
#[path = "appliance/submissions.rs"]
mod submissions;
#[path = "appliance/support.rs"]
mod support;
#[path = "appliance/tls.rs"]
mod tls;
#[path = "appliance/tls_client.rs"]
mod tls_client;
#[path = "appliance/wire.rs"]
mod wire;
