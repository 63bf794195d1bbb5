//! `GET` and `HEAD /v2/<name>/manifests/<reference>`

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode, header};

use super::super::v2::{CONTENT_DIGEST, V2, set};
use crate::server::errors::ApiResult;

pub(in crate::server) async fn get(v2: &V2, name: &str, reference: &str) -> ApiResult<Response> {
    let found = v2.registry.manifest(&v2.who, name, reference).await?;
    let etag = format!("\"{}\"", found.digest);
    let mut response = if v2.has(&etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let body = match v2.method {
            Method::HEAD => Body::empty(),
            _ => v2.registry.manifest_bytes(&found).await?.into(),
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_LENGTH, found.size.into());
        set(&mut response, header::CONTENT_TYPE, &found.media_type);
        response
    };
    set(&mut response, CONTENT_DIGEST, &found.digest.to_string());
    set(&mut response, header::ETAG, &etag);
    Ok(response)
}
