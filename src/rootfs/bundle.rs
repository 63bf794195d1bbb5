//! An opened bundle: embedded in an executable, or a layout on disk.

mod stream;

use std::collections::BTreeMap;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use fs_err::File;
use serde::Deserialize;

use self::stream::{Verified, Window};
use super::error::RootfsError;
use super::layer::{digest_of, digest_of_stream};
use super::layout::{ANNOTATION_PYTHON, ANNOTATION_ROLE, Descriptor, Index, Manifest};
use super::section::{self, Payload};

/// No document of a bundle (index, manifest, configuration) is larger.
const DOCUMENT_LIMIT: u64 = 1 << 20;
/// No bundle's tar has more entries; a real one has eight.
const TAR_ENTRY_LIMIT: usize = 64;

/// Which of the three layers one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerRole {
    /// L0: C library, Python, certificates, zones. Packs stand on it.
    Runtime,
    /// L1: git and uv.
    Tools,
    /// L2: the pantry program.
    Pantry,
}

impl LayerRole {
    /// The three, from the lowest to the highest.
    pub const ALL: [Self; 3] = [Self::Runtime, Self::Tools, Self::Pantry];

    /// Its word in annotations and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Tools => "tools",
            Self::Pantry => "pantry",
        }
    }
}

/// One layer of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BundleLayer {
    /// Which one it is.
    pub role: LayerRole,
    /// Digest of the compressed bytes.
    pub digest: String,
    /// Digest of the tar inside.
    pub diff_id: String,
    /// Length of the compressed bytes.
    pub size_bytes: u64,
}

/// Where the bytes of one file of the layout are.
#[derive(Debug, Clone)]
struct Place {
    path: PathBuf,
    offset: u64,
    length: u64,
}

impl Place {
    fn open(&self) -> Result<io::Take<File>, RootfsError> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(file.take(self.length))
    }
}

#[derive(Debug)]
enum Source {
    Layout(PathBuf),
    Payload { payload: Payload, path: PathBuf, places: BTreeMap<String, Place> },
}

impl Source {
    fn place(&self, name: &str) -> Result<Option<Place>, RootfsError> {
        match self {
            Self::Payload { places, .. } => Ok(places.get(name).cloned()),
            Self::Layout(root) => {
                let path = root.join(name);
                match fs_err::symlink_metadata(&path) {
                    Ok(found) if found.is_file() => Ok(Some(Place { path, offset: 0, length: found.len() })),
                    Ok(_) => Ok(None),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

/// Name, length and content of a file of the layout.
type LayoutFile = (String, u64, Box<dyn Read + Send>);

/// A bundle whose documents were read and found consistent; its layers are read on demand, never held in memory.
#[derive(Debug)]
pub struct Bundle {
    source: Source,
    origin: PathBuf,
    manifest_digest: String,
    manifest: Vec<u8>,
    config: Vec<u8>,
    layers: Vec<BundleLayer>,
    python_version: String,
    platform: String,
}

#[derive(Deserialize)]
struct LayoutMark {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

#[derive(Deserialize)]
struct ConfigFacts {
    architecture: String,
    os: String,
    rootfs: RootfsFacts,
}

#[derive(Deserialize)]
struct RootfsFacts {
    diff_ids: Vec<String>,
}

impl Bundle {
    /// Opens the bundle in the running executable; `None` when it carries none.
    ///
    /// Reads the section's header and the documents only; [`verify`](Self::verify) reads everything.
    ///
    /// # Errors
    /// When a payload is there and is cut or altered.
    pub fn open_embedded() -> Result<Option<Self>, RootfsError> {
        Self::open_executable(Path::new("/proc/self/exe"))
    }

    /// Opens the bundle in some executable; `None` when it carries none.
    ///
    /// # Errors
    /// As [`open_embedded`](Self::open_embedded).
    pub fn open_executable(path: &Path) -> Result<Option<Self>, RootfsError> {
        let Some(payload) = section::find(path)? else { return Ok(None) };
        let altered =
            |detail: &str| RootfsError::PayloadAltered { path: path.to_owned(), detail: detail.to_owned() };
        let mut places = BTreeMap::new();
        let file = File::open(path)?;
        let window = Window::new(file, payload.tar_offset, payload.tar_bytes)?;
        let mut tar = tar::Archive::new(window);
        let stream = || RootfsError::stream(path);
        for (count, entry) in tar.entries_with_seek().map_err(stream())?.enumerate() {
            let entry = entry.map_err(|_| altered("its table of contents can't be read"))?;
            if count >= TAR_ENTRY_LIMIT {
                return Err(altered("it has too many entries"));
            }
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let (inside, length) = (entry.raw_file_position(), entry.size());
            if inside.checked_add(length).is_none_or(|end| end > payload.tar_bytes) {
                return Err(altered("an entry reaches over its end"));
            }
            places.insert(name, Place { path: path.to_owned(), offset: payload.tar_offset + inside, length });
        }
        let expected = payload.manifest_digest.clone();
        let source = Source::Payload { payload, path: path.to_owned(), places };
        let bundle = Self::open(source, path.to_owned()).map_err(|error| match error {
            RootfsError::Layout { detail, .. } => altered(&detail),
            RootfsError::Digest { what, .. } => altered(&format!("{what} doesn't have its digest")),
            other => other,
        })?;
        if bundle.manifest_digest != expected {
            return Err(altered("its index names another manifest than its header"));
        }
        Ok(Some(bundle))
    }

    /// Opens an OCI layout directory.
    ///
    /// # Errors
    /// When it isn't a layout with one bundle image, a document doesn't have its digest, or a blob is missing or has
    /// another length.
    pub fn open_layout(path: &Path) -> Result<Self, RootfsError> {
        Self::open(Source::Layout(path.to_owned()), path.to_owned())
    }

    fn open(source: Source, origin: PathBuf) -> Result<Self, RootfsError> {
        let invalid = |detail: String| RootfsError::Layout { path: origin.clone(), detail };
        let read = |name: &str| -> Result<Vec<u8>, RootfsError> {
            let place = source.place(name)?.ok_or_else(|| invalid(format!("{name} is missing")))?;
            if place.length > DOCUMENT_LIMIT {
                return Err(RootfsError::TooLarge {
                    path: origin.join(name),
                    size_bytes: place.length,
                    limit_bytes: DOCUMENT_LIMIT,
                });
            }
            let mut bytes = Vec::new();
            place.open()?.read_to_end(&mut bytes).map_err(RootfsError::stream(&origin))?;
            Ok(bytes)
        };
        let blob = |descriptor: &Descriptor| -> Result<Vec<u8>, RootfsError> {
            let bytes = read(&blob_name(&descriptor.digest).map_err(&invalid)?)?;
            let actual = digest_of(&bytes);
            if actual != descriptor.digest {
                return Err(RootfsError::Digest {
                    what: format!("blob {}", descriptor.digest),
                    expected: descriptor.digest.clone(),
                    actual,
                });
            }
            Ok(bytes)
        };
        let mark: LayoutMark = parse(&read("oci-layout")?, "oci-layout").map_err(&invalid)?;
        if mark.version != "1.0.0" {
            return Err(invalid(format!("layout version {} isn't known", mark.version)));
        }
        let index: Index = parse(&read("index.json")?, "index.json").map_err(&invalid)?;
        let [named] = index.manifests.as_slice() else {
            return Err(invalid(format!("it has {} images, not one", index.manifests.len())));
        };
        let manifest_bytes = blob(named)?;
        let manifest: Manifest = parse(&manifest_bytes, "the manifest").map_err(&invalid)?;
        let config_bytes = blob(&manifest.config)?;
        let config: ConfigFacts = parse(&config_bytes, "the configuration").map_err(&invalid)?;
        if manifest.layers.len() != LayerRole::ALL.len()
            || config.rootfs.diff_ids.len() != manifest.layers.len()
        {
            return Err(invalid("it doesn't have the three layers of a bundle".to_owned()));
        }
        let mut layers = Vec::new();
        for ((role, descriptor), diff_id) in
            LayerRole::ALL.into_iter().zip(&manifest.layers).zip(config.rootfs.diff_ids)
        {
            if descriptor.annotations.get(ANNOTATION_ROLE).map(String::as_str) != Some(role.as_str()) {
                return Err(invalid(format!(
                    "{} isn't marked as the {} layer",
                    descriptor.digest,
                    role.as_str()
                )));
            }
            let name = blob_name(&descriptor.digest).map_err(&invalid)?;
            let place = source.place(&name)?.ok_or_else(|| invalid(format!("{name} is missing")))?;
            if place.length != descriptor.size {
                return Err(invalid(format!("{name} has {} bytes, not {}", place.length, descriptor.size)));
            }
            layers.push(BundleLayer {
                role,
                digest: descriptor.digest.clone(),
                diff_id,
                size_bytes: descriptor.size,
            });
        }
        Ok(Self {
            manifest_digest: named.digest.clone(),
            python_version: manifest.annotations.get(ANNOTATION_PYTHON).cloned().unwrap_or_default(),
            platform: format!("{}/{}", config.os, config.architecture),
            manifest: manifest_bytes,
            config: config_bytes,
            layers,
            origin,
            source,
        })
    }

    /// The digest of the image's manifest: the bundle's digest.
    #[must_use]
    pub fn manifest_digest(&self) -> String {
        self.manifest_digest.clone()
    }

    /// The manifest as it is stored.
    #[must_use]
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest
    }

    /// The image's configuration as it is stored.
    #[must_use]
    pub fn config_bytes(&self) -> &[u8] {
        &self.config
    }

    /// The three layers, from the lowest to the highest.
    #[must_use]
    pub fn layers(&self) -> &[BundleLayer] {
        &self.layers
    }

    /// The version of Python in the runtime layer (`3.11.2`).
    #[must_use]
    pub fn python_version(&self) -> String {
        self.python_version.clone()
    }

    /// The platform (`linux/amd64`).
    #[must_use]
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// The executable or folder it was opened from.
    #[must_use]
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// Whether it lies in an executable.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        matches!(self.source, Source::Payload { .. })
    }

    /// A stream over exactly one layer's compressed bytes.
    ///
    /// The stream verifies itself: instead of the last bytes it gives an error when the length or the digest is wrong.
    ///
    /// # Errors
    /// When the file can't be opened, or the layer isn't one of this bundle.
    pub fn layer_reader(&self, layer: &BundleLayer) -> Result<Box<dyn Read + Send>, RootfsError> {
        let missing = || RootfsError::Layout {
            path: self.origin.clone(),
            detail: format!("it has no layer {}", layer.digest),
        };
        if !self.layers.contains(layer) {
            return Err(missing());
        }
        let name = blob_name(&layer.digest).map_err(|_| missing())?;
        let place = self.source.place(&name)?.ok_or_else(missing)?;
        Ok(Box::new(Verified::new(place.open()?, layer.size_bytes, &layer.digest)))
    }

    /// Reads every byte and compares it with its digest.
    ///
    /// # Errors
    /// When anything differs, or can't be read.
    pub fn verify(&self) -> Result<(), RootfsError> {
        if let Source::Payload { payload, path, .. } = &self.source {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(payload.tar_offset))?;
            let (actual, length) =
                digest_of_stream(&mut file.take(payload.tar_bytes)).map_err(RootfsError::stream(path))?;
            if length != payload.tar_bytes {
                return Err(RootfsError::PayloadCut {
                    path: path.clone(),
                    detail: format!("{length} of {} bytes are there", payload.tar_bytes),
                });
            }
            if actual != payload.tar_digest {
                return Err(RootfsError::PayloadAltered {
                    path: path.clone(),
                    detail: format!("its digest is {actual}, it should be {}", payload.tar_digest),
                });
            }
        }
        for layer in &self.layers {
            let mut stream = self.layer_reader(layer)?;
            io::copy(&mut stream, &mut io::sink()).map_err(|source| match source.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => RootfsError::Digest {
                    what: format!("the {} layer", layer.role.as_str()),
                    expected: layer.digest.clone(),
                    actual: source.to_string(),
                },
                _ => RootfsError::Stream { path: self.origin.clone(), source },
            })?;
        }
        Ok(())
    }

    /// The files of the layout, by name: the documents and every blob, in a fixed order.
    pub(crate) fn files(&self) -> Result<Vec<LayoutFile>, RootfsError> {
        let manifest: Manifest = parse(&self.manifest, "the manifest")
            .map_err(|detail| RootfsError::Layout { path: self.origin.clone(), detail })?;
        let mut names = vec!["oci-layout".to_owned(), "index.json".to_owned()];
        for digest in [&self.manifest_digest, &manifest.config.digest]
            .into_iter()
            .chain(self.layers.iter().map(|layer| &layer.digest))
        {
            let name = blob_name(digest)
                .map_err(|detail| RootfsError::Layout { path: self.origin.clone(), detail })?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut files: Vec<LayoutFile> = Vec::new();
        for name in names {
            let place = self.source.place(&name)?.ok_or_else(|| RootfsError::Layout {
                path: self.origin.clone(),
                detail: format!("{name} is missing"),
            })?;
            files.push((name, place.length, Box::new(place.open()?)));
        }
        Ok(files)
    }
}

fn parse<'bytes, T: Deserialize<'bytes>>(bytes: &'bytes [u8], what: &str) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{what} can't be read: {error}"))
}

/// The file name of a blob; only a plain SHA-256 digest has one, so nothing else becomes a path.
pub(crate) fn blob_name(digest: &str) -> Result<String, String> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let plain = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if plain { Ok(format!("blobs/sha256/{hex}")) } else { Err(format!("{digest:?} isn't a SHA-256 digest")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_digests_become_paths() {
        assert!(blob_name(&digest_of(b"x")).is_ok());
        for digest in ["", "sha256:", "sha256:../../etc/passwd", "sha512:00", &digest_of(b"x").to_uppercase()]
        {
            assert!(blob_name(digest).is_err(), "{digest}");
        }
    }
}
