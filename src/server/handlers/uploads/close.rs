//! `PUT /v2/<name>/blobs/uploads/<id>?digest=`

use axum::body::Body;
use axum::response::Response;
use http::header;

use super::super::v2::V2;
use super::begin::counted;
use super::created;
use crate::registry::Chunk;
use crate::server::errors::ApiResult;

pub(in crate::server) async fn close(v2: &V2, name: &str, id: &str, body: Body) -> ApiResult<Response> {
    let chunk = chunk(v2, body);
    let blob = v2.registry.close_upload(&v2.who, name, id, v2.param("digest"), chunk).await?;
    Ok(created(&blob))
}

/// The body and what its headers say of it.
pub(super) fn chunk(v2: &V2, body: Body) -> Chunk<'_> {
    let content_length = v2.content_length();
    // Some clients send a range also with an empty closing request; there is nothing that it could be the range of.
    // One that is there twice, or is no text, must not be taken for none.
    let content_range = v2.headers.get(header::CONTENT_RANGE).filter(|_| content_length != Some(0));
    let content_range = content_range.map(|_| v2.header(header::CONTENT_RANGE).unwrap_or_default());
    Chunk { content_range, content_length, body: counted(v2, body) }
}
