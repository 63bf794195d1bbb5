//! `GET /v1/users/{name}`

use axum::Json;
use axum::extract::State;

use crate::access::{AccessError, AccountName, Action, UserView};
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::Segment;

/// One user; everybody may see themselves.
#[utoipa::path(
    get,
    path = "/v1/users/{name}",
    operation_id = "showUser",
    tag = "accounts",
    params(("name" = String, Path, description = "The name of the user")),
    responses((status = 200, body = UserView), (status = 404, description = "There is none"))
)]
pub(in crate::server) async fn show(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
) -> ApiResult<Json<UserView>> {
    let name = AccountName::parse(&name)?;
    if caller.0.user() != Some(name.as_str()) {
        caller.require(Action::Administer)?;
    }
    let user = app.parts.access.user(name.as_str());
    Ok(Json(user.ok_or_else(|| AccessError::UserUnknown { name: name.to_string() })?))
}
