//! `GET` and `HEAD /v2/<name>/blobs/<digest>`

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use http::{HeaderValue, Method, StatusCode, header};

use super::super::v2::{CONTENT_DIGEST, V2, set};
use crate::registry::{ByteRange, RegistryError, parse_byte_range};
use crate::server::errors::ApiResult;

pub(in crate::server) async fn get(v2: &V2, name: &str, digest: &str) -> ApiResult<Response> {
    let found = v2.registry.blob(&v2.who, name, digest).await?;
    let etag = format!("\"{}\"", found.digest);
    let mut response = if v2.has(&etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else if v2.method == Method::HEAD {
        sized(StatusCode::OK, found.size, Body::empty())
    } else {
        let (status, range) = match range(v2, &etag, found.size) {
            ByteRange::Whole => (StatusCode::OK, 0..found.size),
            ByteRange::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
            ByteRange::Unsatisfiable => return Err(RegistryError::RangeInvalid { size: found.size }.into()),
        };
        let partial = status == StatusCode::PARTIAL_CONTENT;
        let metrics = v2.metrics.clone();
        let pieces = v2.registry.open(&found).await?.stream(partial.then(|| range.clone()));
        let pieces = pieces.inspect(move |piece| {
            if let Ok(piece) = piece {
                metrics.bytes_out(piece.len());
            }
        });
        // With its length said beforehand a body that ends early breaks the connection, where anybody sees it.
        let mut response = sized(status, range.end - range.start, Body::from_stream(pieces));
        if partial {
            let content_range = format!("bytes {}-{}/{}", range.start, range.end - 1, found.size);
            set(&mut response, header::CONTENT_RANGE, &content_range);
        }
        response
    };
    set(&mut response, CONTENT_DIGEST, &found.digest.to_string());
    set(&mut response, header::ETAG, &etag);
    response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(response)
}

/// What is asked for; `If-Range` with another version means all of it.
fn range(v2: &V2, etag: &str, size: u64) -> ByteRange {
    match (v2.header(header::RANGE), v2.header(header::IF_RANGE)) {
        (Some(range), None) => parse_byte_range(range, size),
        (Some(range), Some(version)) if version == etag => parse_byte_range(range, size),
        _ => ByteRange::Whole,
    }
}

fn sized(status: StatusCode, length: u64, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}
