//! Where a pushed image comes from.

use std::collections::HashMap;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use serde::Deserialize;

use super::archive::{Archive, Piece};
use super::content::{Descriptor, Index, MANIFEST_CAP};
use super::docker_archive;
use super::graph::Reads;
use super::registry::mismatch;
use crate::cli::failure::Failure;
use crate::names::Digest;

/// Files are read in pieces of this size.
const PIECE: u64 = 256 * 1024;

/// An OCI image layout, or what `docker save` wrote.
pub(in crate::cli) struct Source {
    place: Place,
    index: Index,
    /// Digests under which other members than `blobs/…` are known.
    pub(super) members: HashMap<Digest, String>,
    /// Documents that are not in the file, but follow from it.
    pub(super) made: HashMap<Digest, Vec<u8>>,
}

enum Place {
    /// The open folder: its members are looked for below it alone.
    Folder(std::fs::File),
    Archive(Archive),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutVersion {
    image_layout_version: String,
}

impl Source {
    /// Opens a folder or a tar.
    pub(in crate::cli) async fn open(path: &Path) -> Result<Self, Failure> {
        let kind = fs_err::metadata(path).map_err(|error| {
            Failure::usage("source_unreadable", error.to_string())
                .with_hint(Some("name the folder of an OCI image layout, or a tar of one".to_owned()))
        })?;
        let place = if kind.is_dir() {
            Place::Folder(fs_err::File::open(path)?.into_parts().0)
        } else if kind.is_file() {
            Place::Archive(Archive::open(path)?)
        } else {
            // A pipe or a device has no places to go back to.
            let detail = format!("{} is neither a folder nor a file", path.display());
            return Err(Failure::usage("source_unreadable", detail)
                .with_hint(Some("write the image to a file first, and name that".to_owned())));
        };
        let bad = |why: &str| {
            Failure::usage("source_not_valid", format!("{} is no OCI image layout: {why}", path.display()))
                .with_hint(Some(
                    "make one with `skopeo copy … oci:DIR`, or by `docker save -o FILE`".to_owned(),
                ))
        };
        let mut source =
            Self { place, index: Index::new(Vec::new()), members: HashMap::new(), made: HashMap::new() };
        let Some(layout) = source.small("oci-layout")? else {
            let Some(manifest) = source.small("manifest.json")? else {
                return Err(bad("it has no `oci-layout`"));
            };
            source.index = docker_archive::adopt(&mut source, &manifest).await?;
            return Ok(source);
        };
        let version: LayoutVersion =
            serde_json::from_slice(&layout).map_err(|_| bad("its `oci-layout` is no JSON"))?;
        if !version.image_layout_version.starts_with("1.") {
            return Err(bad("its version is none that Pantry knows"));
        }
        let index = source.small("index.json")?.ok_or_else(|| bad("it has no `index.json`"))?;
        source.index =
            serde_json::from_slice(&index).map_err(|error| bad(&format!("`index.json`: {error}")))?;
        Ok(source)
    }

    /// The images that are in it.
    pub(in crate::cli) fn images(&self) -> &[Descriptor] {
        &self.index.manifests
    }

    /// All images as one; their documents must be in it.
    pub(in crate::cli) fn whole(&mut self) -> Descriptor {
        let mut images = self.index.manifests.clone();
        for image in &mut images {
            // What a layout says of its own members is not the registry's matter.
            image.annotations = None;
        }
        let bytes = serde_json::to_vec(&Index::new(images)).unwrap_or_default();
        let descriptor = Descriptor::of(super::content::INDEX_TYPE, &bytes);
        self.made.insert(descriptor.digest.clone(), bytes);
        descriptor
    }

    /// A small file by its name.
    fn small(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.member(name)?.map(|piece| whole(&piece)).transpose()
    }

    /// Where a file's bytes lie.
    pub(super) fn member(&self, name: &str) -> Result<Option<Piece>, Failure> {
        match &self.place {
            Place::Archive(archive) => Ok(archive.find(name)),
            Place::Folder(folder) => below(folder, name),
        }
    }

    /// Where a blob's bytes lie; none where it is not in the source.
    pub(in crate::cli) fn blob(&self, digest: &Digest) -> Result<Option<Piece>, Failure> {
        match self.members.get(digest) {
            Some(member) => self.member(member),
            None => self.member(&format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())),
        }
    }
}

/// A regular file below a folder. Names and links are the folder's maker's, who must not choose other files of the
/// caller's to be sent away; nor something whose opening or reading never ends.
fn below(folder: &std::fs::File, name: &str) -> Result<Option<Piece>, Failure> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let refused = |why: &str| {
        let detail = format!("the source's own member {:?} {why}", crate::cli::output::safe(name));
        Failure::rejected("archive_not_valid", detail)
            .with_hint(Some("do not push it: whoever made it wants what it does not hold".to_owned()))
    };
    let file = match openat2(folder, name, flags, Mode::empty(), inside) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::XDEV | Errno::LOOP) => return Err(refused("leads out of it")),
        Err(Errno::NXIO) => return Err(refused("is no regular file")),
        Err(error) => return Err(std::io::Error::from(error).into()),
    };
    let kind = file.metadata()?;
    if !kind.is_file() {
        return Err(refused("is no regular file"));
    }
    Ok(Some(Piece { file: Arc::new(file), offset: 0, size: kind.len() }))
}

impl Reads for Source {
    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        if let Some(bytes) = self.made.get(&descriptor.digest) {
            return Ok(bytes.clone());
        }
        let piece = self.blob(&descriptor.digest)?.ok_or_else(|| missing(&descriptor.digest))?;
        let bytes = whole(&piece)?;
        if descriptor.digest.names(&bytes) { Ok(bytes) } else { Err(mismatch(&descriptor.digest)) }
    }
}

/// What the source's own documents name, and it does not have.
pub(in crate::cli) fn missing(digest: &Digest) -> Failure {
    Failure::rejected("source_incomplete", format!("the source lacks {digest}"))
        .with_hint(Some("it may hold one platform only: choose that by --platform".to_owned()))
}

fn whole(piece: &Piece) -> Result<Vec<u8>, Failure> {
    if piece.size > MANIFEST_CAP {
        let detail =
            format!("a document of {} bytes is more than the {MANIFEST_CAP} that there may be", piece.size);
        return Err(Failure::rejected("manifest_not_valid", detail));
    }
    let mut bytes = vec![0; usize::try_from(piece.size).unwrap_or_default()];
    piece.file.read_exact_at(&mut bytes, piece.offset)?;
    Ok(bytes)
}

/// The bytes of a piece, read off the thread that waits for the network.
pub(super) fn stream(piece: Piece) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    unfold(Some((piece, 0)), |at| async {
        let (piece, done) = at?;
        let left = piece.size - done;
        if left == 0 {
            return None;
        }
        let size = usize::try_from(left.min(PIECE)).unwrap_or_default();
        let (file, from) = (piece.file.clone(), piece.offset + done);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; size];
            file.read_exact_at(&mut bytes, from).map(|()| Bytes::from(bytes))
        });
        match read.await.map_err(std::io::Error::other).flatten() {
            Ok(bytes) => Some((Ok(bytes), Some((piece, done + size as u64)))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What `docker save` would write, with this layer.
    fn saved(folder: &Path, layer: &str) {
        std::fs::write(folder.join("c.json"), "{}").unwrap();
        let manifest = serde_json::json!([{ "Config": "c.json", "Layers": [layer] }]);
        std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    }

    #[tokio::test]
    async fn a_folder_gives_only_regular_files_below_it() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("saved");
        std::fs::create_dir_all(folder.join("inner")).unwrap();
        std::fs::write(outer.path().join("secret"), "of the caller").unwrap();
        std::fs::write(folder.join("inner/layer.tar"), "own").unwrap();
        std::os::unix::fs::symlink("inner/layer.tar", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("../secret", folder.join("out")).unwrap();
        std::os::unix::fs::symlink("/proc/self/root", folder.join("root")).unwrap();
        nix::unistd::mkfifo(&folder.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let absolute = outer.path().join("secret").to_str().unwrap().to_owned();
        for layer in ["inner/layer.tar", "./inner/../inner/layer.tar", "link"] {
            saved(&folder, layer);
            assert_eq!(Source::open(&folder).await.unwrap().images().len(), 1, "{layer}");
        }
        for layer in
            ["../secret", &absolute, "out", "root/etc/passwd", "/dev/zero", "pipe", "inner", "none", ""]
        {
            saved(&folder, layer);
            let opening = tokio::time::timeout(std::time::Duration::from_secs(20), Source::open(&folder));
            let refused = opening.await.unwrap().err().unwrap();
            assert!(format!("{refused:?}").contains("archive_not_valid"), "{layer}: {refused:?}");
        }
        std::fs::remove_file(folder.join("manifest.json")).unwrap();
        std::os::unix::fs::symlink("../secret", folder.join("oci-layout")).unwrap();
        assert!(Source::open(&folder).await.is_err());
        let refused = Source::open(&folder.join("pipe")).await.err().unwrap();
        assert!(format!("{refused:?}").contains("source_unreadable"));
    }
}
