//! `GET /v1/repositories`

use axum::Json;
use axum::extract::State;

use super::Repository;
use crate::access::Action;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::{ListParams, Page, Params, limit};

/// The repositories of this registry, by name.
#[utoipa::path(
    get,
    path = "/v1/repositories",
    operation_id = "listRepositories",
    tag = "repositories",
    params(ListParams),
    responses((status = 200, body = Page<Repository>))
)]
pub(in crate::server) async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> ApiResult<Json<Page<Repository>>> {
    caller.require(Action::ReadStatus)?;
    let limit = limit(params.limit)?;
    let found = app.parts.registry.repositories(params.after, limit).await?;
    let found = found.into_iter().map(Repository::from).collect();
    Ok(Json(Page::new(found, limit, |repository: &Repository| repository.name.clone())))
}
