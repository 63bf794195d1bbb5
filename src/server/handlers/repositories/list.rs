//! `GET /v1/repositories`

use axum::Json;
use axum::extract::State;

use super::{Repository, may_see};
use crate::access::Action;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::{ListParams, Page, Params, limit};

/// The repositories of this registry, by name: those in which the caller may pull something, or which it administers.
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
    if caller.0.is_anonymous() {
        caller.require(Action::ReadStatus)?;
    }
    let limit = limit(params.limit)?;
    let (mut found, mut after) = (Vec::new(), params.after);
    // There are 1,000 at most, so that a page of a few that may be seen reads no more than that.
    while found.len() < limit {
        let page = app.parts.registry.repositories(after, limit).await?;
        let whole = page.len() == limit;
        after = page.last().map(|view| view.name.clone());
        found.extend(page.into_iter().filter(|view| may_see(&caller, &view.name)).map(Repository::from));
        if !whole {
            break;
        }
    }
    found.truncate(limit);
    if found.is_empty() {
        caller.require(Action::ReadStatus)?;
    }
    Ok(Json(Page::new(found, limit, |repository: &Repository| repository.name.clone())))
}
