//! What a person wants to see of a bundle, and a copy of it.

use std::fmt;
use std::io;
use std::path::Path;

use flate2::read::GzDecoder;
use serde::Serialize;

use super::bundle::{Bundle, LayerRole};
use super::error::RootfsError;

/// What a bundle is.
#[derive(Debug, Clone, Serialize)]
pub struct ShowReport {
    /// Digest of the manifest.
    pub bundle_digest: String,
    /// Whether it lies in an executable.
    pub embedded: bool,
    /// The platform it is for.
    pub platform: String,
    /// The version of its Python.
    pub python_version: String,
    /// Its layers.
    pub layers: Vec<ShownLayer>,
    /// Length of all layers as they are stored.
    pub compressed_bytes: u64,
    /// Length of all files in them.
    pub unpacked_bytes: u64,
    /// Number of entries in them.
    pub entries: u64,
}

/// One layer of a [`ShowReport`].
#[derive(Debug, Clone, Serialize)]
pub struct ShownLayer {
    /// Which one.
    pub role: LayerRole,
    /// Digest of its compressed bytes.
    pub digest: String,
    /// Digest of its tar.
    pub diff_id: String,
    /// Length as stored.
    pub compressed_bytes: u64,
    /// Length of its files.
    pub unpacked_bytes: u64,
    /// Number of its entries.
    pub entries: u64,
}

impl fmt::Display for ShowReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.embedded { "embedded" } else { "layout" };
        writeln!(out, "bundle   {} ({place})", self.bundle_digest)?;
        writeln!(out, "platform {}", self.platform)?;
        writeln!(out, "python   {}", self.python_version)?;
        for layer in &self.layers {
            writeln!(
                out,
                "{:<8} {} {:>10} stored {:>11} unpacked {:>5} entries",
                layer.role.as_str(),
                layer.digest,
                layer.compressed_bytes,
                layer.unpacked_bytes,
                layer.entries
            )?;
        }
        write!(
            out,
            "total    {} stored, {} unpacked, {} entries",
            self.compressed_bytes, self.unpacked_bytes, self.entries
        )
    }
}

/// What kind of thing an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A symbolic link.
    Symlink,
    /// Anything else; a sound bundle has none.
    Other,
}

/// One entry of a layer.
#[derive(Debug, Clone, Serialize)]
pub struct ListedEntry {
    /// Its absolute path in the root.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Its permission bits.
    pub mode: u32,
    /// Its length.
    pub size_bytes: u64,
    /// Where it points, when it is a link.
    pub target: Option<String>,
    /// The layer it lies in.
    pub layer: LayerRole,
}

impl fmt::Display for ListedEntry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            EntryKind::Directory => 'd',
            EntryKind::File => '-',
            EntryKind::Symlink => 'l',
            EntryKind::Other => '?',
        };
        write!(
            out,
            "{kind}{:04o} {:>10} {:<7} {}",
            self.mode,
            self.size_bytes,
            self.layer.as_str(),
            self.path
        )?;
        match &self.target {
            Some(target) => write!(out, " -> {target}"),
            None => Ok(()),
        }
    }
}

/// Tells what a bundle is; reads every layer once.
///
/// # Errors
/// When a layer is cut or altered.
pub fn show(bundle: &Bundle) -> Result<ShowReport, RootfsError> {
    let mut layers = Vec::new();
    for layer in bundle.layers() {
        let (mut unpacked_bytes, mut entries) = (0, 0);
        each_entry(bundle, layer.role, &mut |entry| {
            unpacked_bytes += entry.size_bytes;
            entries += 1;
        })?;
        layers.push(ShownLayer {
            role: layer.role,
            digest: layer.digest.clone(),
            diff_id: layer.diff_id.clone(),
            compressed_bytes: layer.size_bytes,
            unpacked_bytes,
            entries,
        });
    }
    Ok(ShowReport {
        bundle_digest: bundle.manifest_digest(),
        embedded: bundle.is_embedded(),
        platform: bundle.platform().to_owned(),
        python_version: bundle.python_version(),
        compressed_bytes: layers.iter().map(|layer| layer.compressed_bytes).sum(),
        unpacked_bytes: layers.iter().map(|layer| layer.unpacked_bytes).sum(),
        entries: layers.iter().map(|layer| layer.entries).sum(),
        layers,
    })
}

/// Lists the entries of every layer, in the order of the layers and of their paths, one call of `each` an entry.
///
/// # Errors
/// When a layer is cut or altered.
pub fn list(bundle: &Bundle, each: &mut dyn FnMut(ListedEntry)) -> Result<(), RootfsError> {
    LayerRole::ALL.into_iter().try_for_each(|role| each_entry(bundle, role, each))
}

fn each_entry(
    bundle: &Bundle,
    role: LayerRole,
    each: &mut dyn FnMut(ListedEntry),
) -> Result<(), RootfsError> {
    let stream_error = || RootfsError::stream(bundle.origin());
    for layer in bundle.layers().iter().filter(|layer| layer.role == role) {
        let mut stream = bundle.layer_reader(layer)?;
        let mut tar = tar::Archive::new(GzDecoder::new(&mut stream));
        for entry in tar.entries().map_err(stream_error())? {
            let entry = entry.map_err(stream_error())?;
            let kind = match entry.header().entry_type() {
                tar::EntryType::Directory => EntryKind::Directory,
                tar::EntryType::Regular => EntryKind::File,
                tar::EntryType::Symlink => EntryKind::Symlink,
                _ => EntryKind::Other,
            };
            each(ListedEntry {
                path: format!("/{}", String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/')),
                kind,
                mode: entry.header().mode().map_err(stream_error())?,
                size_bytes: entry.size(),
                target: entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned()),
                layer: role,
            });
        }
        drop(tar);
        // Whatever follows the archive still counts for the digest.
        io::copy(&mut stream, &mut io::sink()).map_err(stream_error())?;
    }
    Ok(())
}

/// Copies a bundle's layout to a new directory, verified.
///
/// # Errors
/// When `out` exists, the bundle isn't whole, or a file operation fails.
pub fn export(bundle: &Bundle, out: &Path) -> Result<(), RootfsError> {
    if fs_err::symlink_metadata(out).is_ok() {
        return Err(RootfsError::OutputExists { path: out.to_owned() });
    }
    bundle.verify()?;
    fs_err::create_dir_all(out.join("blobs/sha256"))?;
    for (name, _, mut content) in bundle.files()? {
        let mut file = fs_err::File::create_new(out.join(&name))?;
        io::copy(&mut content, &mut file).map_err(RootfsError::stream(&out.join(&name)))?;
        file.sync_all()?;
    }
    Bundle::open_layout(out)?.verify()
}
