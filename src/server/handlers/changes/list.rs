//! `GET /v1/changes`

use axum::Json;
use axum::extract::State;

use crate::access::Action;
use crate::changes::ChangeView;
use crate::names::ChangeId;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::{ListParams, Page, Params, limit};

/// Changes: what is under way, and what was.
#[utoipa::path(
    get,
    path = "/v1/changes",
    operation_id = "listChanges",
    tag = "changes",
    params(ListParams),
    responses((status = 200, body = Page<ChangeView>))
)]
pub(in crate::server) async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> ApiResult<Json<Page<ChangeView>>> {
    caller.require(Action::ReadStatus)?;
    let limit = limit(params.limit)?;
    let after = params.after.map(|text| ChangeId::parse(&text)).transpose()?;
    let changes = app.parts.changes.list(after, limit).await?;
    Ok(Json(Page::new(changes, limit, |change| change.id.clone())))
}
