//! `POST /v1/repairs`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::access::Action;
use crate::server::UpkeepWork;
use crate::server::app::App;
use crate::server::body::collect_or_refuse;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::handlers::installed::create::{Begun, begun};

/// A request has no more bytes than this.
const BODY_CAP: u64 = 64 * 1024;

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
    caller.require(Action::Administer)?;
    let asked: RepairRequest = options(body).await?;
    begin(&app, &caller, UpkeepWork::Repair { dry_run: asked.dry_run }).await
}

/// The options in a body; none at all is a request too.
pub(in crate::server::handlers) async fn options<T: DeserializeOwned + Default>(body: Body) -> ApiResult<T> {
    let bytes = collect_or_refuse(body, BODY_CAP).await?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        ApiError::invalid("body_invalid", error.to_string())
            .hint("send JSON, or no body: GET /v1/openapi.json tells which members there are")
    })
}

/// Makes the change.
pub(in crate::server::handlers) async fn begin(
    app: &App,
    caller: &Caller,
    work: UpkeepWork,
) -> ApiResult<Response> {
    match app.parts.upkeep.begin(work, &caller.0.label()).await? {
        Ok(change) => Ok(begun(&change)),
        Err(conflict) => {
            let detail = format!("change {} does that already", conflict.holder);
            Err(ApiError::new(StatusCode::CONFLICT, "upkeep_in_progress", detail)
                .hint(format!("wait for it: pantry change {}", conflict.holder)))
        }
    }
}
