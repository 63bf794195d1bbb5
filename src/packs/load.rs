//! Reading a pack back from its manifest's blobs.

use std::collections::{BTreeMap, BTreeSet};

use crate::blobs::Blobs;
use crate::names::Digest;
use crate::trees::LayerRef;

use super::ANNOTATION;
use super::error::PackError;
use super::image::{Config, LAYER_TYPE, MANIFEST_TYPE, Manifest};
use super::info::PackInfo;

const DOCUMENT_CAP: u64 = 4 << 20;
const LAYERS_CAP: usize = 32;

/// A pack as its blobs say it.
#[derive(Clone, Debug)]
pub struct Pack {
    /// The digest of its manifest: its name.
    pub digest: Digest,
    /// What it says of itself, checked.
    pub info: PackInfo,
    /// The layers, bottom first.
    pub layers: Vec<LayerRef>,
    /// The environment of its programs.
    pub env: BTreeMap<String, String>,
    /// The compressed bytes of all its layers.
    pub size: u64,
    /// The digest of its image config.
    pub config: Digest,
}

impl Pack {
    /// Every blob it consists of: manifest, config and layers, each once.
    #[must_use]
    pub fn blobs(&self) -> Vec<Digest> {
        let mut seen = BTreeSet::new();
        [&self.digest, &self.config]
            .into_iter()
            .chain(self.layers.iter().map(|layer| &layer.digest))
            .filter(|digest| seen.insert((*digest).clone()))
            .cloned()
            .collect()
    }
}

/// Reads and checks a pack by the digest of its manifest.
///
/// # Errors
/// [`PackError::NotAPack`] for an image without the annotation, [`PackError::Document`] for one that contradicts
/// itself, [`PackError::Blob`] when a blob is missing or damaged.
pub async fn load(blobs: &Blobs, manifest: &Digest) -> Result<Pack, PackError> {
    let bytes = blobs.read_small(manifest, DOCUMENT_CAP).await?;
    let parsed = parse_manifest(manifest, &bytes)?;
    let config = blobs.read_small(&parsed.document.config.digest, DOCUMENT_CAP).await?;
    assemble(manifest, parsed, &config)
}

struct Parsed {
    document: Manifest,
    info: PackInfo,
}

fn invalid(document: &'static str, digest: &Digest, why: impl std::fmt::Display) -> PackError {
    PackError::Document { document, digest: digest.clone(), why: why.to_string() }
}

fn parse_manifest(digest: &Digest, bytes: &[u8]) -> Result<Parsed, PackError> {
    let document: Manifest =
        serde_json::from_slice(bytes).map_err(|error| invalid("manifest", digest, error))?;
    if document.schema_version != 2 || document.media_type != MANIFEST_TYPE {
        return Err(invalid("manifest", digest, "it is not an OCI image manifest"));
    }
    let annotation =
        document.annotations.get(ANNOTATION).ok_or_else(|| PackError::NotAPack(digest.clone()))?;
    let info: PackInfo =
        serde_json::from_str(annotation).map_err(|error| invalid("annotation", digest, error))?;
    info.check()?;
    if document.layers.is_empty() || document.layers.len() > LAYERS_CAP {
        return Err(invalid("manifest", digest, format!("it must have 1 to {LAYERS_CAP} layers")));
    }
    if document.layers.iter().any(|layer| layer.media_type != LAYER_TYPE) {
        return Err(invalid("manifest", digest, "its layers must be tar+gzip"));
    }
    Ok(Parsed { document, info })
}

fn assemble(digest: &Digest, parsed: Parsed, config: &[u8]) -> Result<Pack, PackError> {
    let refuse = |why: &str| invalid("config", digest, why);
    let image: Config = serde_json::from_slice(config).map_err(|error| invalid("config", digest, error))?;
    if image.rootfs.kind != "layers" || image.rootfs.diff_ids.len() != parsed.document.layers.len() {
        return Err(refuse("it does not list one diff id a layer"));
    }
    if image.rootfs.diff_ids.first() != Some(&parsed.info.base) {
        return Err(refuse("its lowest layer is not the base that the pack names"));
    }
    let platform = format!("{}/{}", image.os, image.architecture);
    if platform != parsed.info.platform {
        return Err(refuse("its platform is not the one that the pack names"));
    }
    let mut env = BTreeMap::new();
    for variable in &image.config.env {
        let (name, value) = variable.split_once('=').ok_or_else(|| refuse("a variable has no value"))?;
        if name.is_empty() || variable.contains('\0') {
            return Err(refuse("a variable has no usable name or value"));
        }
        env.insert(name.to_owned(), value.to_owned());
    }
    let size = parsed.document.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
    let layers = parsed
        .document
        .layers
        .iter()
        .zip(&image.rootfs.diff_ids)
        .map(|(layer, diff_id)| LayerRef { digest: layer.digest.clone(), diff_id: diff_id.clone() })
        .collect();
    let config = parsed.document.config.digest;
    Ok(Pack { digest: digest.clone(), info: parsed.info, layers, env, size, config })
}
