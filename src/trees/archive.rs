//! The bytes of an archive: inflated, counted and hashed under caps.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::rc::Rc;

use crate::names::{Digest, Sha256Stream};

use super::error::Refusal;

/// How many bytes of compressed input an archive may blow up without being looked at: small ones may be all zeros.
const RATIO_FREE_BYTES: u64 = 16 << 20;

/// Bytes of a header of an entry; what fails within the first one was never an archive.
const HEADER_BYTES: u64 = 512;

/// What a read was refused for; readers between it and us may wrap their errors.
#[derive(Clone, Default)]
pub(crate) struct Verdict {
    refusal: Rc<RefCell<Option<Refusal>>>,
    /// How many bytes of the archive were read.
    bytes: Rc<Cell<u64>>,
}

impl Verdict {
    fn refuse(&self, refusal: Refusal) -> io::Error {
        let error = io::Error::other(refusal.message.clone());
        self.refusal.borrow_mut().get_or_insert(refusal);
        error
    }

    /// The refusal behind an error of reading, or a general one.
    pub(crate) fn explain(&self, error: &io::Error) -> Refusal {
        if let Some(refusal) = self.refusal.borrow().clone() {
            return refusal;
        }
        // A compressed archive that is cut off before its first header is one all the same.
        let cut_off = error.kind() == io::ErrorKind::UnexpectedEof;
        if self.bytes.get() <= HEADER_BYTES && !cut_off {
            return Refusal::unreadable("this is no tar or tar.gz archive");
        }
        Refusal::unreadable(format!("the archive is damaged or cut off: {error}"))
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
        Ok(Self { inner, compressed, verdict, hash, trailing_zeros: 0, cap, ratio })
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
        let bytes = self.verdict.bytes.get() + read as u64;
        self.verdict.bytes.set(bytes);
        let zeros = piece.iter().rev().take_while(|&&byte| byte == 0).count();
        self.trailing_zeros = if zeros == read { self.trailing_zeros + zeros as u64 } else { zeros as u64 };
        if bytes > self.cap {
            let message = format!("the archive unpacks to more than {} bytes", self.cap);
            return Err(self.verdict.refuse(Refusal::too_large(message)));
        }
        if bytes > RATIO_FREE_BYTES && bytes / self.ratio > self.compressed.get() {
            let message = format!("the archive unpacks to more than {} times its size", self.ratio);
            return Err(self.verdict.refuse(Refusal::too_large(message)));
        }
        Ok(read)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What the first entry of these bytes is refused for.
    fn refusal(bytes: &[u8]) -> String {
        let reader = ArchiveReader::open(bytes, 1 << 20, 200).unwrap();
        let verdict = reader.verdict();
        let mut archive = tar::Archive::new(reader);
        let first = archive.entries().unwrap().next().unwrap();
        verdict.explain(&first.err().unwrap()).message
    }

    #[test]
    fn what_never_was_an_archive_is_told_apart_from_a_damaged_one() {
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            io::Write::write_all(&mut encoder, bytes).unwrap();
            encoder.finish().unwrap()
        };
        let text = "this is a text\n".repeat(200);
        let whole = gzip(text.as_bytes());
        let mut no_deflate = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        no_deflate.extend([0xff; 600]);
        for bytes in [text.as_bytes(), b"short", &[0x7f; 5000], &whole, &no_deflate] {
            assert_eq!(refusal(bytes), "this is no tar or tar.gz archive");
        }
        let cut = refusal(&whole[..12]);
        assert!(cut.starts_with("the archive is damaged or cut off: "), "{cut}");
    }
}
