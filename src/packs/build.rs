//! Building a pack and putting it into a repository.

use std::io::{self, BufWriter, Read};
use std::path::PathBuf;
use std::sync::mpsc;

use crate::blobs::{Blobs, Stored};
use crate::names::{Digest, Millis, RepoName, Tag};
use crate::repos;
use crate::rootfs::LayerDigests;
use crate::state::{StateError, Tx};
use crate::trees::LayerRef;

use super::bases::Base;
use super::canonical::canonical_json;
use super::contents::Contents;
use super::error::PackError;
use super::image::{
    CONFIG_TYPE, Config, Descriptor, EPOCH, History, LAYER_TYPE, MANIFEST_TYPE, Manifest, RootFs, Run,
};
use super::info::PackInfo;
use super::{ANNOTATION, APP_DIR, DEPS_DIR, USER_ID, environment};

/// No layer that is built here is larger, compressed.
const LAYER_CAP: u64 = 4 << 30;

/// What a pack is built from.
pub struct BuildInput {
    /// What it will say of itself.
    pub info: PackInfo,
    /// What it stands on.
    pub base: Base,
    /// A directory that becomes `/opt/deps`; empty ones and `None` make no layer.
    pub dependencies: Option<PathBuf>,
    /// The directory that becomes `/opt/app`.
    pub source: PathBuf,
}

/// A pack whose bytes are stored and which no record names yet.
#[derive(Clone, Debug)]
pub struct BuiltPack {
    /// The manifest.
    pub manifest: Stored,
    /// Its bytes.
    pub manifest_bytes: Vec<u8>,
    /// The image config.
    pub config: Stored,
    /// The layers, bottom first.
    pub layers: Vec<(LayerRef, Stored)>,
    /// The media type of the manifest.
    pub media_type: &'static str,
}

/// Builds a pack: layers, config and manifest are stored, and the caller's transaction places them. Blocking.
///
/// The same input gives the same digest: only names, contents, execute bits and links of the directories count.
///
/// # Errors
/// [`PackError`] when the directories hold what a pack may not, or storing fails.
pub fn build(blobs: &Blobs, input: &BuildInput) -> Result<BuiltPack, PackError> {
    input.info.check()?;
    let base = &input.base;
    let mut layers = vec![(base.layer.clone(), Stored::known(base.layer.digest.clone(), base.size))];
    let mut history = vec!["pantry: base"];
    if let Some(dependencies) = &input.dependencies {
        let contents = Contents::of(dependencies)?;
        if !contents.is_empty() {
            layers.push(store_layer(blobs, contents, DEPS_DIR)?);
            history.push("pantry: dependencies");
        }
    }
    layers.push(store_layer(blobs, Contents::of(&input.source)?, APP_DIR)?);
    history.push("pantry: application");
    let config_bytes = config(&input.info, &layers, &history)?.into_bytes();
    let config = blobs.put_reader_blocking(&mut &config_bytes[..], LAYER_CAP)?;
    let manifest_bytes = manifest(&input.info, &config, &layers)?.into_bytes();
    let manifest = blobs.put_reader_blocking(&mut &manifest_bytes[..], LAYER_CAP)?;
    Ok(BuiltPack { manifest, manifest_bytes, config, layers, media_type: MANIFEST_TYPE })
}

fn document(document: &'static str, info: &PackInfo, error: &serde_json::Error) -> PackError {
    PackError::Document { document, digest: info.base.clone(), why: error.to_string() }
}

fn config(info: &PackInfo, layers: &[(LayerRef, Stored)], history: &[&str]) -> Result<String, PackError> {
    let (os, architecture) = info
        .os_and_architecture()
        .map_err(|why| PackError::Info { field: "platform", why: why.to_owned() })?;
    let entrypoint = info
        .commands
        .first()
        .map(|first| std::iter::once(&first.path).chain(&first.arguments).cloned().collect())
        .unwrap_or_default();
    let config = Config {
        created: EPOCH.to_owned(),
        architecture: architecture.to_owned(),
        os: os.to_owned(),
        config: Run {
            user: format!("{USER_ID}:{USER_ID}"),
            env: environment().into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
            entrypoint,
            working_dir: APP_DIR.to_owned(),
        },
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: layers.iter().map(|(layer, _)| layer.diff_id.clone()).collect(),
        },
        history: history
            .iter()
            .map(|by| History { created: EPOCH.to_owned(), created_by: (*by).to_owned() })
            .collect(),
    };
    canonical_json(&config).map_err(|error| document("config", info, &error))
}

fn manifest(info: &PackInfo, config: &Stored, layers: &[(LayerRef, Stored)]) -> Result<String, PackError> {
    let annotation = canonical_json(info).map_err(|error| document("annotation", info, &error))?;
    let descriptor = |media_type: &str, stored: &Stored| Descriptor {
        media_type: media_type.to_owned(),
        digest: stored.digest.clone(),
        size: stored.size,
    };
    let title = |name: &str| format!("org.opencontainers.image.{name}");
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.to_owned(),
        config: descriptor(CONFIG_TYPE, config),
        layers: layers.iter().map(|(_, stored)| descriptor(LAYER_TYPE, stored)).collect(),
        annotations: [
            (ANNOTATION.to_owned(), annotation),
            (title("title"), info.name.to_string()),
            (title("version"), info.version.to_string()),
            (title("description"), info.summary.clone()),
            (title("licenses"), info.license.clone()),
        ]
        .into(),
    };
    canonical_json(&manifest).map_err(|error| document("manifest", info, &error))
}

/// The bytes of a layer as a thread writes them; its end is told from its failure.
struct Written {
    pipe: io::PipeReader,
    result: mpsc::Receiver<Result<LayerDigests, PackError>>,
    finished: Option<Result<LayerDigests, PackError>>,
}

impl Read for Written {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.pipe.read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            // Without this, a layer that broke off half way would be stored as a whole one.
            let result = self
                .finished
                .get_or_insert_with(|| self.result.recv().unwrap_or(Err(PackError::Interrupted)));
            if result.is_err() {
                return Err(io::Error::other("the layer could not be written"));
            }
        }
        Ok(read)
    }
}

/// Writes a directory as a layer below `place`, streaming: a pipe is all that is in memory.
fn store_layer(blobs: &Blobs, contents: Contents, place: &str) -> Result<(LayerRef, Stored), PackError> {
    let (pipe, out) = io::pipe()?;
    let (send, result) = mpsc::sync_channel(1);
    let prefix = place.trim_start_matches('/').to_owned();
    let writer = std::thread::Builder::new().name("layer-write".to_owned()).spawn(move || {
        let mut out = BufWriter::with_capacity(64 * 1024, out);
        let written = contents.write(&mut out, &prefix);
        // The verdict before the end of the stream, which comes with the drop of `out`.
        let _ = send.send(written);
        drop(out);
    })?;
    let mut written = Written { pipe, result, finished: None };
    let stored = blobs.put_reader_blocking(&mut written, LAYER_CAP);
    let finished = written.finished.take();
    // The reading end goes first, so that a writer that is not read to its end can't be stuck.
    drop(written);
    let joined = writer.join();
    // Why the writer failed says more than that the stream broke off.
    let digests = finished.transpose()?;
    let stored = stored?;
    let digests = digests.ok_or(PackError::Interrupted)?;
    joined.map_err(|_| PackError::Interrupted)?;
    let expected = Digest::parse(&digests.digest)?;
    if stored.digest != expected {
        return Err(PackError::LayerDiffers { expected, found: stored.digest });
    }
    let layer = LayerRef { digest: expected, diff_id: Digest::parse(&digests.diff_id)? };
    Ok((layer, stored))
}

/// Puts a pack's blobs and manifest into a repository, under these tags, in the caller's transaction. Idempotent.
///
/// # Errors
/// [`StateError`] when the state fails.
///
/// # Panics
/// Never for a pack that [`build`] gave: its manifest names exactly its blobs.
pub fn place(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    pack: &BuiltPack,
    tags: &[Tag],
) -> Result<(), StateError> {
    let blobs = std::iter::once(&pack.config).chain(pack.layers.iter().map(|(_, stored)| stored));
    put_image(tx, now, repo, (&pack.manifest, &pack.manifest_bytes), blobs, tags)
}

/// Puts an image of ours into a repository: its blobs, then the manifest that names them.
pub(super) fn put_image<'a>(
    tx: &mut Tx<'_>,
    now: Millis,
    repo: &RepoName,
    manifest: (&Stored, &[u8]),
    blobs: impl Iterator<Item = &'a Stored>,
    tags: &[Tag],
) -> Result<(), StateError> {
    for blob in blobs {
        repos::add_blob(tx, now, repo, blob)?;
    }
    let parsed =
        repos::parse_manifest(Some(MANIFEST_TYPE), manifest.1).expect("invariant: our manifest parses");
    let placed = repos::put_manifest(tx, now, repo, manifest.0, &parsed, tags)?;
    placed
        .map(|_| ())
        .map_err(|_| ())
        .expect("invariant: our manifest names only blobs that were just added");
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
