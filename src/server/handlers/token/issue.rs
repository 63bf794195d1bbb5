//! `GET /v2/token`: a token for whoever shows a password or an API token, and for everybody where grants allow it.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, header};
use serde_json::json;

use super::form;
use crate::access::{Access, AskedScope, Principal};
use crate::registry::Registry;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};

pub(in crate::server) async fn issue(
    caller: Caller,
    State(access): State<Access>,
    State(registry): State<Registry>,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let query = form::pairs(query.as_deref().unwrap_or_default()).ok_or_else(malformed)?;
    if caller.0.is_bearer() {
        // A token is no reason for another one: that would let it live for ever, and grow.
        return Err(ApiError::wrong_credentials().token_error("invalid_token"));
    }
    let offline = form::one(&query, "offline_token") == Some("true");
    made(&access, &registry, &caller.0, &query, offline, None)
}

/// The answer with a token for the scopes of a query or form.
pub(super) fn made(
    access: &Access,
    registry: &Registry,
    who: &Principal,
    pairs: &[(String, String)],
    offline: bool,
    same: Option<&str>,
) -> ApiResult<Response> {
    let scopes = AskedScope::parse_all(form::all(pairs, "scope"));
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

pub(super) fn malformed() -> ApiError {
    ApiError::invalid("UNSUPPORTED", "the parameters are not well formed")
}
