//! The bytes of an archive: inflated, counted and hashed under caps.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::rc::Rc;

use crate::names::{Digest, Sha256Stream};

use super::error::Refusal;

/// How many bytes of compressed input an archive may blow up without being looked at: small ones may be all zeros.
const RATIO_FREE_BYTES: u64 = 16 << 20;

/// What a read was refused for; readers between it and us may wrap their errors.
#[derive(Clone, Default)]
pub(crate) struct Verdict(Rc<RefCell<Option<Refusal>>>);

impl Verdict {
    fn refuse(&self, refusal: Refusal) -> io::Error {
        let error = io::Error::other(refusal.message.clone());
        self.0.borrow_mut().get_or_insert(refusal);
        error
    }

    /// The refusal behind an error of reading, or a general one.
    pub(crate) fn explain(&self, error: &io::Error) -> Refusal {
        self.0
            .borrow()
            .clone()
            .unwrap_or_else(|| Refusal::unreadable(format!("the archive is damaged or cut off: {error}")))
    }
}

struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.set(self.count.get() + read as u64);
        Ok(read)
    }
}

/// The tar inside, whatever it was compressed with.
pub(crate) struct ArchiveReader<R: Read> {
    inner: Inflated<R>,
    compressed: Rc<Cell<u64>>,
    verdict: Verdict,
    hash: Sha256Stream,
    bytes: u64,
    trailing_zeros: u64,
    cap: u64,
    ratio: u64,
}

enum Inflated<R: Read> {
    Plain(Replayed<R>),
    Gzip(Box<flate2::read::MultiGzDecoder<Replayed<R>>>),
}

type Replayed<R> = io::Chain<io::Cursor<Vec<u8>>, Counted<R>>;

impl<R: Read> ArchiveReader<R> {
    /// Finds out by the first bytes what the archive is. `cap` is on the inflated bytes, `ratio` how many of them
    /// one compressed byte may give.
    pub(crate) fn open(inner: R, cap: u64, ratio: u64) -> Result<Self, Refusal> {
        let compressed = Rc::new(Cell::new(0));
        let mut counted = Counted { inner, count: compressed.clone() };
        let mut magic = Vec::with_capacity(4);
        (&mut counted)
            .take(4)
            .read_to_end(&mut magic)
            .map_err(|error| Refusal::unreadable(format!("the archive can't be read: {error}")))?;
        let gzip = magic.starts_with(&[0x1f, 0x8b]);
        if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Err(Refusal::unreadable("the archive is compressed with zstd, which is not taken here"));
        }
        if magic.starts_with(b"PK") {
            return Err(Refusal::unreadable("the archive is a zip file, which is not taken here"));
        }
        if magic.is_empty() {
            return Err(Refusal::unreadable("the archive is empty"));
        }
        let replayed = io::Cursor::new(magic).chain(counted);
        let inner = if gzip {
            Inflated::Gzip(Box::new(flate2::read::MultiGzDecoder::new(replayed)))
        } else {
            Inflated::Plain(replayed)
        };
        let verdict = Verdict::default();
        let hash = Sha256Stream::default();
        Ok(Self { inner, compressed, verdict, hash, bytes: 0, trailing_zeros: 0, cap, ratio })
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }

    /// Reads what stands behind the last entry, which may only be zeros, and gives the digest of the whole.
    pub(crate) fn finish(mut self) -> Result<Digest, Refusal> {
        let mut buffer = vec![0_u8; 64 * 1024];
        loop {
            let read = self.read(&mut buffer).map_err(|error| self.verdict.explain(&error))?;
            if read == 0 {
                break;
            }
            if buffer[..read].iter().any(|&byte| byte != 0) {
                return Err(Refusal::unreadable("the archive goes on behind its end"));
            }
        }
        // An archive cut between two entries looks whole; only its end mark tells.
        if self.trailing_zeros < 512 {
            return Err(Refusal::unreadable("the archive is cut off: it has no end mark"));
        }
        Ok(self.hash.finish())
    }
}

impl<R: Read> Read for ArchiveReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.inner {
            Inflated::Plain(inner) => inner.read(buffer)?,
            Inflated::Gzip(inner) => inner.read(buffer)?,
        };
        let piece = &buffer[..read];
        self.hash.update(piece);
        self.bytes += read as u64;
        let zeros = piece.iter().rev().take_while(|&&byte| byte == 0).count();
        self.trailing_zeros = if zeros == read { self.trailing_zeros + zeros as u64 } else { zeros as u64 };
        if self.bytes > self.cap {
            let message = format!("the archive unpacks to more than {} bytes", self.cap);
            return Err(self.verdict.refuse(Refusal::too_large(message)));
        }
        if self.bytes > RATIO_FREE_BYTES && self.bytes / self.ratio > self.compressed.get() {
            let message = format!("the archive unpacks to more than {} times its size", self.ratio);
            return Err(self.verdict.refuse(Refusal::too_large(message)));
        }
        Ok(read)
    }
}
