//! `GET /v1/audit`

use axum::Json;
use axum::extract::State;

use crate::access::Action;
use crate::audit;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::extract::{ListParams, Page, Params, limit};

/// Who did what, in order; the hashes chain each line to the one before.
#[utoipa::path(
    get,
    path = "/v1/audit",
    operation_id = "listAudit",
    tag = "operations",
    params(ListParams),
    responses((status = 200, description = "Lines of the log", body = Page<serde_json::Value>))
)]
pub(in crate::server) async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> ApiResult<Json<Page<audit::Entry>>> {
    caller.require(Action::Administer)?;
    let limit = limit(params.limit)?;
    let after = params.after.map(|text| text.parse::<u64>()).transpose();
    let after =
        after.map_err(|_| ApiError::invalid("query_invalid", "`after` must be the number of a line"))?;
    let entries = app.parts.state.read(move |view| audit::list(view, after, limit)).await?;
    Ok(Json(Page::new(entries, limit, |entry| entry.sequence.to_string())))
}
