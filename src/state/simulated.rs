//! A state on a storage of the test's own, so that tests of other parts lose power together with it.

use std::path::PathBuf;
use std::sync::Arc;

use super::file::{builder, initialise, read_schema};
use super::{State, StateError};
use crate::names::Faults;

/// What a state file can be kept on.
pub(crate) trait Storage: Send + Sync + std::fmt::Debug {
    /// How many bytes there are.
    fn len(&self) -> std::io::Result<u64>;
    /// Fills the buffer from `offset` on.
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()>;
    /// Cuts or extends it.
    fn set_len(&self, length: u64) -> std::io::Result<()>;
    /// Makes everything durable.
    fn sync_data(&self) -> std::io::Result<()>;
    /// Writes these bytes at `offset`.
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()>;
}

/// The storage in the shape that redb wants.
#[derive(Debug)]
struct Backend(Arc<dyn Storage>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> std::io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data)
    }
}

impl State {
    /// Opens or makes the state on this storage.
    ///
    /// # Errors
    /// [`StateError::Open`] when the storage fails or holds something else.
    pub(crate) fn open_on(storage: Arc<dyn Storage>, faults: Faults) -> Result<Self, StateError> {
        let path = PathBuf::from("(simulated)");
        let refused = |error: redb::DatabaseError| StateError::Open {
            path: PathBuf::from("(simulated)"),
            source: Arc::new(error.into()),
        };
        let database = builder().create_with_backend(Backend(Arc::clone(&storage))).map_err(refused)?;
        let schema = read_schema(&database, &path).or_else(|_| initialise(&database))?;
        let reopen = move || builder().create_with_backend(Backend(Arc::clone(&storage))).map_err(refused);
        Self::start(path, database, schema, Box::new(reopen), faults)
    }
}
