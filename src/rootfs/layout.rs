//! The documents of an OCI image layout with the bundle's image, and how they are written.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::bundle::{LayerRole, blob_name};
use super::error::RootfsError;
use super::layer::{LayerDigests, digest_of};

/// Says which of the three layers one is.
pub(crate) const ANNOTATION_ROLE: &str = "pantry.layer.role";
/// Says which Python the runtime layer has.
pub(crate) const ANNOTATION_PYTHON: &str = "pantry.python.version";

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    schema_version: u32,
    media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    schema_version: u32,
    media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Config<'a> {
    created: &'static str,
    architecture: &'a str,
    os: &'static str,
    #[serde(rename = "config")]
    execution: Execution,
    rootfs: Rootfs<'a>,
    history: Vec<History>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Execution {
    user: &'static str,
    env: [&'static str; 3],
    working_dir: &'static str,
    entrypoint: [&'static str; 1],
}

#[derive(Serialize)]
struct Rootfs<'a> {
    r#type: &'static str,
    diff_ids: Vec<&'a str>,
}

#[derive(Serialize)]
struct History {
    created: &'static str,
    created_by: String,
}

/// Writes the documents beside layers that lie in `blobs/sha256` already; gives the manifest's digest.
pub(crate) fn write_documents(
    root: &Path,
    layers: &[(LayerRole, LayerDigests)],
    architecture: &str,
    python_version: &str,
) -> Result<String, RootfsError> {
    // Nothing of a bundle may depend on when it was made.
    let created = "1970-01-01T00:00:00Z";
    let config = Config {
        created,
        architecture,
        os: "linux",
        execution: Execution {
            user: "65532:65532",
            env: ["PATH=/usr/bin", "LANG=C.UTF-8", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],
            working_dir: "/",
            entrypoint: ["/bin/pantry"],
        },
        rootfs: Rootfs {
            r#type: "layers",
            diff_ids: layers.iter().map(|(_, layer)| layer.diff_id.as_str()).collect(),
        },
        history: layers
            .iter()
            .map(|(role, _)| History {
                created,
                created_by: format!("pantry rootfs assemble ({})", role.as_str()),
            })
            .collect(),
    };
    let descriptor = |media_type: &str, digest: &str, size| Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_owned(),
        size,
        annotations: BTreeMap::new(),
        platform: None,
    };
    let write_blob = |media_type: &str, bytes: &[u8]| -> Result<Descriptor, RootfsError> {
        let digest = digest_of(bytes);
        let name =
            blob_name(&digest).map_err(|detail| RootfsError::Layout { path: root.to_owned(), detail })?;
        fs_err::write(root.join(name), bytes)?;
        Ok(descriptor(media_type, &digest, bytes.len() as u64))
    };
    let config = write_blob(CONFIG_TYPE, &json(&config, root)?)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.to_owned(),
        config,
        layers: layers
            .iter()
            .map(|(role, layer)| Descriptor {
                annotations: BTreeMap::from([(ANNOTATION_ROLE.to_owned(), role.as_str().to_owned())]),
                ..descriptor(LAYER_TYPE, &layer.digest, layer.size_bytes)
            })
            .collect(),
        annotations: BTreeMap::from([(ANNOTATION_PYTHON.to_owned(), python_version.to_owned())]),
    };
    let mut named = write_blob(MANIFEST_TYPE, &json(&manifest, root)?)?;
    named.platform = Some(Platform { architecture: architecture.to_owned(), os: "linux".to_owned() });
    let digest = named.digest.clone();
    let index = Index { schema_version: 2, media_type: INDEX_TYPE.to_owned(), manifests: vec![named] };
    fs_err::write(root.join("index.json"), json(&index, root)?)?;
    fs_err::write(root.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}")?;
    Ok(digest)
}

fn json<T: Serialize>(value: &T, root: &Path) -> Result<Vec<u8>, RootfsError> {
    serde_json::to_vec(value)
        .map_err(|error| RootfsError::Layout { path: root.to_owned(), detail: error.to_string() })
}

/// The name by which OCI calls an architecture.
pub(crate) fn oci_architecture(architecture: &str) -> Option<&'static str> {
    match architecture {
        "x86_64" => Some("amd64"),
        "aarch64" => Some("arm64"),
        _ => None,
    }
}
