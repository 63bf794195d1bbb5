//! `POST /v1/collections`

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

/// How it is collected.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::server) struct CollectionRequest {
    /// Only tell what would go, and why.
    dry_run: bool,
    /// How long nobody must have wanted it, in seconds; else that of the configuration. With 0 pushes that are under way
    /// lose what no manifest names yet.
    grace_seconds: Option<u64>,
}

impl From<CollectionRequest> for UpkeepWork {
    fn from(asked: CollectionRequest) -> Self {
        let grace_ms = asked.grace_seconds.map(|seconds| seconds.saturating_mul(1_000));
        Self::Collection { dry_run: asked.dry_run, grace_ms }
    }
}

/// Collects what nobody refers to.
#[utoipa::path(
    post,
    path = "/v1/collections",
    operation_id = "collect",
    tag = "storage",
    request_body = CollectionRequest,
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
    begin::<CollectionRequest>(&app, &caller, body).await
}
