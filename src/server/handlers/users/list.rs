//! `GET /v1/users`

use axum::Json;
use axum::extract::State;

use crate::access::{Action, UserView};
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::{ListParams, Page, Params};

/// All users, by name.
#[utoipa::path(
    get,
    path = "/v1/users",
    operation_id = "listUsers",
    tag = "accounts",
    params(ListParams),
    responses((status = 200, body = Page<UserView>), (status = 403, description = "The caller administers nothing"))
)]
pub(in crate::server) async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> ApiResult<Json<Page<UserView>>> {
    caller.require(Action::Administer)?;
    Page::of_sorted(app.parts.access.users(), &params, |user| user.name.clone()).map(Json)
}
