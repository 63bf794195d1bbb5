//! What `docker save` writes without a layout in it: `manifest.json`, configurations, and layers that are plain tars.
//!
//! *Source*: Docker image specification 1.2, section Combined Image JSON + Filesystem Changeset Format.

use futures_util::TryStreamExt as _;
use serde::Deserialize;
use serde_json::json;

use super::content::{Descriptor, Index, MANIFEST_TYPE, REF_NAME};
use super::source::{Source, stream};
use crate::cli::failure::Failure;
use crate::names::Sha256Stream;

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const LAYER_GZIP_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// Makes a manifest for each saved image, and lets the source know its bytes by their digests.
pub(super) async fn adopt(source: &mut Source, manifest: &[u8]) -> Result<Index, Failure> {
    let bad =
        |why: String| Failure::usage("archive_not_valid", format!("`manifest.json` of the archive: {why}"));
    let saved: Vec<Saved> = serde_json::from_slice(manifest).map_err(|error| bad(error.to_string()))?;
    let mut images = Vec::new();
    for image in saved {
        let config = member(source, &image.config, CONFIG_TYPE).await?;
        let mut layers = Vec::new();
        for layer in &image.layers {
            layers.push(member(source, layer, LAYER_TYPE).await?);
        }
        let bytes = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers,
        }));
        let bytes = bytes.map_err(|error| bad(error.to_string()))?;
        let mut descriptor = Descriptor::of(MANIFEST_TYPE, &bytes);
        for tag in image.repo_tags.into_iter().flatten().take(1) {
            descriptor.annotate(REF_NAME, tag);
        }
        source.made.insert(descriptor.digest.clone(), bytes);
        images.push(descriptor);
    }
    Ok(Index::new(images))
}

/// Hashes a member.
async fn member(source: &mut Source, name: &str, kind: &str) -> Result<Descriptor, Failure> {
    let piece = source.member(name)?.ok_or_else(|| {
        Failure::usage("archive_not_valid", format!("the archive lacks its own member {name:?}"))
    })?;
    let size = piece.size;
    let mut hash = Sha256Stream::default();
    let mut pieces = std::pin::pin!(stream(piece));
    let mut kind = kind;
    let mut first = true;
    while let Some(bytes) = pieces.try_next().await? {
        if first && kind == LAYER_TYPE && bytes.starts_with(&[0x1f, 0x8b]) {
            kind = LAYER_GZIP_TYPE;
        }
        first = false;
        hash.update(&bytes);
    }
    let digest = hash.finish();
    source.members.insert(digest.clone(), name.to_owned());
    Ok(Descriptor { digest, size, ..Descriptor::of(kind, b"") })
}
