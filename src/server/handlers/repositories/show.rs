//! `GET /v1/repositories/{name}`

use axum::Json;
use axum::extract::State;

use super::{Repository, administers, may_see};
use crate::access::Action;
use crate::registry::RepositoryError;
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
    // The settings are for who reads the status, and for who may change them.
    if administers(&caller, &name).is_err() {
        caller.require(Action::ReadStatus)?;
        if !may_see(&caller, &name) {
            return Err(RepositoryError::Unknown(name).into());
        }
    }
    Ok(Json(app.parts.registry.repository(&name).await?.into()))
}
