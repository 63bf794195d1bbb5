//! The one way to write a layer: a sorted tar in gzip, the same bytes for the same entries, everywhere.

use std::io::{self, Read, Write};
use std::path::Path;

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};

use super::error::RootfsError;
use crate::names::hex;

/// The level at which every layer of Pantry is compressed; another one gives other digests.
const GZIP_LEVEL: u32 = 6;

/// What a written layer is known by.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LayerDigests {
    /// Digest of the compressed bytes (`sha256:…`): the blob's name.
    pub digest: String,
    /// Digest of the tar inside (`sha256:…`): what an image's configuration lists.
    pub diff_id: String,
    /// Length of the compressed bytes.
    pub size_bytes: u64,
    /// Length of the tar.
    pub tar_bytes: u64,
    /// How many entries it has.
    pub entries: u64,
}

/// Writes a layer to a stream: owners 0:0, times 0, entries in strictly ascending order of their paths.
///
/// Paths are relative, without `.` or `..`; parents come before children by that very order.
pub struct LayerWriter<W: Write> {
    tar: tar::Builder<Tap<GzEncoder<Tap<W>>>>,
    previous: String,
    entries: u64,
}

impl<W: Write> LayerWriter<W> {
    /// Starts a layer on `out`.
    pub fn new(out: W) -> Self {
        let gzip = GzBuilder::new().write(Tap::new(out), Compression::new(GZIP_LEVEL));
        Self { tar: tar::Builder::new(Tap::new(gzip)), previous: String::new(), entries: 0 }
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// When the path is unfit or out of order, or the stream fails.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<(), RootfsError> {
        self.accept(path)?;
        let mut header = header(tar::EntryType::Directory, mode, 0);
        self.tar
            .append_data(&mut header, format!("{path}/"), io::empty())
            .map_err(RootfsError::stream(Path::new(path)))
    }

    /// Adds a file of exactly `size_bytes` bytes read from `content`.
    ///
    /// # Errors
    /// When the path is unfit or out of order, the content is longer or shorter than announced, or a stream fails.
    pub fn file(
        &mut self,
        path: &str,
        mode: u32,
        size_bytes: u64,
        content: &mut dyn Read,
    ) -> Result<(), RootfsError> {
        self.accept(path)?;
        let mut header = header(tar::EntryType::Regular, mode, size_bytes);
        let mut source = Counted { inner: content.take(size_bytes.saturating_add(1)), count: 0 };
        let limited = (&mut source).take(size_bytes);
        let result = self.tar.append_data(&mut header, path, limited);
        let length_error = |actual_bytes| RootfsError::LayerLength {
            entry: path.to_owned(),
            announced_bytes: size_bytes,
            actual_bytes,
        };
        if source.count < size_bytes && result.is_ok() {
            return Err(length_error(source.count));
        }
        result.map_err(RootfsError::stream(Path::new(path)))?;
        let surplus = io::copy(&mut source, &mut io::sink()).map_err(RootfsError::stream(Path::new(path)))?;
        if surplus > 0 { Err(length_error(source.count)) } else { Ok(()) }
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// When the path is unfit or out of order, or the stream fails.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), RootfsError> {
        self.accept(path)?;
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        self.tar.append_link(&mut header, path, target).map_err(RootfsError::stream(Path::new(path)))
    }

    /// Ends the layer and gives the stream back, with what the layer is known by.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn finish(self) -> Result<(W, LayerDigests), RootfsError> {
        let here = RootfsError::stream(Path::new("layer"));
        let finished = (|| {
            let tar_tap = self.tar.into_inner()?;
            let (gzip, tar_bytes, diff_id) = tar_tap.finish();
            let (mut out, size_bytes, digest) = gzip.finish()?.finish();
            out.flush()?;
            Ok((out, LayerDigests { digest, diff_id, size_bytes, tar_bytes, entries: self.entries }))
        })();
        finished.map_err(here)
    }

    fn accept(&mut self, path: &str) -> Result<(), RootfsError> {
        let plain = !path.is_empty()
            && !path.contains('\0')
            && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if !plain {
            return Err(RootfsError::LayerPath { entry: path.to_owned() });
        }
        if path <= self.previous.as_str() {
            return Err(RootfsError::LayerOrder { entry: path.to_owned(), previous: self.previous.clone() });
        }
        path.clone_into(&mut self.previous);
        self.entries += 1;
        Ok(())
    }
}

fn header(kind: tar::EntryType, mode: u32, size_bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size_bytes);
    header
}

/// Hashes and counts what passes through to a writer.
pub(crate) struct Tap<W: Write> {
    inner: W,
    hash: Sha256,
    count: u64,
}

impl<W: Write> Tap<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), count: 0 }
    }

    /// The writer, the bytes written and their digest.
    pub(crate) fn finish(self) -> (W, u64, String) {
        (self.inner, self.count, digest_text(&self.hash.finalize()))
    }
}

impl<W: Write> Write for Tap<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hash.update(&buffer[..written]);
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Counted<R: Read> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}

/// `sha256:` and the hexadecimal form of a hash.
pub(crate) fn digest_text(hash: &[u8]) -> String {
    format!("sha256:{}", hex(hash))
}

/// The digest of bytes in memory.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    digest_text(&Sha256::digest(bytes))
}

/// The digest of what remains in a stream, and its length.
pub(crate) fn digest_of_stream(stream: &mut dyn Read) -> io::Result<(String, u64)> {
    let mut tap = Tap::new(io::sink());
    io::copy(&mut io::BufReader::with_capacity(1 << 17, stream), &mut tap)?;
    let (_, count, digest) = tap.finish();
    Ok((digest, count))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sample() -> (Vec<u8>, LayerDigests) {
        let mut layer = LayerWriter::new(Vec::new());
        layer.directory("etc", 0o755).unwrap();
        layer.file("etc/hosts", 0o644, 5, &mut &b"local"[..]).unwrap();
        layer.symlink("lib", "usr/lib").unwrap();
        layer.directory("usr", 0o755).unwrap();
        layer.file(&format!("usr/{}", "long/".repeat(40) + "name"), 0o644, 0, &mut io::empty()).unwrap();
        layer.finish().unwrap()
    }

    #[test]
    fn the_same_entries_give_the_same_bytes() {
        let (bytes, digests) = sample();
        assert_eq!(sample(), (bytes.clone(), digests.clone()));
        assert_eq!(digest_of(&bytes), digests.digest);
        assert_eq!(bytes.len() as u64, digests.size_bytes);
        assert_eq!(digests.entries, 5);
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut tar).unwrap();
        assert_eq!(digest_of(&tar), digests.diff_id);
        assert_eq!(tar.len() as u64, digests.tar_bytes);
        // The header has no time and no name: another second or another file name must not show.
        assert_eq!(&bytes[..4], &[0x1f, 0x8b, 8, 0]);
        assert_eq!(&bytes[4..8], &[0; 4]);
    }

    #[test]
    fn entries_out_of_order_or_with_tricks_are_refused() {
        let mut layer = LayerWriter::new(Vec::new());
        layer.directory("usr", 0o755).unwrap();
        for path in ["usr", "etc"] {
            assert!(matches!(layer.directory(path, 0o755), Err(RootfsError::LayerOrder { .. })), "{path}");
        }
        for path in ["", "/usr/a", "usr/../x", "usr//x", "usr/.", "usr/a\0b"] {
            assert!(matches!(layer.symlink(path, "x"), Err(RootfsError::LayerPath { .. })), "{path:?}");
        }
    }

    #[test]
    fn content_of_another_length_is_refused() {
        for announced in [4, 6] {
            let mut layer = LayerWriter::new(Vec::new());
            let refused = layer.file("a", 0o644, announced, &mut &b"12345"[..]);
            assert!(matches!(refused, Err(RootfsError::LayerLength { .. })), "{announced}: {refused:?}");
        }
    }
}
