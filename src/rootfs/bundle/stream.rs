//! Streams over the files of a bundle: a part that looks like a whole, and one that verifies itself.

use std::io::{self, Read, Seek as _, SeekFrom};

use fs_err::File;
use sha2::{Digest as _, Sha256};

use crate::rootfs::layer::digest_text;

/// A part of a file that looks like a whole one.
pub(super) struct Window {
    file: File,
    start: u64,
    length: u64,
    position: u64,
}

impl Window {
    /// The `length` bytes of a file from `start` on.
    pub(super) fn new(mut file: File, start: u64, length: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(start))?;
        Ok(Self { file, start, length, position: 0 })
    }
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.position);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        self.position += read as u64;
        Ok(read)
    }
}

impl io::Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        let target = target.filter(|&place| place <= self.length).ok_or(io::ErrorKind::InvalidInput)?;
        self.file.seek(SeekFrom::Start(self.start + target))?;
        self.position = target;
        Ok(target)
    }
}

/// A stream that withholds its last bytes when the whole isn't what it should be.
pub(super) struct Verified<R: Read> {
    inner: R,
    hash: Sha256,
    remaining: u64,
    expected: String,
}

impl<R: Read> Verified<R> {
    /// Expects `length` bytes with the digest `expected`.
    pub(super) fn new(inner: R, length: u64, expected: &str) -> Self {
        Self { inner, hash: Sha256::new(), remaining: length, expected: expected.to_owned() }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.remaining == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{} bytes of {} are missing", self.remaining, self.expected),
            ));
        }
        self.hash.update(&buffer[..read]);
        self.remaining -= read as u64;
        if self.remaining == 0 {
            let actual = digest_text(&self.hash.clone().finalize());
            if actual != self.expected {
                self.remaining = 1;
                let message = format!("digest {actual}, expected {}", self.expected);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::rootfs::layer::digest_of;

    #[test]
    fn a_stream_with_another_digest_or_length_never_ends_well() {
        let read = |content: &'static [u8], remaining, of: &[u8]| {
            let mut stream = Verified::new(content, remaining, &digest_of(of));
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).map(|_| bytes)
        };
        assert_eq!(read(b"abc", 3, b"abc").unwrap(), b"abc");
        assert_eq!(read(b"abx", 3, b"abc").unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(b"ab", 3, b"abc").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(b"abcd", 3, b"abc").unwrap(), b"abc");
    }
}
