//! Numbered migrations: run before `open` returns, each in one transaction with the schema row it writes.
//!
//! A migration only *expands*: it adds beside what is there, so that a binary not older than `min_reader` still
//! works with the file, as a rollback of the appliance needs.
//!
//! *Shape of a file, since schema 17*: every table maps key bytes (see [`super::Key`]) to value bytes; records are
//! `{"v":<version>,"d":{…}}`. Table `meta`, key `schema\0`, holds `{"v":1,"d":{"schema":…,"min_reader":…}}`.

mod callback_nonce;

use std::path::Path;

use redb::{Database, WriteTransaction};

use super::file::{begin, write_schema};
use super::{Schema, State, StateError};

struct Migration {
    /// The schema after it.
    to: u32,
    /// The oldest binary that can read the file after it.
    min_reader: u32,
    /// Adds what is new; gives how many rows it changed.
    run: fn(&WriteTransaction) -> Result<u64, StateError>,
}

/// In order; each takes the schema before its own.
const MIGRATIONS: [Migration; 1] = [Migration { to: 18, min_reader: 17, run: callback_nonce::run }];

/// Whether a file of this schema can be brought to ours.
pub(super) fn check(path: &Path, schema: Schema) -> Result<(), StateError> {
    let oldest = MIGRATIONS[0].to - 1;
    if schema.schema < oldest {
        return Err(StateError::SchemaTooOld { path: path.to_owned(), schema: schema.schema, oldest });
    }
    Ok(())
}

/// Brings the file to our schema.
pub(super) fn run(database: &Database, path: &Path, mut schema: Schema) -> Result<Schema, StateError> {
    check(path, schema)?;
    let from = schema.schema;
    for migration in MIGRATIONS.iter().filter(|migration| migration.to > from) {
        let transaction = begin(database)?;
        let rows = (migration.run)(&transaction)?;
        let after = Schema { schema: migration.to, min_reader: schema.min_reader.max(migration.min_reader) };
        write_schema(&transaction, after)?;
        transaction.commit().map_err(StateError::commit)?;
        tracing::info!(from = schema.schema, to = after.schema, rows, "migrated the state file");
        schema = after;
    }
    debug_assert_eq!(schema.schema, State::SCHEMA, "the last migration leads to the schema of this binary");
    Ok(schema)
}
