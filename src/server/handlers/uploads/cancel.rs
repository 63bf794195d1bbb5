//! `DELETE /v2/<name>/blobs/uploads/<id>`

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;

use super::super::v2::V2;
use crate::server::errors::ApiResult;

pub(in crate::server) async fn cancel(v2: &V2, name: &str, id: &str) -> ApiResult<Response> {
    v2.registry.cancel_upload(&v2.who, name, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
