//! Reading a blob: as a stream of large pieces, or blocking.

use std::io::{self, Cursor};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::task::{JoinHandle, spawn_blocking};

use super::files::{OpenFile, Sequential, Status};
use crate::names::{Digest, Sha256Stream};

/// How many bytes a piece has; the last may have less.
pub(super) const PIECE_BYTES: usize = 256 * 1_024;
/// How many idle buffers are kept for the next readers.
const KEPT_BUFFERS: usize = 8;

/// Buffers that are used again, so that a large read neither zeroes nor faults in fresh memory for each piece.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(PIECE_BYTES))
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_BUFFERS {
            kept.push(buffer);
        }
    }
}

/// A filled buffer that goes back when the last piece of it is gone.
struct Lent {
    buffer: Vec<u8>,
    buffers: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.buffers.give_back(std::mem::take(&mut self.buffer));
    }
}

/// An open blob: what it gives stays the same, even if the blob is removed meanwhile.
#[derive(Debug)]
pub struct Reader {
    source: Source,
    size: u64,
}

#[derive(Debug)]
enum Source {
    Inline(Bytes),
    File { file: Box<dyn OpenFile>, buffers: Arc<Buffers> },
}

impl Reader {
    pub(super) fn inline(bytes: Bytes) -> Self {
        Self { size: bytes.len() as u64, source: Source::Inline(bytes) }
    }

    pub(super) fn file(file: Box<dyn OpenFile>, size: u64, buffers: Arc<Buffers>) -> Self {
        Self { source: Source::File { file, buffers }, size }
    }

    /// How many bytes the blob has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Pieces of 256 KiB (the last may be less) of `range`; `None` is all. What lies beyond the end is left out.
    ///
    /// One piece is read ahead, on a thread that may block. A file that turns out shorter than its blob gives an
    /// error as its last item, never a clean end.
    #[must_use]
    pub fn stream(self, range: Option<Range<u64>>) -> BoxStream<'static, io::Result<Bytes>> {
        let range = range.unwrap_or(0..self.size);
        let end = range.end.min(self.size);
        let start = range.start.min(end);
        match self.source {
            Source::Inline(bytes) => {
                let at = |offset: u64| usize::try_from(offset).unwrap_or(bytes.len()).min(bytes.len());
                let piece = bytes.slice(at(start)..at(end));
                stream::iter((!piece.is_empty()).then_some(Ok(piece))).boxed()
            }
            Source::File { file, buffers } => {
                let mut pieces = Pieces { file: file.into(), buffers, at: start, end, ahead: None };
                pieces.read_ahead();
                stream::unfold(pieces, Pieces::next).boxed()
            }
        }
    }

    /// Which file is read, as it is at this moment; none where the bytes are in memory.
    pub(super) fn status(&self) -> io::Result<Option<Status>> {
        match &self.source {
            Source::Inline(_) => Ok(None),
            Source::File { file, .. } => file.status().map(Some),
        }
    }

    /// Tells whether the bytes are those of the digest, for threads that may block. Holds one piece at a time.
    pub(super) fn is(&self, digest: &Digest) -> io::Result<bool> {
        let Source::File { file, buffers } = &self.source else { return Ok(true) };
        let mut hash = Sha256Stream::default();
        let mut lent = Lent { buffer: buffers.take(), buffers: Arc::clone(buffers) };
        let mut at = 0;
        while at < self.size {
            let length = usize::try_from(self.size - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            lent.buffer.clear();
            match fill(&**file, &mut lent.buffer, at, length) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                filled => filled?,
            }
            hash.update(&lent.buffer);
            at += length as u64;
        }
        Ok(hash.finish() == *digest)
    }

    /// The whole blob, for threads that may block. A file that turns out shorter gives an error, never a clean end.
    #[must_use]
    pub fn into_blocking(self) -> Box<dyn io::Read + Send> {
        match self.source {
            Source::Inline(bytes) => Box::new(Cursor::new(bytes)),
            Source::File { file, .. } => Box::new(Sequential::new(file, self.size, PIECE_BYTES)),
        }
    }
}

/// What is left of a streamed file.
struct Pieces {
    file: Arc<dyn OpenFile>,
    buffers: Arc<Buffers>,
    at: u64,
    end: u64,
    ahead: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Pieces {
    fn read_ahead(&mut self) {
        let length = usize::try_from(self.end - self.at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        if length == 0 {
            return;
        }
        let (file, buffers, at) = (Arc::clone(&self.file), Arc::clone(&self.buffers), self.at);
        self.at += length as u64;
        self.ahead = Some(spawn_blocking(move || read_piece(&*file, buffers, at, length)));
    }

    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        let piece = match self.ahead.take()?.await {
            Ok(Ok(piece)) => {
                self.read_ahead();
                Ok(piece)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the process is stopping")),
        };
        Some((piece, self))
    }
}

fn read_piece(file: &dyn OpenFile, buffers: Arc<Buffers>, at: u64, length: usize) -> io::Result<Bytes> {
    if length < PIECE_BYTES {
        let mut buffer = Vec::with_capacity(length);
        fill(file, &mut buffer, at, length)?;
        return Ok(buffer.into());
    }
    let mut lent = Lent { buffer: buffers.take(), buffers };
    fill(file, &mut lent.buffer, at, length)?;
    Ok(Bytes::from_owner(lent))
}

/// Reads `length` bytes into the spare room of `buffer`, which has no more than that.
fn fill(file: &dyn OpenFile, buffer: &mut Vec<u8>, at: u64, length: usize) -> io::Result<()> {
    while buffer.len() < length {
        let offset = at + buffer.len() as u64;
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(length);
    Ok(())
}
