//! `PUT /v1/grants`

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use serde::Deserialize;

use crate::access::{Action, GrantView, Pattern, Rights, Subject};
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::sent;

/// Rights for somebody in some repositories.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct GrantRequest {
    /// `user:<name>`, `group:<name>` or `anonymous`.
    #[schema(value_type = String)]
    subject: Subject,
    /// `*`, or the name of a repository: it and those below it.
    #[schema(value_type = String)]
    pattern: Pattern,
    /// `pull`, `push`, `delete`, `admin`.
    #[schema(value_type = Vec<String>)]
    rights: Rights,
}

/// Grants rights on a pattern, in place of what the subject was granted on it.
#[utoipa::path(
    put,
    path = "/v1/grants",
    operation_id = "grant",
    tag = "accounts",
    request_body = GrantRequest,
    responses(
        (status = 200, description = "From now on", body = GrantView),
        (status = 404, description = "There is no such user"),
        (status = 422, description = "It names no right"),
    )
)]
pub(in crate::server) async fn create(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> ApiResult<Json<GrantView>> {
    caller.require(Action::Administer)?;
    let GrantRequest { subject, pattern, rights } = sent(body).await?;
    Ok(Json(app.parts.access.grant(&caller.0, &subject, &pattern, rights).await?))
}
