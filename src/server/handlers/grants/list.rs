//! `GET /v1/grants`

use axum::Json;
use axum::extract::State;

use crate::access::{Action, GrantView};
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::{ListParams, Page, Params};

/// All grants, by subject and pattern.
#[utoipa::path(
    get,
    path = "/v1/grants",
    operation_id = "listGrants",
    tag = "accounts",
    params(ListParams),
    responses((status = 200, body = Page<GrantView>))
)]
pub(in crate::server) async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> ApiResult<Json<Page<GrantView>>> {
    caller.require(Action::Administer)?;
    let key = |grant: &GrantView| format!("{} {}", grant.subject, grant.pattern);
    let mut grants = app.parts.access.grants();
    grants.sort_by_cached_key(key);
    Page::of_sorted(grants, &params, key).map(Json)
}
