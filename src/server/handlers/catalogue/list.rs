//! `GET /v2/_catalog`

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::super::tags::list::link;
use super::super::v2::V2;
use crate::server::errors::{ApiError, ApiResult};

pub(in crate::server) async fn list(v2: &V2) -> ApiResult<Response> {
    // Some clients show what they have only when asked, and the answer depends on it: whoever is told of public
    // repositories unasked never learns of its own. Who has nothing to show gets a token for these without.
    if v2.who.needs_credentials() {
        return Err(ApiError::unauthorized());
    }
    let last = v2.param("last").map(str::to_owned);
    let page = v2.registry.catalogue(&v2.who, v2.param("n"), last).await?;
    let mut response = Json(json!({"repositories": page.entries})).into_response();
    link(&mut response, "/v2/_catalog", &page);
    Ok(response)
}
