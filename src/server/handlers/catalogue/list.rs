//! `GET /v2/_catalog`

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::super::tags::list::link;
use super::super::v2::V2;
use crate::server::errors::ApiResult;

pub(in crate::server) async fn list(v2: &V2) -> ApiResult<Response> {
    let last = v2.param("last").map(str::to_owned);
    let page = v2.registry.catalogue(&v2.who, v2.param("n"), last).await?;
    let mut response = Json(json!({"repositories": page.entries})).into_response();
    link(&mut response, "/v2/_catalog", &page);
    Ok(response)
}
