//! Reading a manifest for what it refers to.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::names::Digest;

const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A media type may have so many bytes: 127 before and after the slash (RFC 6838).
const TYPE_CHARACTERS: usize = 255;
/// A manifest may refer to this many others (configuration, layers, children) at most: no fewer than the shortest
/// descriptors that fit into the 4 MiB of which every registry takes a manifest.
pub const REFERENCES_CAP: usize = 40_000;

/// A manifest as parsed for its references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedManifest {
    /// What it is, without parameters.
    pub media_type: String,
    /// What kind of artifact it says to be.
    pub artifact_type: Option<String>,
    /// The media type of its configuration.
    pub config_type: Option<String>,
    /// The configuration of an image.
    pub config: Option<Digest>,
    /// Layers that the repository must hold.
    pub layers: Vec<Digest>,
    /// Layers that may not be distributed: the repository need not hold them.
    pub elsewhere: Vec<Digest>,
    /// The manifests of an index.
    pub children: Vec<Digest>,
    /// The manifest that this one is about; need not exist.
    pub subject: Option<Digest>,
    /// Its own annotations.
    pub annotations: BTreeMap<String, String>,
}

impl ParsedManifest {
    /// The type under which the index of referrers lists it: its own, else for an image that of its configuration.
    #[must_use]
    pub fn referrer_type(&self) -> Option<&str> {
        self.artifact_type.as_deref().or(self.config_type.as_deref())
    }
}

/// Why some bytes are not a manifest that is taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is none of the four types.
    #[error("manifests of type {found:?} are not taken; OCI images and indexes, docker images and lists are")]
    UnknownType {
        /// The type, cut to 200 characters.
        found: String,
    },
    /// Neither the request nor the document says what it is.
    #[error("neither `Content-Type` nor `mediaType` says what kind of manifest this is")]
    NoType,
    /// `Content-Type` and `mediaType` differ.
    #[error("`Content-Type` is {content_type:?}, but the document's `mediaType` is {media_type:?}")]
    TypesDiffer {
        /// As the request says.
        content_type: String,
        /// As the document says.
        media_type: String,
    },
    /// It is not UTF-8, which JSON must be; the parser would pass over that in fields that it does not know.
    #[error("the document is not UTF-8: byte {at} begins no character")]
    NotText {
        /// Where the first byte stands that is none.
        at: usize,
    },
    /// It is not the JSON of a manifest.
    #[error("the document is not the JSON of a manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// `schemaVersion` is not 2.
    #[error("`schemaVersion` is {found}, but must be 2")]
    SchemaVersion {
        /// What it is.
        found: u64,
    },
    /// A field that this type must have is missing.
    #[error("`{field}` is missing")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field that this type must not have is there, so that two readers could see two things in one document.
    #[error("`{field}` must not stand in a manifest of this type")]
    Ambiguous {
        /// Its name.
        field: &'static str,
    },
    /// A media type is longer than one can be.
    #[error("`{field}` is longer than {cap} bytes", cap = TYPE_CHARACTERS)]
    TypeTooLong {
        /// The name of the field.
        field: &'static str,
    },
    /// It refers to more than [`REFERENCES_CAP`] others.
    #[error("it refers to {found} others; {cap} are allowed", cap = REFERENCES_CAP)]
    TooManyReferences {
        /// How many.
        found: usize,
    },
}

impl ManifestError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "manifest_invalid"
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    /// Read so that a descriptor without it, or with a negative one, is refused.
    #[serde(rename = "size")]
    _size: u64,
}

impl Descriptor {
    fn is_distributable(&self) -> bool {
        !self.media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
            && !self.media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
    }
}

/// Whether a manifest of this type lists others.
pub(super) fn lists_manifests(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

/// Parses one of the four types: OCI image manifest and index, docker schema 2 manifest and list.
///
/// # Errors
/// [`ManifestError`] says what is wrong with it.
///
/// # Limits
/// [`REFERENCES_CAP`]; nesting up to what the JSON parser allows (128).
pub fn parse_manifest(content_type: Option<&str>, bytes: &[u8]) -> Result<ParsedManifest, ManifestError> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| ManifestError::NotText { at: error.valid_up_to() })?;
    let document: Document = serde_json::from_str(text)?;
    let declared = content_type.map(essence).filter(|text| !text.is_empty());
    let media_type = match (declared, document.media_type.as_deref()) {
        (Some(content_type), Some(media_type)) if content_type != media_type => {
            return Err(ManifestError::TypesDiffer {
                content_type: cut(content_type),
                media_type: cut(media_type),
            });
        }
        (Some(one), _) | (None, Some(one)) => one.to_owned(),
        (None, None) => return Err(ManifestError::NoType),
    };
    if document.schema_version != 2 {
        return Err(ManifestError::SchemaVersion { found: document.schema_version });
    }
    let is_index = match media_type.as_str() {
        OCI_IMAGE | DOCKER_IMAGE => false,
        other if lists_manifests(other) => true,
        _ => return Err(ManifestError::UnknownType { found: cut(&media_type) }),
    };
    if is_index {
        refuse(document.config.is_some(), "config")?;
        refuse(document.layers.is_some(), "layers")?;
    } else {
        refuse(document.manifests.is_some(), "manifests")?;
        if document.config.is_none() {
            return Err(ManifestError::Missing { field: "config" });
        }
    }
    let too_long = |text: &str| text.len() > TYPE_CHARACTERS;
    if document.artifact_type.as_deref().is_some_and(too_long) {
        return Err(ManifestError::TypeTooLong { field: "artifactType" });
    }
    if document.config.as_ref().is_some_and(|config| too_long(&config.media_type)) {
        return Err(ManifestError::TypeTooLong { field: "config.mediaType" });
    }
    let layers = document.layers.unwrap_or_default();
    let children = document.manifests.unwrap_or_default();
    let found = layers.len() + children.len() + usize::from(document.config.is_some());
    if found > REFERENCES_CAP {
        return Err(ManifestError::TooManyReferences { found });
    }
    let (here, elsewhere): (Vec<_>, Vec<_>) = layers.into_iter().partition(Descriptor::is_distributable);
    let (config, config_type) = match document.config {
        Some(config) => (Some(config.digest), Some(config.media_type)),
        None => (None, None),
    };
    Ok(ParsedManifest {
        media_type,
        artifact_type: document.artifact_type.filter(|text| !text.is_empty()),
        config_type,
        config,
        layers: digests(here),
        elsewhere: digests(elsewhere),
        children: digests(children),
        subject: document.subject.map(|subject| subject.digest),
        annotations: document.annotations.unwrap_or_default(),
    })
}

fn refuse(present: bool, field: &'static str) -> Result<(), ManifestError> {
    if present { Err(ManifestError::Ambiguous { field }) } else { Ok(()) }
}

fn digests(descriptors: Vec<Descriptor>) -> Vec<Digest> {
    descriptors.into_iter().map(|descriptor| descriptor.digest).collect()
}

/// The media type without its parameters.
fn essence(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

fn cut(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn descriptor(kind: &str, content: &[u8]) -> serde_json::Value {
        serde_json::json!({"mediaType": kind, "digest": Digest::of(content), "size": content.len()})
    }

    fn image() -> serde_json::Value {
        serde_json::json!({
            "schemaVersion": 2,
            "config": descriptor("application/vnd.example+json", b"{}"),
            "layers": [
                descriptor("application/vnd.oci.image.layer.v1.tar+gzip", b"layer"),
                descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", b"foreign"),
            ],
            "subject": descriptor(OCI_IMAGE, b"subject"),
            "annotations": {"a": "b"},
            "something.of.ours": {"x": [1, 2]},
        })
    }

    fn parse(kind: Option<&str>, value: &serde_json::Value) -> Result<ParsedManifest, ManifestError> {
        parse_manifest(kind, &serde_json::to_vec(value).unwrap())
    }

    #[test]
    fn an_image_tells_its_references() {
        let parsed = parse(Some(&format!("{OCI_IMAGE}; charset=utf-8")), &image()).unwrap();
        assert_eq!(parsed.media_type, OCI_IMAGE);
        assert_eq!(parsed.config, Some(Digest::of(b"{}")));
        assert_eq!(parsed.layers, [Digest::of(b"layer")]);
        assert_eq!(parsed.elsewhere, [Digest::of(b"foreign")]);
        assert_eq!(parsed.subject, Some(Digest::of(b"subject")));
        assert_eq!(parsed.referrer_type(), Some("application/vnd.example+json"));
    }

    #[test]
    fn an_index_tells_its_children_and_may_be_empty() {
        let full = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor(OCI_IMAGE, b"child")]});
        assert_eq!(parse(Some(DOCKER_LIST), &full).unwrap().children, [Digest::of(b"child")]);
        let empty = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []});
        let parsed = parse(None, &empty).unwrap();
        assert!(parsed.children.is_empty() && parsed.referrer_type().is_none());
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        let mut both = image();
        both["manifests"] = serde_json::json!([]);
        assert!(matches!(
            parse(Some(OCI_IMAGE), &both),
            Err(ManifestError::Ambiguous { field: "manifests" })
        ));
        assert!(matches!(
            parse(Some(OCI_INDEX), &image()),
            Err(ManifestError::Ambiguous { field: "config" })
        ));
        let mut named = image();
        named["mediaType"] = OCI_IMAGE.into();
        assert!(matches!(parse(Some(DOCKER_IMAGE), &named), Err(ManifestError::TypesDiffer { .. })));
        let text = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","mediaType":"{OCI_IMAGE}"}}"#);
        assert!(matches!(parse_manifest(None, text.as_bytes()), Err(ManifestError::Json(_))));
    }

    #[test]
    fn what_is_no_manifest_is_refused_and_never_panics() {
        let mut broken = vec![
            Vec::new(),
            b"{}".to_vec(),
            b"null".to_vec(),
            vec![0xff; 32],
            b"[".repeat(1 << 20),
            serde_json::to_vec(&serde_json::json!({"schemaVersion": 1, "mediaType": OCI_INDEX})).unwrap(),
            serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "mediaType": "text/plain"})).unwrap(),
            serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "mediaType": OCI_IMAGE})).unwrap(),
        ];
        let mut bad = image();
        bad["config"]["digest"] = "sha256:baddigeststring".into();
        broken.push(serde_json::to_vec(&bad).unwrap());
        bad = image();
        bad["config"]["size"] = (-1).into();
        broken.push(serde_json::to_vec(&bad).unwrap());
        let many: Vec<_> = (0..=REFERENCES_CAP).map(|n| descriptor(OCI_IMAGE, &n.to_be_bytes())).collect();
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": many});
        broken.push(serde_json::to_vec(&index).unwrap());
        // Found by the fuzz target: a field that nobody reads may not hold what is no text either.
        let unread = serde_json::to_string(&image()).unwrap().replacen('{', "{\"unread\":\"?\",", 1);
        broken.push(unread.bytes().map(|byte| if byte == b'?' { 0xff } else { byte }).collect());
        for bytes in broken {
            assert!(parse_manifest(None, &bytes).is_err(), "{:?}", &bytes[..bytes.len().min(80)]);
        }
    }
}
