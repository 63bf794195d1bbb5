//! `POST /v1/users`

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde::Deserialize;

use crate::access::{AccountName, Action, NewUser, Role, UserView};
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::sent;

/// A user to be made.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct UserRequest {
    /// Up to 64 letters, digits, `.`, `_`, `-`, `@` and `+`, beginning with a letter or digit.
    #[schema(value_type = String)]
    name: AccountName,
    /// Without one the user gets in by API tokens alone.
    #[serde(default)]
    password: Option<String>,
    /// `nobody` (what grants say alone), `reader`, `installer` or `administrator`.
    #[serde(default)]
    #[schema(value_type = String)]
    role: Role,
}

/// Makes a user.
#[utoipa::path(
    post,
    path = "/v1/users",
    operation_id = "createUser",
    tag = "accounts",
    request_body = UserRequest,
    responses(
        (status = 201, description = "The user is there", body = UserView),
        (status = 409, description = "There is a user of this name"),
        (status = 422, description = "The name or the password is not taken"),
    )
)]
pub(in crate::server) async fn create(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> ApiResult<Response> {
    caller.require(Action::Administer)?;
    let request: UserRequest = sent(body).await?;
    let new = NewUser { name: request.name, password: request.password, role: request.role };
    let user = app.parts.access.create_user(&caller.0, new).await?;
    let location = [(header::LOCATION, format!("/v1/users/{}", user.name))];
    Ok((StatusCode::CREATED, location, Json(user)).into_response())
}
