//! The answer to what a change does from now on.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde::Serialize;

use crate::names::ChangeId;

/// Work that has begun.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::server) struct Begun {
    /// The change that does it.
    change: String,
}

/// Answers that a change does the work from here.
pub(in crate::server::handlers) fn begun(change: &ChangeId) -> Response {
    let location = [(header::LOCATION, format!("/v1/changes/{change}"))];
    (StatusCode::ACCEPTED, location, Json(Begun { change: change.to_string() })).into_response()
}
