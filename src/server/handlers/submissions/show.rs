//! `GET /v1/submissions/{id}`

use axum::Json;
use axum::extract::State;

use crate::access::Action;
use crate::names::SubmissionId;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::extract::Segment;
use crate::store::SubmissionView;

/// The submission of this id, or the answer that there is none: what can't be an id names none.
pub(super) async fn find(app: &App, id: &str) -> ApiResult<(SubmissionId, SubmissionView)> {
    let unknown = || {
        ApiError::new(http::StatusCode::NOT_FOUND, "submission_unknown", "there is no submission of this id")
            .hint("GET /v1/submissions lists them")
    };
    let id = SubmissionId::parse(id).map_err(|_| unknown())?;
    let view = app.parts.store.get(&id).await?.ok_or_else(unknown)?;
    Ok((id, view))
}

/// One submission: its state, its verdict, its links.
#[utoipa::path(
    get,
    path = "/v1/submissions/{id}",
    operation_id = "showSubmission",
    tag = "submissions",
    params(("id" = String, Path, description = "The submission")),
    responses((status = 200, body = SubmissionView), (status = 404, description = "There is none"))
)]
pub(in crate::server) async fn show(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
) -> ApiResult<Json<SubmissionView>> {
    caller.require(Action::ReadStatus)?;
    Ok(Json(find(&app, &id).await?.1))
}
