//! One upload's file, on a thread that may block: hashes and writes what comes, and closes it into a blob.

use std::collections::HashSet;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sha2::digest::common::hazmat::{SerializableState as _, SerializedState};
use sha2::{Digest as _, Sha256, Sha512};

use super::files::{Access, OpenFile};
use super::handle::Inner;
use super::layout::InPlace;
use super::marks::Marks;
use super::references::{INLINE_BYTES, is_flagged, is_known};
use super::{BlobError, Stored};
use crate::names::{Algorithm, Digest, UploadId};

/// After so many bytes the kernel is asked to begin writing them out, so that the last sync finds little to do.
const PUSH_OUT_BYTES: u64 = 8 * 1_024 * 1_024;

/// The uploads that somebody writes to.
#[derive(Debug, Default)]
pub(super) struct Active(Mutex<HashSet<UploadId>>);

impl Active {
    fn lock(&self) -> MutexGuard<'_, HashSet<UploadId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn holds(&self, id: &UploadId) -> bool {
        self.lock().contains(id)
    }
}

/// What becomes of the file when the sink is dropped before it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leftover {
    /// No record names it: it is removed.
    Remove,
    /// A record names it and says up to where it counts.
    Keep,
}

/// What a record says of an upload.
pub(super) struct Recorded {
    pub(super) offset: u64,
    /// The state of the hash at that offset.
    pub(super) hash: Vec<u8>,
    /// The same of the hash by sha512, where there is one.
    pub(super) long: Option<Vec<u8>>,
    pub(super) footing: Footing,
}

/// How certain it is that the bytes which a record counts are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Footing {
    /// They were synced before it was written.
    Synced,
    /// They were written: the end of the process takes nothing from them, a loss of power may, so they are hashed again.
    Written,
}

fn restored<H: sha2::digest::common::hazmat::SerializableState>(state: &[u8]) -> Option<H> {
    SerializedState::<H>::try_from(state).ok().and_then(|state| H::deserialize(&state).ok())
}

/// The bytes of one upload so far.
pub(super) struct Sink {
    store: Arc<Inner>,
    id: UploadId,
    file: Option<Box<dyn OpenFile>>,
    hash: Sha256,
    /// The other hash, where it was said beforehand that the blob will be named by it.
    long: Option<Sha512>,
    written: u64,
    pushed_out: u64,
    leftover: Leftover,
    marks: Marks,
}

impl Sink {
    /// A sink for a new upload, whose file is made with its first bytes; `None` when the id is being written to.
    pub(super) fn new(store: &Arc<Inner>, id: &UploadId) -> Option<Self> {
        if !store.active.lock().insert(id.clone()) {
            return None;
        }
        Some(Self {
            store: Arc::clone(store),
            id: id.clone(),
            file: None,
            hash: Sha256::new(),
            long: None,
            written: 0,
            pushed_out: 0,
            leftover: Leftover::Remove,
            marks: Marks::default(),
        })
    }

    /// Hashes for a name by sha512 as well, which else takes a second look at the file at its end. Before the first byte.
    pub(super) fn hash_long_too(&mut self) {
        debug_assert!(self.is_untouched(), "what came before would be missing in the hash");
        self.long = Some(Sha512::new());
    }

    /// Goes on from a recorded offset: what the file holds beyond it is cut off. `false` when the file is not there
    /// or shorter than its record, as after a loss of power; or when it has become a blob under another name.
    pub(super) fn restore(&mut self, from: &Recorded) -> Result<bool, BlobError> {
        self.leftover = Leftover::Keep;
        let damaged = || BlobError::UploadDamaged(self.id.clone());
        self.hash = restored(&from.hash).ok_or_else(damaged)?;
        self.long = match &from.long {
            Some(long) => Some(restored(long).ok_or_else(damaged)?),
            None => None,
        };
        let offset = from.offset;
        let io = BlobError::io("go on with an upload");
        let path = self.store.layout.upload(&self.id);
        let file = match self.store.files.open(&path, Access::Write) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(offset == 0),
            Err(error) => return Err(io(error)),
        };
        let status = file.status().map_err(&io)?;
        if status.length < offset || status.names != 1 {
            return Ok(false);
        }
        if from.footing == Footing::Written && !self.was_hashed(&*file, offset).map_err(&io)? {
            return Ok(false);
        }
        self.store.faults.pass("blobs.resume.before_cut");
        file.cut(offset).map_err(&io)?;
        self.store.faults.pass("blobs.resume.after_cut");
        self.file = Some(file);
        (self.written, self.pushed_out) = (offset, offset);
        Ok(true)
    }

    /// Whether the file has the bytes up to `offset` that the state of the hash came from.
    fn was_hashed(&self, file: &dyn OpenFile, offset: u64) -> std::io::Result<bool> {
        let (mut hash, mut at) = (Sha256::new(), 0);
        let mut buffer = Vec::with_capacity(256 * 1_024);
        while at < offset && file.read_at(&mut buffer, at)? > 0 {
            let left = usize::try_from(offset - at).unwrap_or(usize::MAX);
            buffer.truncate(left);
            hash.update(&buffer);
            at += buffer.len() as u64;
            buffer.clear();
        }
        Ok(at == offset && hash.finalize() == self.hash.clone().finalize())
    }

    /// The state of the hash, for [`Sink::restore`].
    pub(super) fn hash_state(&self) -> Vec<u8> {
        self.hash.serialize().to_vec()
    }

    /// The state of the other hash, where there is one.
    pub(super) fn long_hash_state(&self) -> Option<Vec<u8>> {
        self.long.as_ref().map(|long| long.serialize().to_vec())
    }

    pub(super) fn store(&self) -> (&Arc<Inner>, &UploadId) {
        (&self.store, &self.id)
    }

    pub(super) fn marks(&mut self) -> &mut Marks {
        &mut self.marks
    }

    /// The marks say no more than a record does.
    pub(super) fn unmark(&mut self) {
        self.marks.remove(&self.store, &self.id);
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether nothing was written, so that there is no file either.
    pub(super) fn is_untouched(&self) -> bool {
        self.file.is_none()
    }

    pub(super) fn leave(&mut self, leftover: Leftover) {
        self.leftover = leftover;
    }

    /// Whether a record names the upload.
    pub(super) fn is_recorded(&self) -> bool {
        self.leftover == Leftover::Keep
    }

    /// Hashes and writes these pieces, in one system call where the kernel takes them.
    pub(super) fn absorb(&mut self, pieces: &[Bytes]) -> Result<(), BlobError> {
        let io = BlobError::io("write an upload");
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.store.files.create(&self.store.layout.upload(&self.id)).map_err(&io)?),
        };
        self.store.faults.pass("blobs.upload.before_write");
        for piece in pieces {
            self.hash.update(piece);
            if let Some(long) = &mut self.long {
                long.update(piece);
            }
        }
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match file.write_at(left, self.written) {
                Ok(0) => return Err(io(std::io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    IoSlice::advance_slices(&mut left, count);
                    self.written += count as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io(error)),
            }
        }
        if let Some(fresh) = std::num::NonZeroU64::new(self.written - self.pushed_out)
            && fresh.get() >= PUSH_OUT_BYTES
        {
            file.push_out(self.pushed_out, fresh);
            self.pushed_out = self.written;
        }
        self.store.faults.pass("blobs.upload.after_write");
        Ok(())
    }

    /// Checks the digest and makes the file a blob, or bytes to be recorded inline when they are few. Whatever
    /// happens, the upload has ended.
    pub(super) fn close(mut self, expected: Option<&Digest>) -> Result<Stored, BlobError> {
        let outcome = self.close_file(expected);
        if self.file.take().is_some() {
            // What fails here is left to the sweep.
            _ = self.store.files.remove(&self.store.layout.upload(&self.id));
        }
        self.unmark();
        outcome
    }

    /// As [`Sink::close`]; what is then still `self.file` is to be removed.
    fn close_file(&mut self, expected: Option<&Digest>) -> Result<Stored, BlobError> {
        if self.file.is_none() {
            return Stored::verified(Bytes::new(), expected);
        }
        let io = BlobError::io("close an upload");
        if self.written <= INLINE_BYTES as u64 {
            let bytes = self.read_back().map_err(&io)?;
            return Stored::verified(bytes, expected);
        }
        let digest = Digest::from_sha256(std::mem::take(&mut self.hash).finalize().into());
        let Some(file) = self.file.as_deref() else { return Stored::verified(Bytes::new(), expected) };
        if let Some(expected) = expected {
            let found = match expected.algorithm() {
                Algorithm::Sha256 => digest.clone(),
                Algorithm::Sha512 => match self.long.take() {
                    Some(long) => Digest::from_sha512(long.finalize().into()),
                    None => sha512_of(file).map_err(&io)?,
                },
            };
            if found != *expected {
                return Err(BlobError::DigestMismatch { expected: expected.clone(), found });
            }
        }
        // From before the file is looked for until it is named: what is found there must not be collected meanwhile.
        let pin = self.store.pins.pin(&digest);
        let store = &self.store;
        if self.is_there_already(&digest)? {
            return Ok(Stored::file(digest, self.written, pin));
        }
        let path = store.layout.upload(&self.id);
        let upload = (file, path.as_path());
        let flagged = store.state.read_blocking(|view| is_flagged(view, &digest))?;
        let in_place = if flagged { InPlace::Replace } else { InPlace::Keep };
        let named = (&digest, self.written);
        store.layout.close(&*store.files, upload, named, in_place, &store.faults).map_err(&io)?;
        self.file = None;
        Ok(Stored::file(digest, self.written, pin))
    }

    /// Whether a record names the content and its file is in place: then it was made durable before.
    fn is_there_already(&self, digest: &Digest) -> Result<bool, BlobError> {
        let store = &self.store;
        if store.state.read_blocking(|view| is_known(view, digest))? != Some(self.written) {
            return Ok(false);
        }
        let Some(path) = store.layout.blob(digest) else { return Ok(false) };
        let found = store.files.open(&path, Access::Read).and_then(|file| file.status());
        Ok(found.is_ok_and(|found| found.length == self.written))
    }

    /// Removes the file, at once.
    pub(super) fn discard(mut self) -> Result<(), BlobError> {
        self.unmark();
        match self.file.take() {
            Some(_) => {
                let path = self.store.layout.upload(&self.id);
                self.store.faults.pass("blobs.discard.before_remove");
                self.store.files.remove(&path).map_err(BlobError::io("remove an upload"))
            }
            None => Ok(()),
        }
    }

    /// Makes what came so far durable, so that a record may say that it counts.
    pub(super) fn sync(&self) -> Result<(), BlobError> {
        let Some(file) = &self.file else { return Ok(()) };
        let io = BlobError::io("sync an upload");
        let store = &self.store;
        store.faults.pass("blobs.suspend.before_fsync");
        file.sync().map_err(&io)?;
        store.files.sync_folder(store.layout.uploads()).map_err(&io)?;
        store.faults.pass("blobs.suspend.after_fsync");
        Ok(())
    }

    fn read_back(&self) -> std::io::Result<Bytes> {
        let mut bytes = Vec::with_capacity(INLINE_BYTES + 1);
        if let Some(file) = &self.file {
            loop {
                let at = bytes.len() as u64;
                if at > INLINE_BYTES as u64 || file.read_at(&mut bytes, at)? == 0 {
                    break;
                }
            }
        }
        if bytes.len() as u64 != self.written {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes.into())
    }
}

impl Stored {
    /// Few bytes that are to be recorded inline, after a check of their digest.
    pub(super) fn verified(bytes: Bytes, expected: Option<&Digest>) -> Result<Self, BlobError> {
        let digest = Digest::of(&bytes);
        match expected {
            Some(expected) if !expected.names(&bytes) => {
                let found = Digest::under(expected.algorithm(), &bytes);
                Err(BlobError::DigestMismatch { expected: expected.clone(), found })
            }
            _ => Ok(Self::inline(digest, bytes)),
        }
    }
}

fn sha512_of(file: &dyn OpenFile) -> std::io::Result<Digest> {
    let mut hash = Sha512::new();
    let mut buffer = Vec::with_capacity(256 * 1_024);
    let mut at = 0;
    while file.read_at(&mut buffer, at)? > 0 {
        hash.update(&buffer);
        at += buffer.len() as u64;
        buffer.clear();
    }
    Ok(Digest::from_sha512(hash.finalize().into()))
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.file.take().is_some() && self.leftover == Leftover::Remove {
            let (store, id) = (Arc::clone(&self.store), self.id.clone());
            let mut marks = std::mem::take(&mut self.marks);
            // What fails here is left to the sweep.
            let mut remove = move || {
                marks.remove(&store, &id);
                _ = store.files.remove(&store.layout.upload(&id));
            };
            // Removing a large file takes long, and this may be an async thread.
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(remove)),
                Err(_) => remove(),
            }
        }
        self.store.active.lock().remove(&self.id);
    }
}
