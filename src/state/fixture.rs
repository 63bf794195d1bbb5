//! Files of other schemas, for tests.

use std::path::Path;

use super::file::{begin, builder, write_schema};
use super::table::RawTable;
use super::{Schema, StateError};

/// Writes a new state file of any schema with rows given as they are to be stored: table, key bytes (see
/// [`super::Key`]: text ends in NUL), JSON.
///
/// # Errors
/// [`StateError`] when the file cannot be written.
pub fn write_raw_fixture(
    path: &Path,
    schema: u32,
    min_reader: u32,
    rows: &[(&'static str, Vec<u8>, serde_json::Value)],
) -> Result<(), StateError> {
    let database = builder().create(path).map_err(|error| StateError::Open {
        path: path.to_owned(),
        source: std::sync::Arc::new(error.into()),
    })?;
    let transaction = begin(&database)?;
    write_schema(&transaction, Schema { schema, min_reader })?;
    for (name, key, value) in rows {
        transaction
            .open_table(RawTable::new(name))
            .map_err(|error| StateError::storage("open a table", error))?
            .insert(key.as_slice(), value.to_string().as_bytes())
            .map_err(|error| StateError::storage("write a row", error))?;
    }
    transaction.commit().map_err(StateError::commit)
}
