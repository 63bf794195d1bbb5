//! `GET /v2/<name>/blobs/uploads/<id>`

use axum::response::Response;
use http::StatusCode;

use super::super::v2::V2;
use super::standing;
use crate::server::errors::ApiResult;

pub(in crate::server) async fn status(v2: &V2, name: &str, id: &str) -> ApiResult<Response> {
    let upload = v2.registry.upload_status(&v2.who, name, id).await?;
    Ok(standing(StatusCode::NO_CONTENT, &upload))
}
