//! A streamed write: receiving overlaps with hashing and writing, and no thread waits for a slow sender.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::handle::Inner;
use super::references::INLINE_BYTES;
use super::sink::{Footing, Leftover, Sink};
use super::{BlobError, Stored, uploads};
use crate::names::{Digest, UploadId};

/// Pieces are gathered until there are so many bytes to write at once.
const BATCH_BYTES: usize = 256 * 1_024;
/// While a batch is being written, at most so many bytes wait for the next one; then the sender has to wait.
const WAITING_BYTES: usize = 1_024 * 1_024;
/// Smaller pieces are copied together, as each may keep a much larger network buffer alive.
const COPIED_BYTES: usize = 16 * 1_024;

/// A streamed write into `uploads/<id>`. Dropped before its end, it leaves nothing, or what its record names.
pub struct Writer {
    id: UploadId,
    store: Arc<Inner>,
    lane: Lane,
    pending: Pending,
    written: u64,
}

/// Where the sink is.
enum Lane {
    Idle(Box<Sink>),
    Busy(JoinHandle<Result<Box<Sink>, BlobError>>),
    /// The sink is being waited for; it is here or gone when the wait has ended.
    Away,
    /// A write failed: nothing more is taken, nothing is claimed.
    Spoiled {
        why: Arc<str>,
        disk_full: bool,
    },
}

/// Bytes that came and are not with the sink yet.
#[derive(Default)]
struct Pending {
    pieces: Vec<Bytes>,
    small: Vec<u8>,
    bytes: usize,
}

impl Pending {
    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if piece.len() < COPIED_BYTES {
            self.small.extend_from_slice(&piece);
        } else {
            self.end_small();
            self.pieces.push(piece);
        }
    }

    fn end_small(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(Bytes::from(std::mem::take(&mut self.small)));
        }
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.end_small();
        self.bytes = 0;
        std::mem::take(&mut self.pieces)
    }
}

impl Writer {
    pub(super) fn new(store: &Arc<Inner>, id: UploadId, sink: Sink) -> Self {
        let written = sink.written();
        Self {
            id,
            store: Arc::clone(store),
            lane: Lane::Idle(Box::new(sink)),
            pending: Pending::default(),
            written,
        }
    }

    /// The name of the upload.
    #[must_use]
    pub fn id(&self) -> &UploadId {
        &self.id
    }

    /// How many bytes came so far, in this request and those before.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Takes the next piece; waits while the disk is behind.
    ///
    /// Safe to cancel: the piece is taken, and counted in [`Writer::written`], before anything is waited for. Whoever
    /// drops the call in between must not send that piece again.
    ///
    /// # Errors
    /// [`BlobError::Io`] when an earlier piece could not be written, [`BlobError::Spoiled`] after that.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), BlobError> {
        self.written += piece.len() as u64;
        self.pending.push(piece);
        if self.pending.bytes < BATCH_BYTES {
            return Ok(());
        }
        if let Lane::Busy(batch) = &self.lane
            && !batch.is_finished()
            && self.pending.bytes < WAITING_BYTES
        {
            return Ok(());
        }
        let mut sink = self.sink().await?;
        let pieces = self.pending.take();
        self.lane = Lane::Busy(spawn_blocking(move || {
            sink.absorb(&pieces)?;
            Ok(sink)
        }));
        Ok(())
    }

    /// The sink, once the batch that is being written has ended.
    async fn sink(&mut self) -> Result<Box<Sink>, BlobError> {
        if let Lane::Busy(batch) = &mut self.lane {
            match batch.await {
                Ok(Ok(sink)) => self.lane = Lane::Idle(sink),
                Ok(Err(error)) => return Err(self.spoil(error)),
                Err(_) => return Err(self.spoil(BlobError::Stopping)),
            }
        }
        match std::mem::replace(&mut self.lane, Lane::Away) {
            Lane::Idle(sink) => Ok(sink),
            Lane::Spoiled { why, disk_full } => {
                self.lane = Lane::Spoiled { why: Arc::clone(&why), disk_full };
                Err(BlobError::Spoiled { id: self.id.clone(), why, disk_full })
            }
            Lane::Away | Lane::Busy(_) => Err(BlobError::Stopping),
        }
    }

    /// Remembers and logs the first failure, which those after it only follow from.
    fn spoil(&mut self, error: BlobError) -> BlobError {
        let why: Arc<str> = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}").into(),
            None => error.to_string().into(),
        };
        tracing::error!(upload.id = %self.id, error = %why, "an upload is lost, as its bytes could not be written");
        self.lane = Lane::Spoiled { why, disk_full: error.is_disk_full() };
        error
    }

    /// Makes what came a blob: synced, renamed, its folder synced; or kept in memory for `link` when it is small.
    /// With `expected` `None` it is taken as it came.
    ///
    /// # Errors
    /// [`BlobError::DigestMismatch`] when it is not what was expected, [`BlobError::Io`] when the disk fails;
    /// nothing of it stays in either case.
    pub async fn finish(mut self, expected: Option<&Digest>) -> Result<Stored, BlobError> {
        let sink = match self.sink().await {
            Ok(sink) => sink,
            Err(error) => {
                if let Err(second) = self.give_up().await {
                    tracing::warn!(error = %second, "an upload that failed could not be removed");
                }
                return Err(error);
            }
        };
        let pieces = self.pending.take();
        let recorded = sink.is_recorded();
        let stored = if sink.is_untouched() && self.written <= INLINE_BYTES as u64 {
            let bytes = match <[Bytes; 1]>::try_from(pieces) {
                Ok([whole]) => whole,
                Err(pieces) => pieces.concat().into(),
            };
            Stored::verified(bytes, expected)
        } else {
            let expected = expected.cloned();
            spawn_blocking(move || {
                let mut sink = sink;
                if !pieces.is_empty() {
                    sink.absorb(&pieces)?;
                }
                sink.close(expected.as_ref())
            })
            .await
            .map_err(|_| BlobError::Stopping)?
        };
        match stored {
            Ok(stored) if recorded => Ok(stored.with_upload(self.id)),
            Err(error) if recorded => {
                self.give_up().await?;
                Err(error)
            }
            other => other,
        }
    }

    /// Waits until everything that came is with the file; nothing is synced.
    ///
    /// Safe to cancel.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub async fn flush(&mut self) -> Result<(), BlobError> {
        let mut sink = self.sink().await?;
        let pieces = self.pending.take();
        if pieces.is_empty() {
            self.lane = Lane::Idle(sink);
            return Ok(());
        }
        self.lane = Lane::Busy(spawn_blocking(move || {
            sink.absorb(&pieces)?;
            Ok(sink)
        }));
        let sink = self.sink().await?;
        self.lane = Lane::Idle(sink);
        Ok(())
    }

    /// Records how far the upload has come and goes on with it. Nothing of its bytes is synced: after the end of this
    /// process it goes on from here, after a loss of power only if they turn out to be there.
    ///
    /// Safe to cancel.
    ///
    /// # Errors
    /// As [`Writer::write`]; [`BlobError::State`], and the upload stands as its last record says, if there was one.
    pub async fn checkpoint(&mut self) -> Result<(), BlobError> {
        self.flush().await?;
        let mut sink = self.sink().await?;
        let row = uploads::row(&self.store, &sink, Footing::Written);
        // Before the record is there, as it may come to be without anybody waiting for it.
        sink.leave(Leftover::Keep);
        self.lane = Lane::Idle(sink);
        uploads::record(&self.store, &self.id, row).await
    }

    /// As [`Writer::checkpoint`], for an upload that has a record: how far it has come is noted beside its file, which
    /// costs no commit. After a loss of power it may go on from an earlier mark, or from its record.
    ///
    /// Safe to cancel.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub async fn mark(&mut self) -> Result<(), BlobError> {
        let mut sink = self.sink().await?;
        let (pieces, store) = (self.pending.take(), Arc::clone(&self.store));
        self.lane = Lane::Busy(spawn_blocking(move || {
            if !pieces.is_empty() {
                sink.absorb(&pieces)?;
            }
            let row = uploads::row(&store, &sink, Footing::Written);
            sink.mark(&row)?;
            Ok(sink)
        }));
        let sink = self.sink().await?;
        self.lane = Lane::Idle(sink);
        Ok(())
    }

    /// Keeps the file and the state of the hash in a record, so that a later request or process resumes.
    ///
    /// # Errors
    /// [`BlobError::Io`] when the bytes could not be made durable, and the upload is lost; [`BlobError::State`], and
    /// the upload stays as its last record says, if there was one.
    pub async fn suspend(mut self) -> Result<UploadId, BlobError> {
        let mut sink = self.sink().await?;
        let pieces = self.pending.take();
        let recorded = sink.is_recorded();
        let synced = spawn_blocking(move || {
            let synced = if pieces.is_empty() { Ok(()) } else { sink.absorb(&pieces) };
            match synced.and_then(|()| sink.sync()) {
                Ok(()) => Ok(sink),
                Err(error) => {
                    // Nobody can say which of its bytes are on the disk: no later sync may vouch for them.
                    sink.leave(Leftover::Remove);
                    Err(error)
                }
            }
        })
        .await
        .map_err(|_| BlobError::Stopping)?;
        match synced {
            Ok(synced) => sink = synced,
            Err(error) => {
                if recorded {
                    uploads::forget(&self.store.state, self.id).await?;
                }
                return Err(error);
            }
        }
        let row = uploads::row(&self.store, &sink, Footing::Synced);
        uploads::record(&self.store, &self.id, row).await?;
        sink.leave(Leftover::Keep);
        sink.unmark();
        Ok(self.id)
    }

    /// Ends the upload; nothing of it stays.
    ///
    /// # Errors
    /// [`BlobError::Io`] or [`BlobError::State`] when its traces could not be removed; the sweep does it then.
    pub async fn discard(mut self) -> Result<(), BlobError> {
        let mut sink = match self.sink().await {
            Ok(sink) => sink,
            Err(_) if matches!(self.lane, Lane::Spoiled { .. }) => return self.give_up().await,
            Err(error) => return Err(error),
        };
        if sink.is_recorded() {
            uploads::forget(&self.store.state, self.id).await?;
        }
        sink.leave(Leftover::Remove);
        spawn_blocking(move || sink.discard()).await.map_err(|_| BlobError::Stopping)?
    }

    /// Removes what a record still names of an upload that failed, and its sink with it.
    async fn give_up(self) -> Result<(), BlobError> {
        uploads::forget(&self.store.state, self.id.clone()).await?;
        let (store, id) = (self.store, self.id);
        spawn_blocking(move || {
            uploads::remove_if_there(&store, &store.layout.mark(&id))?;
            uploads::remove_if_there(&store, &store.layout.upload(&id))
        })
        .await
        .map_err(|_| BlobError::Stopping)?
    }
}
