//! `GET /v1/submissions`

use axum::Json;
use axum::extract::State;

use crate::access::Action;
use crate::names::SubmissionId;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::{ListParams, Page, Params, limit};
use crate::store::SubmissionView;

/// Submissions and where they stand.
#[utoipa::path(
    get,
    path = "/v1/submissions",
    operation_id = "listSubmissions",
    tag = "submissions",
    params(ListParams),
    responses((status = 200, body = Page<SubmissionView>))
)]
pub(in crate::server) async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> ApiResult<Json<Page<SubmissionView>>> {
    caller.require(Action::ReadStatus)?;
    let limit = limit(params.limit)?;
    let after = params.after.map(|text| SubmissionId::parse(&text)).transpose()?;
    let submissions = app.parts.store.list(after, limit).await?;
    Ok(Json(Page::new(submissions, limit, |submission| submission.id.clone())))
}
