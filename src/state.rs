//! All records of the appliance: typed tables in one redb file, one writer, migrations.
//!
//! - [`State::write`] queues a closure for the one writer thread. Closures run one after another, many to one
//!   durable commit, each on a [`Tx`] of its own: an overlay that sees its own writes and those of the batch, and
//!   that is merged only when the closure returns `Ok`. So a closure that fails or panics touches no neighbour.
//!   The caller is answered after the commit is on disk.
//! - [`State::read`] runs off the async threads, on a snapshot.
//! - A [`Table`] maps a [`Key`] (ordered bytes) to a [`Value`]: a versioned JSON record (see `record!`), or
//!   [`Raw`] bytes.
//!
//! - After a failed commit the writer fails the whole batch, closes the file and opens it again, with back-off; until
//!   then reads and writes are answered with [`StateError::Failed`] at once.
//!
//! This part must never let another part see redb or a panic of redb's, hold a snapshot open longer than one closure, or answer a
//! write before it is durable.
//!
//! Invariants: a key has at most [`MAX_KEY_BYTES`], a record [`MAX_RECORD_BYTES`], raw bytes [`MAX_RAW_BYTES`], a
//! scan [`MAX_SCAN_ROWS`]. Keys order as the tuples they were made from. The file's row `meta["schema"]` names
//! its schema and the oldest binary that can read it; it changes only in the transaction of a migration.

mod damage;
mod error;
mod file;
mod handle;
mod keys;
mod migrations;
mod table;
mod tx;
mod values;
mod writer;

#[cfg(any(test, feature = "fault-points"))]
mod fixture;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;

pub use error::StateError;
pub use file::Schema;
#[cfg(any(test, feature = "fault-points"))]
#[doc(hidden)]
pub use fixture::write_raw_fixture;
pub use handle::{State, StateStats};
pub use keys::{Key, MAX_KEY_BYTES};
pub use table::{MAX_SCAN_ROWS, Read, Scan, Table, View};
pub use tx::Tx;
pub use values::{MAX_RAW_BYTES, MAX_RECORD_BYTES, Raw, Value};
pub(crate) use values::{decode_record, encode_record, record};
