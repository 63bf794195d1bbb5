//! `POST /v1/changes/{id}/abort`

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;

use crate::access::Action;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::extract::Segment;

/// That a change is being aborted.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::server) struct Aborted {
    /// The change; it ends when what it did is undone.
    change: String,
}

/// Aborts a change: what it did is undone.
#[utoipa::path(
    post,
    path = "/v1/changes/{id}/abort",
    operation_id = "abortChange",
    tag = "changes",
    params(("id" = String, Path, description = "The change")),
    responses(
        (status = 202, description = "It is being undone", body = Aborted),
        (status = 404, description = "There is none"),
        (status = 409, description = "It has ended, or only goes forward from here"),
    )
)]
pub(in crate::server) async fn abort(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
) -> ApiResult<(StatusCode, Json<Aborted>)> {
    caller.require(Action::Install)?;
    let id = super::show::parse(&id)?;
    if app.parts.changes.abort(&id).await? {
        return Ok((StatusCode::ACCEPTED, Json(Aborted { change: id.to_string() })));
    }
    let detail = "the change has ended, or has passed the point after which it only goes forward";
    Err(ApiError::new(StatusCode::CONFLICT, "change_not_abortable", detail)
        .hint("GET the change to see what came of it"))
}
