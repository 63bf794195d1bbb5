//! `POST /v1/tokens`

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::access::{AccountName, Action, NewToken, Principal, Role, Scope, TokenView};
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::extract::sent;

/// An API token to be made.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct TokenRequest {
    /// What it is called, once an owner.
    #[schema(value_type = String)]
    name: AccountName,
    /// Whose it is; the caller's own without it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    owner: Option<AccountName>,
    /// How long it counts; for ever without it.
    #[serde(default)]
    expires_in_seconds: Option<u64>,
    /// Patterns with rights that it is narrowed to; all that its owner may when empty.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    scopes: Vec<Scope>,
    /// The most that its holder is here.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    role: Option<Role>,
}

/// An API token that was made.
#[derive(Serialize, utoipa::ToSchema)]
pub(in crate::server) struct Made {
    /// The token, `pty_…`; it is told this once.
    token: String,
    #[serde(flatten)]
    view: TokenView,
}

/// Makes an API token: an administrator for everybody, who showed a password for themselves.
#[utoipa::path(
    post,
    path = "/v1/tokens",
    operation_id = "createToken",
    tag = "accounts",
    request_body = TokenRequest,
    responses(
        (status = 201, description = "The token, this once", body = Made),
        (status = 404, description = "There is no such owner"),
        (status = 409, description = "The owner has a token of this name"),
        (status = 422, description = "No such token is made"),
    )
)]
pub(in crate::server) async fn create(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> ApiResult<Response> {
    if !matches!(caller.0, Principal::User { .. }) {
        caller.require(Action::Administer)?;
    }
    let request: TokenRequest = sent(body).await?;
    let own = caller.0.user().map(AccountName::parse).transpose()?;
    let owner = request.owner.or(own).ok_or_else(|| {
        ApiError::invalid("body_invalid", "the caller is no user, so `owner` must name one")
    })?;
    let new = NewToken {
        owner,
        name: request.name,
        expires_in: request.expires_in_seconds.map(Duration::from_secs),
        scopes: request.scopes,
        role: request.role,
    };
    let made = app.parts.access.create_token(&caller.0, new).await?;
    // No cache between here and the caller may keep it.
    let private = [(header::CACHE_CONTROL, "no-store")];
    let body = Json(Made { token: made.secret, view: made.view });
    Ok((StatusCode::CREATED, private, body).into_response())
}
