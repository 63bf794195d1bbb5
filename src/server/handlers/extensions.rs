//! `GET /v2/_oci/ext/discover` and `GET /v2/<name>/_oci/ext/discover`

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::v2::V2;
use crate::server::errors::ApiResult;

/// Which extensions of the distribution API there are: the one that tells so.
pub(in crate::server) fn discover(v2: &V2, name: Option<&str>) -> ApiResult<Response> {
    v2.registry.check_pull(&v2.who, name)?;
    let endpoint =
        name.map_or_else(|| "_oci/ext/discover".to_owned(), |name| format!("{name}/_oci/ext/discover"));
    let own = json!({
        "name": "_oci",
        "url": "https://github.com/opencontainers/distribution-spec/tree/main/extensions",
        "description": "tells which extensions there are",
        "endpoints": [endpoint],
    });
    Ok(Json(json!({"extensions": [own]})).into_response())
}
