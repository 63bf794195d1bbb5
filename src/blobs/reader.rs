//! Reading a blob: as a stream of pieces, or blocking.

use std::io::{self, Cursor};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::task::{JoinHandle, spawn_blocking};

use super::buffers::{Buffers, Lent, Own, SIZES};
use super::files::{OpenFile, Sequential, Status};
use crate::names::{Digest, Sha256Stream};

/// How many bytes are read at once by those that may block.
const BLOCKING_BYTES: usize = 256 * 1_024;
/// A stream that never waits for its disk lets others have their turn after so many bytes.
const TURN_BYTES: usize = 1_024 * 1_024;

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

    /// The bytes of `range` in pieces, small ones first, then larger ones of 256 KiB at most; `None` is all. What lies
    /// beyond the end is left out.
    ///
    /// What the system has in memory is read at once; else a thread that may block reads, from the second piece on one
    /// ahead. They grow once the first is dropped. A stream has one piece of 16 KiB for itself, or 32 KiB where the blob
    /// is no larger; more comes from 64 MiB that all streams share, and while those are used up each has a piece after its
    /// last one was dropped: who keeps pieces must not wait for the next. A file that turns out shorter than its blob gives an error
    /// as its last item, never a clean end.
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
                let pieces = Pieces {
                    file: file.into(),
                    buffers,
                    own: Own::default(),
                    at: start,
                    end,
                    given: 0,
                    turn: 0,
                    ahead: None,
                };
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
        let Source::File { file, .. } = &self.source else { return Ok(true) };
        let mut hash = Sha256Stream::default();
        let length = |left: u64| usize::try_from(left).unwrap_or(BLOCKING_BYTES).min(BLOCKING_BYTES);
        let mut buffer = vec![0; length(self.size)];
        let mut at = 0;
        while at < self.size {
            let length = length(self.size - at);
            match fill(&**file, &mut buffer[..length], at) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                filled => filled?,
            }
            hash.update(&buffer[..length]);
            at += length as u64;
        }
        Ok(hash.finish() == *digest)
    }

    /// The whole blob, for threads that may block. A file that turns out shorter gives an error, never a clean end.
    #[must_use]
    pub fn into_blocking(self) -> Box<dyn io::Read + Send> {
        match self.source {
            Source::Inline(bytes) => Box::new(Cursor::new(bytes)),
            Source::File { file, .. } => Box::new(Sequential::new(file, self.size, BLOCKING_BYTES)),
        }
    }
}

/// What is left of a streamed file.
struct Pieces {
    file: Arc<dyn OpenFile>,
    buffers: Arc<Buffers>,
    own: Own,
    at: u64,
    end: u64,
    /// How many pieces were given.
    given: usize,
    /// How many bytes were read without waiting since others had their turn.
    turn: usize,
    ahead: Option<JoinHandle<io::Result<Read>>>,
}

/// A piece, and whether the disk was asked for it.
struct Read {
    piece: Bytes,
    waited: bool,
}

impl Pieces {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        let read = match self.ahead.take() {
            Some(ahead) => joined(ahead.await),
            None if self.at == self.end => return None,
            None => self.read().await,
        };
        let piece = match read {
            Ok(read) => {
                self.given += 1;
                // Only for who has taken what there was: many begin and never ask again.
                if read.waited && self.given > 1 {
                    self.read_ahead();
                }
                Ok(read.piece)
            }
            Err(error) => {
                self.at = self.end;
                Err(error)
            }
        };
        Some((piece, self))
    }

    /// How many bytes the next piece may have. Larger ones are for who has sent the first: over HTTP/2 a piece is asked
    /// for when the one before it begins to be sent, which may be all that its client ever takes.
    fn wanted(&self) -> usize {
        let size = if self.own.is_free() { SIZES[self.given.min(SIZES.len() - 1)] } else { SIZES[0] };
        usize::try_from(self.end - self.at).unwrap_or(size).min(size)
    }

    async fn read(&mut self) -> io::Result<Read> {
        if self.turn >= TURN_BYTES {
            self.turn = 0;
            tokio::task::yield_now().await;
        }
        let mut lent = self.buffers.lend(&self.own, self.wanted()).await;
        let at = self.at;
        self.at += lent.length() as u64;
        let cached = self.file.read_cached(lent.bytes(), at);
        if cached == lent.length() {
            self.turn += cached;
            return Ok(Read { piece: lent.into(), waited: false });
        }
        self.turn = 0;
        let file = self.file.clone();
        joined(spawn_blocking(move || read_rest(&*file, lent, cached, at)).await)
    }

    fn read_ahead(&mut self) {
        let Some(mut lent) = (self.at < self.end).then(|| self.buffers.try_lend(self.wanted())).flatten()
        else {
            return;
        };
        let (file, at) = (self.file.clone(), self.at);
        self.at += lent.length() as u64;
        self.ahead = Some(spawn_blocking(move || {
            let cached = file.read_cached(lent.bytes(), at);
            read_rest(&*file, lent, cached, at)
        }));
    }
}

/// What a thread came to.
fn joined(read: Result<io::Result<Read>, tokio::task::JoinError>) -> io::Result<Read> {
    read.unwrap_or_else(|_| Err(io::Error::other("the process is stopping")))
}

/// The piece at `at`, of which the first bytes were read already; for threads that may block.
fn read_rest(file: &dyn OpenFile, mut lent: Lent, cached: usize, at: u64) -> io::Result<Read> {
    let waited = cached < lent.length();
    fill(file, &mut lent.bytes()[cached..], at + cached as u64)?;
    Ok(Read { piece: lent.into(), waited })
}

/// Reads as many bytes as `out` has.
fn fill(file: &dyn OpenFile, mut out: &mut [u8], mut at: u64) -> io::Result<()> {
    while !out.is_empty() {
        match file.read_into(out, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                at += count as u64;
                out = &mut out[count..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures_util::{FutureExt as _, TryStreamExt as _};
    use std::io::IoSlice;
    use std::num::NonZeroU64;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A file of which the system has some in memory.
    #[derive(Clone, Debug)]
    struct Partly {
        content: Bytes,
        /// How many bytes from this offset on are there.
        cached: fn(u64) -> usize,
        /// How often the disk was asked.
        waits: Arc<AtomicUsize>,
    }

    impl Partly {
        fn new(size: usize, cached: fn(u64) -> usize) -> Self {
            let content = (0..size).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect();
            Self { content, cached, waits: Arc::default() }
        }

        fn is_cached(&self) -> bool {
            (self.cached)(0) > 0
        }

        fn waits(&self) -> usize {
            self.waits.load(Ordering::Relaxed)
        }

        fn stream(&self, buffers: &Arc<Buffers>) -> BoxStream<'static, io::Result<Bytes>> {
            let size = self.content.len() as u64;
            Reader::file(Box::new(self.clone()), size, buffers.clone()).stream(None)
        }
    }

    impl OpenFile for Partly {
        fn read_into(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
            self.waits.fetch_add(1, Ordering::Relaxed);
            let rest = &self.content[usize::try_from(offset).unwrap()..];
            let count = out.len().min(rest.len());
            out[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }

        fn read_cached(&self, out: &mut [u8], offset: u64) -> usize {
            let rest = &self.content[usize::try_from(offset).unwrap()..];
            let count = out.len().min(rest.len()).min((self.cached)(offset));
            out[..count].copy_from_slice(&rest[..count]);
            count
        }

        fn write_at(&self, _: &[IoSlice<'_>], _: u64) -> io::Result<usize> {
            unreachable!()
        }
        fn read_at(&self, _: &mut Vec<u8>, _: u64) -> io::Result<usize> {
            unreachable!()
        }
        fn status(&self) -> io::Result<Status> {
            unreachable!()
        }
        fn cut(&self, _: u64) -> io::Result<()> {
            unreachable!()
        }
        fn seal(&self) -> io::Result<()> {
            unreachable!()
        }
        fn sync(&self) -> io::Result<()> {
            unreachable!()
        }
        fn read_anew(&self) {}
        fn push_out(&self, _: u64, _: NonZeroU64) {}
    }

    #[tokio::test]
    async fn what_is_in_memory_is_read_without_a_thread_and_the_rest_by_one() {
        let all = Partly::new(5_000_000, |_| usize::MAX);
        let none = Partly::new(5_000_000, |_| 0);
        let some =
            Partly::new(5_000_000, |offset| if offset / 700_000 % 2 == 0 { 100_000 } else { usize::MAX });
        for file in [&all, &none, &some] {
            let came: Vec<u8> = file
                .stream(&Arc::default())
                .try_fold(Vec::new(), |mut all, piece| async move {
                    all.extend_from_slice(&piece);
                    Ok(all)
                })
                .await
                .unwrap();
            assert!(came == file.content);
        }
        assert_eq!(all.waits(), 0);
        // 16 and 64 KiB, then the rest by 256.
        assert_eq!(none.waits(), 2 + 19);
        assert!((1..21).contains(&some.waits()), "{}", some.waits());
    }

    #[tokio::test]
    async fn a_stream_that_nobody_asks_for_more_holds_one_small_piece() {
        for cached in [|_| usize::MAX, |_| 0] {
            let (file, buffers) = (Partly::new(3_000_000, cached), Arc::<Buffers>::default());
            let mut held = Vec::new();
            for _ in 0..100 {
                let mut stream = file.stream(&buffers);
                let piece = stream.next().await.unwrap().unwrap();
                assert_eq!(piece.len(), SIZES[0]);
                held.push((stream, piece));
            }
            assert_eq!(buffers.shared_bytes(), 0);
            assert!(file.waits() == 0 || file.waits() == 100, "nothing is read ahead");
            // The next is as small for as long as the first has not gone, and larger then.
            let (stream, first) = &mut held[0];
            let second = stream.next().await.unwrap().unwrap();
            assert_eq!(second.len(), SIZES[0]);
            drop((std::mem::take(first), second));
            // One may have been read ahead meanwhile.
            let mut next = stream.next().await.unwrap().unwrap();
            if !file.is_cached() {
                next = stream.next().await.unwrap().unwrap();
            }
            assert_eq!(next.len(), SIZES[2]);
        }
    }

    #[tokio::test]
    async fn streams_whose_pieces_stay_hold_no_more_than_their_own_and_what_they_share() {
        let (file, buffers) = (Partly::new(3_000_000, |_| usize::MAX), Arc::<Buffers>::default());
        let mut streams: Vec<_> = (0..200).map(|_| (file.stream(&buffers), Vec::new())).collect();
        // All ask until none gets anything; one that has its turn to wait is asked again.
        for _ in 0..10_000 {
            let mut given = 0;
            for (stream, pieces) in &mut streams {
                for _ in 0..2 {
                    if let Some(Some(piece)) = stream.next().now_or_never() {
                        pieces.push(piece.unwrap());
                        given += 1;
                    }
                }
            }
            if given == 0 {
                break;
            }
        }
        let held: usize = streams.iter().flat_map(|(_, pieces)| pieces).map(Bytes::len).sum();
        assert!((32 << 20..(64 << 20) + 200 * SIZES[0] + 1).contains(&held), "{held}");
        // Whose pieces are taken goes on, as the others stay as they are.
        let (stream, pieces) = &mut streams[199];
        let mut taken: usize = pieces.drain(..).map(|piece| piece.len()).sum();
        while let Some(piece) = stream.next().await {
            taken += piece.unwrap().len();
        }
        assert_eq!(taken, 3_000_000);
    }
}
