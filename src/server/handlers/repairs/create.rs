//! `POST /v1/repairs`

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

/// How it is repaired.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::server) struct RepairRequest {
    /// Only tell what would be done; so it is unless `false` is sent.
    dry_run: bool,
}

impl Default for RepairRequest {
    fn default() -> Self {
        Self { dry_run: true }
    }
}

impl From<RepairRequest> for UpkeepWork {
    fn from(asked: RepairRequest) -> Self {
        Self::Repair { dry_run: asked.dry_run }
    }
}

/// Brings records, references and files together again.
#[utoipa::path(
    post,
    path = "/v1/repairs",
    operation_id = "repair",
    tag = "storage",
    request_body = RepairRequest,
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
    begin::<RepairRequest>(&app, &caller, body).await
}
