//! Tests of the state as a whole; pure pieces have theirs beside them.
#![allow(clippy::unwrap_used)]

mod backend;
mod crash;
mod damage;
mod files;
mod full;
mod model;
mod writing;

use std::path::PathBuf;
use std::sync::Arc;

use super::file::{builder, initialise};
use super::writer::Opener;
use super::{Raw, State, StateError, Table};
use crate::names::Faults;

const ROWS: Table<(String, u64), Raw> = Table::new("rows");
const COUNTERS: Table<String, Raw> = Table::new("counters");

/// A state on this backend, made or opened, that opens the same one again.
fn state_on(backend: impl redb::StorageBackend + Clone) -> State {
    state_with(
        backend.clone(),
        Box::new(move || builder().create_with_backend(backend.clone()).map_err(refused)),
    )
}

/// A state on this backend, made or opened.
fn state_with(backend: impl redb::StorageBackend, reopen: Opener) -> State {
    let database = builder().create_with_backend(backend).unwrap();
    let path = PathBuf::from("(memory)");
    let schema = super::file::read_schema(&database, &path).or_else(|_| initialise(&database)).unwrap();
    State::start(path, database, schema, reopen, Faults::none()).unwrap()
}

fn refused(error: redb::DatabaseError) -> StateError {
    StateError::Open { path: PathBuf::from("(memory)"), source: Arc::new(error.into()) }
}

/// A state in memory.
fn state_in_memory() -> State {
    state_with(redb::backends::InMemoryBackend::new(), Box::new(|| Err(StateError::Closed)))
}
