//! `DELETE /v1/users/{name}`

use axum::extract::State;
use http::StatusCode;

use crate::access::{AccountName, Action};
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::Segment;

/// Removes a user with all tokens, memberships and grants.
#[utoipa::path(
    delete,
    path = "/v1/users/{name}",
    operation_id = "deleteUser",
    tag = "accounts",
    params(("name" = String, Path, description = "The name of the user")),
    responses((status = 204, description = "The user is gone"), (status = 404, description = "There is none"))
)]
pub(in crate::server) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
) -> ApiResult<StatusCode> {
    caller.require(Action::Administer)?;
    app.parts.access.delete_user(&caller.0, &AccountName::parse(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
