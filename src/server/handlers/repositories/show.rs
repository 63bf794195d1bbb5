//! `GET /v1/repositories/{name}`

use axum::Json;
use axum::extract::State;

use super::Repository;
use crate::access::Action;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::Segment;

/// A repository with its settings and what it holds.
#[utoipa::path(
    get,
    path = "/v1/repositories/{name}",
    operation_id = "showRepository",
    tag = "repositories",
    params(("name" = String, Path, description = "The name of the repository")),
    responses((status = 200, body = Repository), (status = 404, description = "There is none of this name"))
)]
pub(in crate::server) async fn show(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
) -> ApiResult<Json<Repository>> {
    caller.require(Action::ReadStatus)?;
    Ok(Json(app.parts.registry.repository(&name).await?.into()))
}
