//! `DELETE /v1/grants`

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;

use crate::access::{Action, Pattern, Subject};
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::Params;

/// Which grant.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct GrantParams {
    /// `user:<name>`, `group:<name>` or `anonymous`.
    #[param(value_type = String)]
    subject: Subject,
    /// `*`, or the name of a repository.
    #[param(value_type = String)]
    pattern: Pattern,
}

/// Takes back all that a subject was granted on a pattern.
#[utoipa::path(
    delete,
    path = "/v1/grants",
    operation_id = "revokeGrant",
    tag = "accounts",
    params(GrantParams),
    responses((status = 204, description = "It counts no more"), (status = 404, description = "There is none"))
)]
pub(in crate::server) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<GrantParams>,
) -> ApiResult<StatusCode> {
    caller.require(Action::Administer)?;
    app.parts.access.revoke_grant(&caller.0, &params.subject, &params.pattern).await?;
    Ok(StatusCode::NO_CONTENT)
}
