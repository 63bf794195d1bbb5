//! The sequences of requests that clients of registries make.

use std::path::Path;

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};

use crate::connection::Connection;
use crate::content::{Blob, text};

const OCTETS: &str = "application/octet-stream";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image that was pushed.
#[derive(Clone)]
pub struct Image {
    repository: String,
    tag: String,
    config: String,
    layer: String,
}

impl Image {
    /// The request line that asks for its manifest.
    pub fn manifest(&self, method: &str) -> String {
        format!("{method} /v2/{}/manifests/{}", self.repository, self.tag)
    }
}

/// A blob that was pushed.
#[derive(Clone)]
pub struct Stored {
    repository: String,
    digest: String,
}

/// POST, PATCH with everything, PUT: as docker does it.
fn push_pieces(
    connection: &mut Connection,
    repository: &str,
    digest: &str,
    pieces: &[&[u8]],
) -> anyhow::Result<()> {
    let line = format!("POST /v2/{repository}/blobs/uploads/");
    let begun = connection.send(&line, OCTETS, &[])?.expect(202, "the start of an upload")?;
    let location = begun.location.context("the upload has no location")?;
    let sent = connection.send(&format!("PATCH {location}"), OCTETS, pieces)?.expect(202, "PATCH")?;
    let location = sent.location.context("the upload has no location")?;
    let mark = if location.contains('?') { '&' } else { '?' };
    connection
        .send(&format!("PUT {location}{mark}digest={digest}"), OCTETS, &[])?
        .expect(201, "PUT of a blob")?;
    Ok(())
}

/// POST, a PATCH for each chunk with its `Content-Range`, PUT: as clients do who must be able to go on.
pub fn push_chunks(
    connection: &mut Connection,
    repository: &str,
    blob: &Blob<'_>,
    chunk: usize,
) -> anyhow::Result<Stored> {
    let line = format!("POST /v2/{repository}/blobs/uploads/");
    let begun = connection.send(&line, OCTETS, &[])?.expect(202, "the start of an upload")?;
    let mut location = begun.location.context("the upload has no location")?;
    let mut first = 0;
    while first < blob.size() {
        let end = (first + chunk).min(blob.size());
        let sent = connection
            .send_part(&format!("PATCH {location}"), first, end - 1, &blob.part(first, end))?
            .expect(202, "PATCH of a chunk")?;
        location = sent.location.context("the upload has no location")?;
        first = end;
    }
    let mark = if location.contains('?') { '&' } else { '?' };
    connection
        .send(&format!("PUT {location}{mark}digest={}", blob.digest), OCTETS, &[])?
        .expect(201, "PUT of a blob")?;
    Ok(Stored { repository: repository.to_owned(), digest: blob.digest.clone() })
}

/// Pushes one blob.
pub fn push_blob(connection: &mut Connection, repository: &str, blob: &Blob<'_>) -> anyhow::Result<Stored> {
    push_pieces(connection, repository, &blob.digest, &blob.pieces())?;
    Ok(Stored { repository: repository.to_owned(), digest: blob.digest.clone() })
}

/// Pushes a layer, a config of its own, and the manifest under a tag.
pub fn push_image(
    connection: &mut Connection,
    repository: &str,
    tag: &str,
    layer: &Blob<'_>,
) -> anyhow::Result<Image> {
    push_pieces(connection, repository, &layer.digest, &layer.pieces())?;
    let Documents { config, config_digest, manifest } = Documents::of(layer);
    push_pieces(connection, repository, &config_digest, &[config.as_bytes()])?;
    let line = format!("PUT /v2/{repository}/manifests/{tag}");
    connection.send(&line, MANIFEST, &[manifest.as_bytes()])?.expect(201, "PUT of a manifest")?;
    Ok(Image {
        repository: repository.to_owned(),
        tag: tag.to_owned(),
        config: config_digest,
        layer: layer.digest.clone(),
    })
}

/// What makes a layer an image.
struct Documents {
    config: String,
    config_digest: String,
    manifest: String,
}

impl Documents {
    fn of(layer: &Blob<'_>) -> Self {
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            layer.digest
        );
        let config_digest = text(Sha256::new_with_prefix(&config));
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config_digest}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
            config.len(),
            layer.digest,
            layer.size(),
        );
        Self { config, config_digest, manifest }
    }
}

/// Lays an image out as files at the paths under which a registry answers, for a server of files.
pub fn lay_out(folder: &Path, repository: &str, tag: &str, layer: &Blob<'_>) -> anyhow::Result<Image> {
    let Documents { config, config_digest, manifest } = Documents::of(layer);
    let repository_folder = folder.join("v2").join(repository);
    let manifests = repository_folder.join("manifests");
    fs_err::create_dir_all(&manifests)?;
    fs_err::write(manifests.join(tag), manifest)?;
    lay_out_blob(folder, repository, layer)?;
    fs_err::write(repository_folder.join("blobs").join(&config_digest), config)?;
    Ok(Image {
        repository: repository.to_owned(),
        tag: tag.to_owned(),
        config: config_digest,
        layer: layer.digest.clone(),
    })
}

/// The same with one blob.
pub fn lay_out_blob(folder: &Path, repository: &str, blob: &Blob<'_>) -> anyhow::Result<Stored> {
    let blobs = folder.join("v2").join(repository).join("blobs");
    fs_err::create_dir_all(&blobs)?;
    fs_err::write(blobs.join(&blob.digest), blob.pieces().concat())?;
    Ok(Stored { repository: repository.to_owned(), digest: blob.digest.clone() })
}

/// Pulls manifest, config and layer; gives the bytes of the layer.
pub fn pull_image(connection: &mut Connection, image: &Image) -> anyhow::Result<u64> {
    connection.fetch(&image.manifest("GET"), &mut |_| {})?.expect(200, "GET of a manifest")?;
    let blob = |digest: &str| Stored { repository: image.repository.clone(), digest: digest.to_owned() };
    pull_blob(connection, &blob(&image.config))?;
    pull_blob(connection, &blob(&image.layer))
}

/// Pulls one blob; gives its size. What comes is dropped unseen: [`check_blob`] looks at it, off the clock.
pub fn pull_blob(connection: &mut Connection, blob: &Stored) -> anyhow::Result<u64> {
    let line = format!("GET /v2/{}/blobs/{}", blob.repository, blob.digest);
    Ok(connection.fetch(&line, &mut |_| {})?.expect(200, "GET of a blob")?.length)
}

/// Pulls a blob and makes sure that it is what was pushed.
pub fn check_blob(connection: &mut Connection, blob: &Stored) -> anyhow::Result<()> {
    let mut hash = Sha256::new();
    let line = format!("GET /v2/{}/blobs/{}", blob.repository, blob.digest);
    connection.fetch(&line, &mut |bytes| hash.update(bytes))?.expect(200, "GET of a blob")?;
    ensure!(text(hash) == blob.digest, "the server gave other bytes than were pushed");
    Ok(())
}

/// The layer of an image, to be checked.
pub fn layer_of(image: &Image) -> Stored {
    Stored { repository: image.repository.clone(), digest: image.layer.clone() }
}
