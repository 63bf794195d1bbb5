//! The base of packs built here: the runtime layer of the bundle.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::blobs::{Blobs, Stored};
use crate::names::{Clock, Digest, Reference, RepoName, Tag};
use crate::repos;
use crate::rootfs::{Bundle, BundleLayer, LayerRole};
use crate::state::State;
use crate::trees::LayerRef;

use super::build::put_image;
use super::error::PackError;

/// The runtime layer of the bundle, on which packs stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// The layer.
    pub layer: LayerRef,
    /// Its compressed bytes.
    pub size: u64,
    /// The version of Python in it (`3.11.2`).
    pub python_version: String,
    /// `<os>/<architecture>`, such as `linux/amd64`.
    pub platform: String,
}

/// The repository under which the bundle can be pulled: `pantry/base`.
///
/// # Panics
/// Never: the name is valid.
#[must_use]
pub fn base_repository() -> RepoName {
    RepoName::parse("pantry/base").expect("invariant: pantry/base is the name of a repository")
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).expect("invariant: `latest` and twelve hexadecimal digits are tags")
}

/// Makes the bundle pullable as `pantry/base`, under `latest` and the first twelve digits of its digest, and gives its
/// runtime layer as the base of packs.
///
/// What is there already is only looked up. The bundle of before stays under its digits.
///
/// # Errors
/// [`PackError`] when a layer of the bundle is damaged, or storing fails.
pub async fn import_bundle(
    state: &State,
    blobs: &Blobs,
    clock: &dyn Clock,
    bundle: &Bundle,
) -> Result<Base, PackError> {
    let base = base_of(bundle)?;
    let manifest = Digest::parse(&bundle.manifest_digest())?;
    let repo = base_repository();
    let wanted = manifest.clone();
    let latest = Reference::Tag(tag("latest"));
    let present = {
        let repo = repo.clone();
        state.read(move |view| repos::get_manifest(view, &repo, &latest)).await?
    };
    if present.is_some_and(|found| found.digest == wanted) {
        return Ok(base);
    }
    let mut stored = vec![put_document(blobs, bundle.config_bytes()).await?];
    for layer in bundle.layers() {
        stored.push(put_layer(blobs, bundle, layer).await?);
    }
    let bytes = bundle.manifest_bytes().to_vec();
    let kept = put_document(blobs, &bytes).await?;
    if kept.digest != manifest {
        return Err(PackError::LayerDiffers { expected: manifest, found: kept.digest });
    }
    let now = clock.now();
    let tags = [tag("latest"), tag(&manifest.hex()[..12])];
    state.write(move |tx| put_image(tx, now, &repo, (&kept, &bytes), stored.iter(), &tags)).await?;
    Ok(base)
}

fn base_of(bundle: &Bundle) -> Result<Base, PackError> {
    let layer = bundle
        .layers()
        .iter()
        .find(|layer| layer.role == LayerRole::Runtime)
        .ok_or(PackError::NoRuntimeLayer)?;
    Ok(Base {
        layer: LayerRef { digest: Digest::parse(&layer.digest)?, diff_id: Digest::parse(&layer.diff_id)? },
        size: layer.size_bytes,
        python_version: bundle.python_version(),
        platform: bundle.platform().to_owned(),
    })
}

async fn put_document(blobs: &Blobs, bytes: &[u8]) -> Result<Stored, PackError> {
    Ok(blobs.put(Bytes::copy_from_slice(bytes)).await?)
}

async fn put_layer(blobs: &Blobs, bundle: &Bundle, layer: &BundleLayer) -> Result<Stored, PackError> {
    let expected = Digest::parse(&layer.digest)?;
    let mut reader = bundle.layer_reader(layer)?;
    let (blobs, cap) = (blobs.clone(), layer.size_bytes);
    let stored = tokio::task::spawn_blocking(move || blobs.put_reader_blocking(&mut *reader, cap))
        .await
        .map_err(|_| PackError::Interrupted)??;
    if stored.digest == expected {
        Ok(stored)
    } else {
        Err(PackError::LayerDiffers { expected, found: stored.digest })
    }
}
