//! The file operations that blobs stand on: the system's, or in tests a disk that fails and loses power.
//!
//! Everything that this part does to a disk goes through [`Files`], so that a test sees each write, sync and rename,
//! and can take back those that nothing made durable. Nothing here knows blobs.

mod real;
#[cfg(test)]
mod simulated;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::path::Path;
use std::time::SystemTime;

pub(super) use real::RealFiles;
#[cfg(test)]
pub(crate) use simulated::{Call, Disk};

/// What an open file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To be read.
    Read,
    /// To be read and written.
    Write,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    /// A link, a socket and their like.
    Other,
}

/// An entry of a folder.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) name: OsString,
    pub(crate) kind: Kind,
    /// In bytes.
    pub(crate) length: u64,
    /// When it was written to last.
    pub(crate) modified: SystemTime,
}

/// What is known of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// In bytes.
    pub(crate) length: u64,
    /// How many names it has.
    pub(crate) names: u64,
    /// Which file it is, of those of its disk.
    pub(crate) number: u64,
    /// When it was written to last.
    pub(crate) modified: SystemTime,
}

/// A file system. Nothing is durable before [`OpenFile::sync`] (content) and [`Files::sync_folder`] (names) returned.
pub(crate) trait Files: Send + Sync + fmt::Debug {
    /// Makes a folder and those above it; `false` when it was there.
    fn make_folder(&self, path: &Path) -> io::Result<bool>;
    /// Makes a file, or empties the one that is there, for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Opens a file that is there.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn OpenFile>>;
    /// Gives a file another name, in the place of what has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// What is in a folder; what goes meanwhile may be missing.
    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>>;
}

/// An open file. What it gives stays the same when its name goes.
pub(crate) trait OpenFile: Send + Sync + fmt::Debug {
    /// Writes some of these pieces at `offset`; gives how many bytes.
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Reads from `offset` into the spare room of `buffer`; gives how many bytes, 0 at the end.
    fn read_at(&self, buffer: &mut Vec<u8>, offset: u64) -> io::Result<usize>;
    /// Reads from `offset` over the bytes of `out`; gives how many, 0 at the end.
    fn read_into(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;
    /// As [`OpenFile::read_into`], but only what is there without waiting for a disk, which may be nothing at all. It
    /// tells no errors, nor the end: who reads on learns of them.
    fn read_cached(&self, out: &mut [u8], offset: u64) -> usize;
    /// Length, names, and whether it is the same as before.
    fn status(&self) -> io::Result<Status>;
    /// Makes it so long, by cutting it off.
    fn cut(&self, length: u64) -> io::Result<()>;
    /// Forbids writing to whoever opens it next.
    fn seal(&self) -> io::Result<()>;
    /// Makes the content durable. After an error nobody can say which of it is.
    fn sync(&self) -> io::Result<()>;
    /// Asks for what is read from now on to come from the disk, as the system's cache says little about that.
    fn read_anew(&self);
    /// Asks for these bytes to be written out soon; promises nothing, so it cannot fail.
    fn push_out(&self, from: u64, length: NonZeroU64);
}

/// Reads a file from the start to `end`, for those who read in turn; a file that is shorter gives an error.
pub(super) struct Sequential {
    file: Box<dyn OpenFile>,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    taken: usize,
}

impl Sequential {
    pub(super) fn new(file: Box<dyn OpenFile>, end: u64, buffer_bytes: usize) -> Self {
        Self { file, at: 0, end, buffer: Vec::with_capacity(buffer_bytes), taken: 0 }
    }
}

impl io::Read for Sequential {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.buffer.len() && self.at < self.end && !out.is_empty() {
            self.buffer.clear();
            self.taken = 0;
            match self.file.read_at(&mut self.buffer, self.at)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.at += count as u64,
            }
            // What lies beyond the end belongs to nobody.
            let beyond = usize::try_from(self.at.saturating_sub(self.end)).unwrap_or(usize::MAX);
            self.buffer.truncate(self.buffer.len().saturating_sub(beyond));
        }
        let count = out.len().min(self.buffer.len() - self.taken);
        out[..count].copy_from_slice(&self.buffer[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}
