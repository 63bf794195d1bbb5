//! All content of the appliance: bytes under their digest, and who refers to them.
//!
//! - Bytes come in by [`Blobs::begin`] (a stream, hashed and written while it arrives), [`Blobs::put`] or
//!   [`Blobs::put_reader_blocking`], and become [`Stored`]: durable, or small enough to be written with the record
//!   that names them. They are *known* only once [`link`] was called in the transaction of that record.
//! - Bytes go out by [`Blobs::open_blob`] as a stream of pieces, hashed beforehand by
//!   [`Blobs::open_verified`], or whole by [`Blobs::read_small`].
//! - [`link`], [`link_known`] and [`unlink`] keep the one table of references that collection asks.
//! - An upload may be suspended and resumed, in another request or another process.
//! - [`Blobs::collect`] takes away what nobody refers to, a page a call, while everything else goes on;
//!   [`Blobs::verify`] and [`Blobs::quarantine`] find and set aside what is damaged; [`Blobs::mend`] brings records and
//!   files together.
//!
//! Blobs of at most [`INLINE_BYTES`] live in the state file and share its commit; greater ones are files of mode
//! 0444. Readers cannot tell which.
//!
//! This part must never name content otherwise than by its sha256 digest, replace a file that is there, has the
//! right size and was not found damaged, hold a blob of unbounded size in memory, or remove what somebody refers to.
//!
//! Invariant: a file is taken away only after the record that named it is gone for good, and only while its digest is
//! seized, so that nobody who just found it there names it afterwards.
//!
//! Invariant: *durable before visible*. A file is written to `uploads/<id>`, synced, renamed, its folder synced, and
//! only then may a record name it. So a crash can leave a file that nothing names, never a name without its file.

mod buffers;
mod collect;
mod error;
mod files;
mod handle;
mod layout;
mod marks;
mod mend;
mod pins;
mod reader;
mod references;
mod sink;
mod totals;
mod uploads;
mod verified;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

pub use collect::{Collected, Cursor, Sweep};
pub use error::BlobError;
#[cfg(test)]
pub(crate) use files::{Call, Disk};
pub use handle::Blobs;
pub use mend::{Flaw, Mended, OwnerView, mend_references};
pub use reader::Reader;
#[cfg(test)]
pub(crate) use references::renew;
pub use references::{
    Damage, INLINE_BYTES, Owner, Stored, discard, has_owner, is_known, link, link_known, owner_keys, refers,
    unlink,
};
pub use totals::{BlobTotals, count_once, totals};
#[cfg(test)]
pub(crate) use uploads::upload_offset;
pub use verify::{DamagedBlob, KnownBlob, Pace, Verdict, damaged, known, owners};
pub use writer::Writer;
