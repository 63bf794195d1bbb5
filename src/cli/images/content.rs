//! The documents of an image: descriptors, manifests, indexes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::platform::Platform;
use crate::cli::failure::Failure;
use crate::names::Digest;

/// A manifest or index has no more bytes than this.
pub(in crate::cli) const MANIFEST_CAP: u64 = 8 << 20;

pub(in crate::cli) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
pub(in crate::cli) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST_TYPE: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What is asked for when a manifest is.
pub(in crate::cli) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// The name of an image in a layout.
pub(in crate::cli) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Where an image in a layout came from; the registry's host follows. containerd writes and reads the same.
pub(in crate::cli) const SOURCE_PREFIX: &str = "containerd.io/distribution.source.";

/// Names some bytes with their type and size.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Descriptor {
    #[serde(default)]
    pub(in crate::cli) media_type: String,
    pub(in crate::cli) digest: Digest,
    pub(in crate::cli) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// Of a document's own bytes.
    pub(in crate::cli) fn of(media_type: &str, bytes: &[u8]) -> Self {
        let media_type = media_type.to_owned();
        Self {
            media_type,
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            platform: None,
            annotations: None,
        }
    }

    /// An annotation's value.
    pub(in crate::cli) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Adds an annotation.
    pub(in crate::cli) fn annotate(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.annotations.get_or_insert_default().insert(key.into(), value.into());
    }

    /// May the bytes be kept away from registries? Such layers are fetched from where their makers say.
    pub(in crate::cli) fn is_foreign(&self) -> bool {
        self.media_type.contains(".nondistributable.") || self.media_type.contains(".foreign.")
    }
}

/// `index.json`, or an index in a registry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Index {
    pub(in crate::cli) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) media_type: Option<String>,
    pub(in crate::cli) manifests: Vec<Descriptor>,
}

impl Index {
    /// Of these images.
    pub(in crate::cli) fn new(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: Some(INDEX_TYPE.to_owned()), manifests }
    }
}

/// What a manifest or an index refers to.
#[derive(Debug)]
pub(in crate::cli) enum Document {
    /// Bytes: the configuration and the layers.
    Image(Vec<Descriptor>),
    /// Other documents.
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    media_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    manifests: Option<Vec<Descriptor>>,
}

impl Document {
    /// Reads a document of a type: the descriptor's or the registry's, which the document itself may override.
    pub(in crate::cli) fn parse(media_type: &str, bytes: &[u8]) -> Result<Self, Failure> {
        let bad =
            |why: String| Failure::rejected("manifest_not_valid", format!("a manifest is not valid: {why}"));
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        let media_type = raw.media_type.as_deref().unwrap_or(media_type);
        match media_type {
            INDEX_TYPE | DOCKER_LIST_TYPE => Ok(Self::Index(raw.manifests.unwrap_or_default())),
            MANIFEST_TYPE | DOCKER_MANIFEST_TYPE => {
                let config = raw.config.ok_or_else(|| bad("it has no `config`".to_owned()))?;
                Ok(Self::Image(std::iter::once(config).chain(raw.layers).collect()))
            }
            _ => match (raw.manifests, raw.config) {
                (Some(manifests), None) => Ok(Self::Index(manifests)),
                (None, Some(config)) => Ok(Self::Image(std::iter::once(config).chain(raw.layers).collect())),
                _ => Err(bad(format!("its type {media_type:?} is none that Pantry knows"))),
            },
        }
    }
}

/// The type that a manifest is sent as.
pub(in crate::cli) fn type_of(descriptor: &Descriptor, bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let own = serde_json::from_slice::<Typed>(bytes).ok().and_then(|typed| typed.media_type);
    own.unwrap_or_else(|| {
        if descriptor.media_type.is_empty() {
            MANIFEST_TYPE.to_owned()
        } else {
            descriptor.media_type.clone()
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_document_is_what_its_type_says() {
        let index =
            format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"x","digest":"{D}","size":0}}]}}"#);
        assert!(
            matches!(Document::parse(INDEX_TYPE, index.as_bytes()).unwrap(), Document::Index(all) if all.len() == 1)
        );
        assert!(matches!(Document::parse("", index.as_bytes()).unwrap(), Document::Index(_)));
        let image =
            format!(r#"{{"config":{{"digest":"{D}","size":0}},"layers":[{{"digest":"{D}","size":0}}]}}"#);
        assert!(
            matches!(Document::parse(MANIFEST_TYPE, image.as_bytes()).unwrap(), Document::Image(all) if all.len() == 2)
        );
        assert!(Document::parse(MANIFEST_TYPE, index.as_bytes()).is_err());
        assert!(Document::parse("text/html", b"{}").is_err());
        assert!(Document::parse(INDEX_TYPE, b"<html>").is_err());
        assert!(
            Document::parse(INDEX_TYPE, br#"{"manifests":[{"digest":"sha256:../../x","size":0}]}"#).is_err()
        );
    }
}
