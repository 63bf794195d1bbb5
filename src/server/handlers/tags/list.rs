//! `GET /v2/<name>/tags/list`

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::header;
use serde_json::json;

use super::super::v2::{V2, in_query, set, warn_limited};
use crate::registry::Page;
use crate::server::errors::ApiResult;

pub(in crate::server) async fn list(v2: &V2, name: &str) -> ApiResult<Response> {
    let last = v2.param("last").map(str::to_owned);
    let page = v2.registry.tags(&v2.who, name, v2.param("n"), last).await?;
    let of = page.of.as_ref().map_or(name, |repo| repo.as_str());
    let mut response = Json(json!({"name": of, "tags": page.entries})).into_response();
    link(&mut response, &format!("/v2/{of}/tags/list"), &page);
    Ok(response)
}

/// Says where the list goes on.
pub(in crate::server) fn link(response: &mut Response, path: &str, page: &Page) {
    if let (Some(n), Some(last)) = (page.more, page.entries.last()) {
        let next = format!("<{path}?n={n}&last={}>; rel=\"next\"", in_query(last));
        set(response, header::LINK, &next);
    }
    if let Some(most) = page.limited {
        warn_limited(response, &format!("at most {most} entries are given at a time"));
    }
}
