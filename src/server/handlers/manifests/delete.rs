//! `DELETE /v2/<name>/manifests/<reference>`

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;

use super::super::v2::V2;
use crate::server::errors::ApiResult;

pub(in crate::server) async fn delete(v2: &V2, name: &str, reference: &str) -> ApiResult<Response> {
    v2.registry.delete_manifest(&v2.who, name, reference).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}
