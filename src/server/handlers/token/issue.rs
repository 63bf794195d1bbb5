//! `GET /v2/token`: a token for whoever shows a password or an API token, and for everybody where grants allow it.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, header};
use serde_json::json;

use crate::access::{Access, AskedScope, Principal};
use crate::registry::Registry;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::pairs::Pairs;

pub(in crate::server) async fn issue(
    caller: Caller,
    State(access): State<Access>,
    State(registry): State<Registry>,
    query: Pairs,
) -> ApiResult<Response> {
    if caller.0.is_bearer() {
        // A token is no reason for another one: that would let it live for ever, and grow.
        return Err(ApiError::wrong_credentials().token_error("invalid_token"));
    }
    let offline = query.one("offline_token") == Some("true");
    made(&access, &registry, &caller.0, &query, offline, None)
}

/// The answer with a token for the scopes of a query or form.
pub(super) fn made(
    access: &Access,
    registry: &Registry,
    who: &Principal,
    asked: &Pairs,
    offline: bool,
    same: Option<&str>,
) -> ApiResult<Response> {
    let scopes = AskedScope::parse_all(asked.all("scope"));
    let resolve = |name: &str| registry.meaning(name);
    let issued = access.issue(who, &scopes, resolve, offline)?;
    let mut body = json!({
        "token": issued.token,
        "access_token": issued.token,
        "expires_in": issued.expires_in,
        "issued_at": issued.issued_at.rfc3339(),
        "scope": issued.scope,
    });
    // Who exchanges a refresh token keeps it.
    if let Some(refresh) = issued.refresh.as_deref().or(same) {
        body["refresh_token"] = refresh.into();
    }
    let mut response = Json(body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
