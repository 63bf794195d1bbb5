//! The system's files.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::{Access, Files, Kind, Listed, OpenFile, Status};

/// Nobody writes to a sealed file again.
const SEALED_MODE: u32 = 0o444;

/// The system's files; errors name the path, except those of reads and writes.
#[derive(Debug)]
pub(in crate::blobs) struct RealFiles;

#[derive(Debug)]
struct RealFile(fs_err::File);

impl Files for RealFiles {
    fn make_folder(&self, path: &Path) -> io::Result<bool> {
        match fs_err::create_dir(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs_err::create_dir_all(path)?;
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let mut options = fs_err::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn OpenFile>> {
        let file = fs_err::OpenOptions::new().read(true).write(access == Access::Write).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs_err::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs_err::remove_file(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        fs_err::File::open(path)?.sync_all()
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in fs_err::read_dir(folder)? {
            let entry = entry?;
            let found = match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                found => found?,
            };
            let kind = match found.file_type() {
                kind if kind.is_file() => Kind::File,
                kind if kind.is_dir() => Kind::Folder,
                _ => Kind::Other,
            };
            let modified = found.modified()?;
            listed.push(Listed { name: entry.file_name(), kind, length: found.len(), modified });
        }
        Ok(listed)
    }
}

impl OpenFile for RealFile {
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.0, pieces, offset)?)
    }

    fn read_at(&self, buffer: &mut Vec<u8>, offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pread(&self.0, rustix::buffer::spare_capacity(buffer), offset)?)
    }

    fn read_into(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pread(&self.0, out, offset)?)
    }

    fn read_cached(&self, out: &mut [u8], offset: u64) -> usize {
        // Not all file systems can tell, and not all kernels; their refusal is as good as having nothing.
        let out = &mut [IoSliceMut::new(out)];
        rustix::io::preadv2(&self.0, out, offset, rustix::io::ReadWriteFlags::NOWAIT).unwrap_or(0)
    }

    fn status(&self) -> io::Result<Status> {
        let found = self.0.metadata()?;
        if !found.is_file() {
            return Err(ErrorKind::IsADirectory.into());
        }
        let (names, number) = (found.nlink(), found.ino());
        Ok(Status { length: found.len(), names, number, modified: found.modified()? })
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn seal(&self) -> io::Result<()> {
        self.0.set_permissions(std::fs::Permissions::from_mode(SEALED_MODE))
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn read_anew(&self) {
        // A refusal of the advice is no error.
        _ = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn push_out(&self, from: u64, length: NonZeroU64) {
        // On dirty pages this advice starts their writing and keeps them cached. It promises nothing, so a refusal
        // is no error: durability comes from the sync alone.
        _ = rustix::fs::fadvise(&self.0, from, Some(length), rustix::fs::Advice::DontNeed);
    }
}
