//! `GET /v1/reports/{change}`

use axum::Json;
use axum::extract::State;

use crate::access::Action;
use crate::server::UpkeepReport;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::extract::Segment;

/// What a collection, a verification or a repair found and did.
#[utoipa::path(
    get,
    path = "/v1/reports/{change}",
    operation_id = "showReport",
    tag = "storage",
    params(("change" = String, Path, description = "The change that ran")),
    responses(
        (status = 200, body = UpkeepReport),
        (status = 404, description = "There is none, or it is not complete yet"),
    )
)]
pub(in crate::server) async fn show(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
) -> ApiResult<Json<UpkeepReport>> {
    caller.require(Action::Administer)?;
    let id = crate::server::handlers::changes::show::parse(&id)?;
    match app.parts.upkeep.report(&id).await? {
        Some(report) => Ok(Json(report)),
        None => Err(ApiError::not_found("there is no report of this change")
            .hint("a report is written when the run is complete; only the last hundred are kept")),
    }
}
