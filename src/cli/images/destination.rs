//! Where a pulled image goes: a layout that is not there at all, or is there whole.

use std::path::{Path, PathBuf};

use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Mutex, MutexGuard};

use super::content::{Descriptor, Index};
use crate::cli::failure::Failure;
use crate::names::Digest;

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Tars are written in blocks of this size.
const BLOCK: u64 = 512;

/// A layout that is being written, under another name in the same folder; it goes away with this value unless it is
/// finished.
pub(in crate::cli) struct Destination {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    Folder(tempfile::TempDir),
    Archive { place: tempfile::TempPath, file: Mutex<tokio::fs::File> },
}

/// Takes the bytes of one blob.
pub(super) enum Writer<'a> {
    File(tokio::fs::File),
    Member { file: MutexGuard<'a, tokio::fs::File>, size: u64 },
}

impl Destination {
    /// A name that ends in `.tar` becomes an archive, any other a folder.
    pub(in crate::cli) fn create(path: &Path) -> Result<Self, Failure> {
        let taken = match fs_err::symlink_metadata(path) {
            Ok(there) => !there.is_dir() || fs_err::read_dir(path)?.next().is_some(),
            Err(_) => false,
        };
        if taken {
            let detail = format!("{} is there already", path.display());
            return Err(Failure::answered(409, "destination_exists", detail, None)
                .with_hint(Some("name another, or remove it first".to_owned())));
        }
        // Without a slash at its end, which nothing but a folder may have.
        let path: PathBuf = std::path::absolute(path)?.components().collect();
        let parent = path.parent().unwrap_or(Path::new("/"));
        let bad = |error: std::io::Error| {
            Failure::usage("destination_unwritable", format!("cannot write in {}: {error}", parent.display()))
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".pantry-pull-");
        let is_archive = path.extension().is_some_and(|extension| extension == "tar");
        let kind = if is_archive {
            let (file, place) = builder.tempfile_in(parent).map_err(bad)?.into_parts();
            Kind::Archive { place, file: Mutex::new(tokio::fs::File::from_std(file)) }
        } else {
            let folder = builder.tempdir_in(parent).map_err(bad)?;
            Kind::Folder(folder)
        };
        Ok(Self { path, kind })
    }

    /// Begins a blob of a size; an archive takes one after the other.
    pub(super) async fn blob(&self, digest: &Digest, size: u64) -> Result<Writer<'_>, Failure> {
        let name = format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex());
        self.begin(&name, size).await
    }

    async fn begin(&self, name: &str, size: u64) -> Result<Writer<'_>, Failure> {
        match &self.kind {
            Kind::Folder(folder) => {
                let path = folder.path().join(name);
                if let Some(parent) = path.parent() {
                    fs_err::create_dir_all(parent)?;
                }
                Ok(Writer::File(tokio::fs::File::create(&path).await?))
            }
            Kind::Archive { file, .. } => {
                let mut file = file.lock().await;
                file.write_all(&head(name, size)?).await?;
                Ok(Writer::Member { file, size })
            }
        }
    }

    /// Writes a small blob whole.
    pub(super) async fn document(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Failure> {
        let mut writer = self.blob(digest, bytes.len() as u64).await?;
        writer.write(bytes).await?;
        writer.finish().await
    }

    /// Writes the index and gives the layout its name.
    pub(in crate::cli) async fn finish(self, images: Vec<Descriptor>) -> Result<(), Failure> {
        let index = serde_json::to_vec(&Index::new(images)).unwrap_or_default();
        for (name, bytes) in [("oci-layout", LAYOUT), ("index.json", &index)] {
            let mut writer = self.begin(name, bytes.len() as u64).await?;
            writer.write(bytes).await?;
            writer.finish().await?;
        }
        let Self { path, kind } = self;
        let parent = path.parent().unwrap_or(Path::new("/"));
        match kind {
            Kind::Folder(folder) => {
                open_to_readers(folder.path(), 0o755)?;
                for inner in ["blobs/sha256", "blobs/sha512", "blobs", "."] {
                    sync(&folder.path().join(inner))?;
                }
                fs_err::rename(folder.path(), &path)?;
                // What has been renamed is no longer there to be removed.
                let _ = folder.keep();
            }
            Kind::Archive { place, file } => {
                let mut file = file.into_inner();
                // Two empty blocks end an archive.
                file.write_all(&[0; 1024]).await?;
                file.flush().await?;
                file.sync_all().await?;
                open_to_readers(&place, 0o644)?;
                place.persist_noclobber(&path).map_err(|error| Failure::from(error.error))?;
            }
        }
        sync(parent)
    }
}

impl Writer<'_> {
    /// Takes the next bytes.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::File(file) => file.write_all(bytes).await?,
            Self::Member { file, .. } => file.write_all(bytes).await?,
        }
        Ok(())
    }

    /// Ends the blob; it is on the disk, or will be with the archive.
    pub(super) async fn finish(self) -> Result<(), Failure> {
        match self {
            Self::File(mut file) => {
                file.flush().await?;
                file.sync_all().await?;
            }
            Self::Member { mut file, size } => file.write_all(&padding(size)).await?,
        }
        Ok(())
    }
}

/// The head of a member, with a long name before it where the name is long.
fn head(name: &str, size: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    if name.len() > 100 {
        let mut long = tar::Header::new_gnu();
        long.set_path("././@LongLink")?;
        long.set_entry_type(tar::EntryType::GNULongName);
        long.set_size(name.len() as u64 + 1);
        long.set_mode(0o644);
        long.set_cksum();
        bytes.extend_from_slice(long.as_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend(padding(name.len() as u64 + 1));
    }
    let mut header = tar::Header::new_gnu();
    header.set_path(&name[..name.len().min(100)])?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    Ok(bytes)
}

fn padding(size: u64) -> Vec<u8> {
    vec![0; usize::try_from((BLOCK - size % BLOCK) % BLOCK).unwrap_or_default()]
}

/// Temporary files are their owner's alone; what comes of them is as readable as other files.
fn open_to_readers(path: &Path, mode: u32) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}

/// Makes a folder's entries durable; one that is not there has none.
fn sync(folder: &Path) -> Result<(), Failure> {
    match fs_err::File::open(folder) {
        Ok(folder) => Ok(folder.sync_all()?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_layout_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let there = || std::fs::read_dir(folder.path()).unwrap().count();
        for name in ["layout", "layout.tar"] {
            let path = folder.path().join(name);
            let begun = Destination::create(&path).unwrap();
            begun.document(&Digest::of(b"a"), b"a").await.unwrap();
            assert!(!path.exists());
            let before = there();
            drop(begun);
            assert_eq!(there(), before - 1);
            let begun = Destination::create(&path).unwrap();
            begun.document(&Digest::of(b"a"), b"a").await.unwrap();
            begun.document(&Digest::sha512_of(b"b"), b"b").await.unwrap();
            let (a, b) = (Descriptor::of("x", b"a"), Digest::sha512_of(b"b"));
            begun.finish(vec![a.clone()]).await.unwrap();
            let read = super::super::Source::open(&path).await.unwrap();
            assert_eq!(read.images()[0].digest, a.digest);
            assert_eq!(read.blob(&b).unwrap().unwrap().size, 1);
            assert!(read.blob(&Digest::of(b"c")).unwrap().is_none());
            let refused = Destination::create(&path).err().unwrap();
            assert!(format!("{refused:?}").contains("destination_exists"));
        }
        assert_eq!(there(), 2);
        let begun = Destination::create(&folder.path().join("slash.tar/")).unwrap();
        begun.finish(Vec::new()).await.unwrap();
        assert!(folder.path().join("slash.tar").is_file());
    }
}
