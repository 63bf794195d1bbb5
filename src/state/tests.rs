//! Tests of the state as a whole; pure pieces have theirs beside them.
#![allow(clippy::unwrap_used)]

mod backend;
mod crash;
mod files;
mod model;
mod writing;

use std::path::PathBuf;

use super::file::{builder, initialise};
use super::{Raw, State, Table};
use crate::names::Faults;

const ROWS: Table<(String, u64), Raw> = Table::new("rows");
const COUNTERS: Table<String, Raw> = Table::new("counters");

/// A state on this backend, made or opened.
fn state_on(backend: impl redb::StorageBackend) -> State {
    let database = builder().create_with_backend(backend).unwrap();
    let path = PathBuf::from("(memory)");
    let schema = super::file::read_schema(&database, &path).or_else(|_| initialise(&database)).unwrap();
    State::start(path, database, schema, Faults::none()).unwrap()
}

/// A state in memory.
fn state_in_memory() -> State {
    state_on(redb::backends::InMemoryBackend::new())
}
