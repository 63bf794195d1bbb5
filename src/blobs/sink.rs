//! One upload's file, on a thread that may block: hashes and writes what comes, and closes it into a blob.

use std::collections::HashSet;
use std::io::{IoSlice, Read as _, Seek as _, SeekFrom, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sha2::digest::common::hazmat::{SerializableState as _, SerializedState};
use sha2::{Digest as _, Sha256, Sha512};

use super::handle::Inner;
use super::references::INLINE_BYTES;
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

/// The bytes of one upload so far.
pub(super) struct Sink {
    store: Arc<Inner>,
    id: UploadId,
    file: Option<fs_err::File>,
    hash: Sha256,
    written: u64,
    pushed_out: u64,
    leftover: Leftover,
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
            written: 0,
            pushed_out: 0,
            leftover: Leftover::Remove,
        })
    }

    /// Goes on from a recorded offset: what the file holds beyond it is cut off. `false` when the file is not there
    /// or shorter than its record, as after a loss of power.
    pub(super) fn restore(&mut self, offset: u64, hash: &[u8]) -> Result<bool, BlobError> {
        self.leftover = Leftover::Keep;
        self.hash = SerializedState::<Sha256>::try_from(hash)
            .ok()
            .and_then(|state| Sha256::deserialize(&state).ok())
            .ok_or_else(|| BlobError::UploadDamaged(self.id.clone()))?;
        let io = BlobError::io("go on with an upload");
        let path = self.store.layout.upload(&self.id);
        let mut file = match fs_err::OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(offset == 0),
            Err(error) => return Err(io(error)),
        };
        if file.metadata().map_err(&io)?.len() < offset {
            return Ok(false);
        }
        file.set_len(offset).map_err(&io)?;
        file.seek(SeekFrom::Start(offset)).map_err(&io)?;
        self.file = Some(file);
        (self.written, self.pushed_out) = (offset, offset);
        Ok(true)
    }

    /// The state of the hash, for [`Sink::restore`].
    pub(super) fn hash_state(&self) -> Vec<u8> {
        self.hash.serialize().to_vec()
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
            none => none.insert(
                fs_err::OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(self.store.layout.upload(&self.id))
                    .map_err(&io)?,
            ),
        };
        for piece in pieces {
            self.hash.update(piece);
        }
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match file.write_vectored(left) {
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
            // On dirty pages this advice starts their writing and keeps them cached. It promises nothing, so a
            // refusal is no error: durability comes from the sync alone.
            let advice = rustix::fs::Advice::DontNeed;
            _ = rustix::fs::fadvise(&*file, self.pushed_out, Some(fresh), advice);
            self.pushed_out = self.written;
        }
        Ok(())
    }

    /// Checks the digest and makes the file a blob, or bytes to be recorded inline when they are few. Whatever
    /// happens, the upload has ended.
    pub(super) fn close(mut self, expected: Option<&Digest>) -> Result<Stored, BlobError> {
        let outcome = self.close_file(expected);
        if let Some(file) = self.file.take() {
            // What fails here is left to the sweep.
            _ = fs_err::remove_file(file.path());
        }
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
        let Some(file) = &mut self.file else { return Stored::verified(Bytes::new(), expected) };
        if let Some(expected) = expected {
            let found = match expected.algorithm() {
                Algorithm::Sha256 => digest.clone(),
                Algorithm::Sha512 => sha512_of(file).map_err(&io)?,
            };
            if found != *expected {
                return Err(BlobError::DigestMismatch { expected: expected.clone(), found });
            }
        }
        // From before the file is looked for until it is named: what is found there must not be collected meanwhile.
        let pin = self.store.pins.pin(&digest);
        self.store.layout.close(file, &digest, self.written, &self.store.faults).map_err(&io)?;
        self.file = None;
        Ok(Stored::file(digest, self.written, pin))
    }

    /// Removes the file, at once.
    pub(super) fn discard(mut self) -> Result<(), BlobError> {
        match self.file.take() {
            Some(file) => fs_err::remove_file(file.path()).map_err(BlobError::io("remove an upload")),
            None => Ok(()),
        }
    }

    fn read_back(&mut self) -> std::io::Result<Bytes> {
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(0))?;
            file.take(INLINE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
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
                let found = match expected.algorithm() {
                    Algorithm::Sha256 => digest,
                    Algorithm::Sha512 => Digest::sha512_of(&bytes),
                };
                Err(BlobError::DigestMismatch { expected: expected.clone(), found })
            }
            _ => Ok(Self::inline(digest, bytes)),
        }
    }
}

fn sha512_of(file: &mut fs_err::File) -> std::io::Result<Digest> {
    use std::fmt::Write as _;
    let mut hash = Sha512::new();
    let mut buffer = vec![0; 256 * 1_024];
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    let mut text = "sha512:".to_owned();
    for byte in hash.finalize() {
        write!(text, "{byte:02x}").expect("invariant: writing to a String succeeds");
    }
    Ok(Digest::parse(&text).expect("invariant: 64 bytes in hexadecimal are a sha512 digest"))
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.file.take().is_some() && self.leftover == Leftover::Remove {
            let path = self.store.layout.upload(&self.id);
            // What fails here is left to the sweep.
            let remove = move || _ = fs_err::remove_file(path);
            // Removing a large file takes long, and this may be an async thread.
            match tokio::runtime::Handle::try_current() {
                Ok(runtime) => drop(runtime.spawn_blocking(remove)),
                Err(_) => remove(),
            }
        }
        self.store.active.lock().remove(&self.id);
    }
}
