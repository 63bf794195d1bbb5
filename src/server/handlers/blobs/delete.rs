//! `DELETE /v2/<name>/blobs/<digest>`

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;

use super::super::v2::V2;
use crate::server::errors::ApiResult;

pub(in crate::server) async fn delete(v2: &V2, name: &str, digest: &str) -> ApiResult<Response> {
    v2.registry.delete_blob(&v2.who, name, digest).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}
