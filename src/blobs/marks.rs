//! How far an upload has come, beside its file: for an answer that promises no more than that the end of the process
//! takes nothing from it.
//!
//! A record in the state costs a commit, which is two syncs. So an upload in chunks has a record from its first chunk
//! on, and after each further one a mark: a few bytes in `uploads/<id>.mark` that are written and not synced.
//!
//! Two places in the file are written in turn, each with a hash of what it says. A process that ends in the middle of
//! one leaves the other, which belongs to the last chunk that was answered. A loss of power leaves either, both, or
//! the record: what a mark counts is hashed again before anybody goes on from it, so it cannot say too much.

use std::io::IoSlice;

use sha2::{Digest as _, Sha256};

use super::BlobError;
use super::files::{Access, OpenFile};
use super::handle::Inner;
use super::sink::Sink;
use super::uploads::{UploadRecord, remove_if_there};
use crate::names::UploadId;

/// Each of the two places has so many bytes.
const PLACE_BYTES: usize = 4_096;
/// SHA-256 of the rest, and the length of the rest as a big-endian number.
const HEAD_BYTES: usize = 32 + 4;

/// The marks of one upload.
#[derive(Debug, Default)]
pub(super) struct Marks {
    file: Option<Box<dyn OpenFile>>,
    /// How many were written by this process.
    written: u64,
    /// Whether there is a file.
    there: bool,
}

impl Marks {
    /// There is a file of an earlier process. It is emptied with the next mark, before which there is a record that
    /// says more than it does.
    pub(super) fn found(&mut self) {
        self.there = true;
    }

    /// Removes the file; what fails here is left to the sweep.
    pub(super) fn remove(&mut self, store: &Inner, id: &UploadId) {
        if std::mem::take(self).there {
            _ = remove_if_there(store, &store.layout.mark(id));
        }
    }
}

impl Sink {
    /// Notes how far the upload has come; nothing is synced.
    pub(super) fn mark(&mut self, row: &UploadRecord) -> Result<(), BlobError> {
        let io = BlobError::io("note how far an upload has come");
        let said = serde_json::to_vec(row).map_err(|error| io(error.into()))?;
        let length = u32::try_from(said.len()).map_err(|_| io(std::io::ErrorKind::FileTooLarge.into()))?;
        let mut bytes = Sha256::digest(&said).to_vec();
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&said);
        if bytes.len() > PLACE_BYTES {
            return Err(io(std::io::ErrorKind::FileTooLarge.into()));
        }
        let (store, id) = self.store();
        let (store, path) = (store.clone(), store.layout.mark(id));
        let marks = self.marks();
        marks.there = true;
        let at = (marks.written % 2) * PLACE_BYTES as u64;
        let file = match &mut marks.file {
            Some(file) => file,
            none => none.insert(store.files.create(&path).map_err(&io)?),
        };
        store.faults.pass("blobs.mark.before_write");
        let mut done = 0;
        while done < bytes.len() {
            match file.write_at(&[IoSlice::new(&bytes[done..])], at + done as u64) {
                Ok(0) => return Err(io(std::io::ErrorKind::WriteZero.into())),
                Ok(count) => done += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io(error)),
            }
        }
        marks.written += 1;
        store.faults.pass("blobs.mark.after_write");
        Ok(())
    }
}

/// What the marks of an upload say, as far as they are whole; `None` when there is no file.
pub(super) fn read(store: &Inner, id: &UploadId) -> Result<Option<Vec<UploadRecord>>, BlobError> {
    let io = BlobError::io("see how far an upload has come");
    let file = match store.files.open(&store.layout.mark(id), Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut said = Vec::new();
    for place in 0..2 {
        let mut bytes = Vec::with_capacity(PLACE_BYTES);
        while bytes.len() < PLACE_BYTES {
            let at = place * PLACE_BYTES + bytes.len();
            if file.read_at(&mut bytes, at as u64).map_err(&io)? == 0 {
                break;
            }
        }
        said.extend(parse(&bytes));
    }
    Ok(Some(said))
}

/// `None` for what was not written to its end.
fn parse(bytes: &[u8]) -> Option<UploadRecord> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let (hash, length) = head.split_at_checked(32)?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let said = rest.get(..usize::try_from(length).ok()?)?;
    if Sha256::digest(said).as_slice() != hash {
        return None;
    }
    serde_json::from_slice(said).ok()
}
