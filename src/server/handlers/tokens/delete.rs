//! `DELETE /v1/tokens/{id}`

use axum::extract::State;
use http::StatusCode;

use crate::access::Action;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::Segment;

/// Revokes an API token; its owner may too.
#[utoipa::path(
    delete,
    path = "/v1/tokens/{id}",
    operation_id = "revokeToken",
    tag = "accounts",
    params(("id" = String, Path, description = "The id of the token")),
    responses((status = 204, description = "It counts no more"), (status = 404, description = "There is none"))
)]
pub(in crate::server) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
) -> ApiResult<StatusCode> {
    if caller.0.user().is_none() {
        caller.require(Action::Administer)?;
    }
    app.parts.access.revoke_token(&caller.0, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
