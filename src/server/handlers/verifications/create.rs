//! `POST /v1/verifications`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use crate::server::UpkeepWork;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::handlers::changes::begun::Begun;
use crate::server::handlers::upkeep::begin;

/// How it is verified.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::server) struct VerificationRequest {
    /// Read no faster than this; as fast as the disk gives where it is left out.
    bytes_per_second: Option<u64>,
}

impl From<VerificationRequest> for UpkeepWork {
    fn from(asked: VerificationRequest) -> Self {
        Self::Verification { bytes_per_second: asked.bytes_per_second }
    }
}

/// Hashes every blob again, and sets aside what is damaged.
#[utoipa::path(
    post,
    path = "/v1/verifications",
    operation_id = "verify",
    tag = "storage",
    request_body = VerificationRequest,
    responses(
        (status = 202, description = "A change does it", body = Begun),
        (status = 409, description = "One is under way"),
    )
)]
pub(in crate::server) async fn create(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> ApiResult<Response> {
    begin::<VerificationRequest>(&app, &caller, body).await
}
