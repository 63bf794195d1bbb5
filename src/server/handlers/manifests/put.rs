//! `PUT /v2/<name>/manifests/<reference>`

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, StatusCode, header};

use super::super::v2::{CONTENT_DIGEST, V2, set};
use crate::names::Tag;
use crate::registry::{Conditions, PutManifest, RegistryError};
use crate::server::body::{Collected, collect, pieces};
use crate::server::errors::{ApiError, ApiResult};

/// So many tags are told in a header line each.
const TAG_LINES: usize = 32;

pub(in crate::server) async fn put(v2: &V2, name: &str, reference: &str, body: Body) -> ApiResult<Response> {
    // Before the body: who may not push can't make the server hold one.
    v2.registry.check_push(&v2.who, name)?;
    let cap = v2.registry.manifest_cap_bytes();
    let too_large = RegistryError::ManifestTooLarge { cap };
    // A client that waits for a word before it sends gets this one; others are read to their end, and dropped.
    if v2.content_length().is_some_and(|length| length > cap) && v2.headers.contains_key(header::EXPECT) {
        return Err(too_large.into());
    }
    let bytes = match collect(pieces(body), cap).await {
        Collected::Whole(bytes) => bytes,
        Collected::TooLarge => return Err(too_large.into()),
        Collected::Busy => return Err(ApiError::busy("TOOMANYREQUESTS")),
        Collected::Broken(error) => return Err(RegistryError::BodyBroken(error).into()),
    };
    let content_type = v2.header(header::CONTENT_TYPE);
    let tags = v2.params("tag");
    let conditions =
        Conditions { if_match: v2.list(header::IF_MATCH), if_none_match: v2.list(header::IF_NONE_MATCH) };
    let asked = PutManifest { reference, tags: &tags, content_type, conditions, bytes };
    let put = v2.registry.put_manifest(&v2.who, name, asked).await?;
    let mut response = StatusCode::CREATED.into_response();
    set(&mut response, header::LOCATION, &format!("/v2/{}/manifests/{}", put.repo, put.digest));
    set(&mut response, CONTENT_DIGEST, &put.digest.to_string());
    set(&mut response, header::ETAG, &format!("\"{}\"", put.digest));
    if let Some(subject) = &put.subject {
        set(&mut response, HeaderName::from_static("oci-subject"), &subject.to_string());
    }
    // A line each, as programs look for them; the last one lists what is left, since many clients take a hundred
    // header lines in an answer and no more.
    let (each, rest) = put.tags.split_at(put.tags.len().min(TAG_LINES));
    let rest: Vec<&str> = rest.iter().map(Tag::as_str).collect();
    let rest = (!rest.is_empty()).then(|| rest.join(", "));
    for value in each.iter().map(Tag::as_str).chain(rest.as_deref()) {
        set(&mut response, HeaderName::from_static("oci-tag"), value);
    }
    Ok(response)
}
