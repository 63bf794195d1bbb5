//! Uploads of blobs.

pub(in crate::server) mod append;
pub(in crate::server) mod begin;
pub(in crate::server) mod cancel;
pub(in crate::server) mod close;
pub(in crate::server) mod status;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, StatusCode, header};

use super::v2::{CONTENT_DIGEST, set};
use crate::registry::{BlobCreated, Upload};

/// The path of an upload.
pub(in crate::server) fn location(upload: &Upload) -> String {
    format!("/v2/{}/blobs/uploads/{}", upload.repo, upload.id)
}

/// The bytes that are in: first and last, both included. An empty upload has no honest range; everybody says `0-0`.
pub(in crate::server) fn progress(received: u64) -> String {
    format!("0-{}", received.saturating_sub(1))
}

/// Tells where an upload stands.
fn standing(status: StatusCode, upload: &Upload) -> Response {
    let mut response = status.into_response();
    set(&mut response, header::LOCATION, &location(upload));
    set(&mut response, header::RANGE, &progress(upload.received));
    set(&mut response, HeaderName::from_static("docker-upload-uuid"), upload.id.as_str());
    response
}

/// Tells that a blob is there.
fn created(blob: &BlobCreated) -> Response {
    let mut response = StatusCode::CREATED.into_response();
    set(&mut response, header::LOCATION, &format!("/v2/{}/blobs/{}", blob.repo, blob.digest));
    set(&mut response, CONTENT_DIGEST, &blob.digest.to_string());
    response
}
