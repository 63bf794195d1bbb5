//! `PATCH /v2/<name>/blobs/uploads/<id>`

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;

use super::super::v2::V2;
use super::standing;
use crate::server::errors::ApiResult;

pub(in crate::server) async fn append(v2: &V2, name: &str, id: &str, body: Body) -> ApiResult<Response> {
    let chunk = super::close::chunk(v2, body);
    let upload = v2.registry.append_upload(&v2.who, name, id, chunk).await?;
    Ok(standing(StatusCode::ACCEPTED, &upload))
}
