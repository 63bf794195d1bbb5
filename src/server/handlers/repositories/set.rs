//! `PUT /v1/repositories/{name}`

use axum::Json;
use axum::body::Body;
use axum::extract::State;

use super::{DryRun, Repository, administers, body};
use crate::repos::RepositorySettings;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::{Params, Segment};

/// Replaces the settings of a repository; they hold from the next request on.
#[utoipa::path(
    put,
    path = "/v1/repositories/{name}",
    operation_id = "setRepository",
    tag = "repositories",
    params(("name" = String, Path, description = "The name of the repository"), DryRun),
    request_body = RepositorySettings,
    responses(
        (status = 200, description = "As it is now", body = Repository),
        (status = 400, description = "A setting is not as it must be"),
        (status = 403, description = "It is one of Pantry's own"),
        (status = 404, description = "There is none of this name"),
    )
)]
pub(in crate::server) async fn set(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
    Params(DryRun { dry_run }): Params<DryRun>,
    request: Body,
) -> ApiResult<Json<Repository>> {
    administers(&caller, &name)?;
    let settings: RepositorySettings =
        body(request, "send the settings as GET /v1/repositories/{name} shows them").await?;
    Ok(Json(app.parts.registry.set_repository(&caller.0, &name, &settings, dry_run).await?.into()))
}
