//! `GET /v1/changes/{id}`

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::access::Action;
use crate::changes::{ChangeError, ChangeView};
use crate::names::ChangeId;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::extract::{Params, Segment};

/// A request that waits is answered after so long in any case; the client asks again.
const WAIT: Duration = Duration::from_secs(50);

/// How it is shown.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct ShowParams {
    /// Answers when the change has ended, or after 50 seconds.
    #[serde(default)]
    wait: bool,
}

/// A change with its log.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::server) struct ChangeShown {
    #[serde(flatten)]
    change: ChangeView,
    /// The lines of its log.
    log: Vec<String>,
}

/// The id, or the answer that there is no such change: what can't be one names none.
pub(in crate::server::handlers) fn parse(id: &str) -> ApiResult<ChangeId> {
    ChangeId::parse(id).map_err(|error| {
        ApiError::new(
            http::StatusCode::NOT_FOUND,
            "change_unknown",
            format!("there is no such change: {error}"),
        )
        .hint("GET /v1/changes lists them")
    })
}

/// One change: its tasks, its log, its error.
#[utoipa::path(
    get,
    path = "/v1/changes/{id}",
    operation_id = "showChange",
    tag = "changes",
    params(("id" = String, Path, description = "The change"), ShowParams),
    responses((status = 200, body = ChangeShown), (status = 404, description = "There is none"))
)]
pub(in crate::server) async fn show(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
    Params(params): Params<ShowParams>,
) -> ApiResult<Json<ChangeShown>> {
    caller.require(Action::ReadStatus)?;
    let id = parse(&id)?;
    let changes = &app.parts.changes;
    if params.wait {
        tokio::select! {
            ended = changes.until_ended(&id) => drop(ended?),
            () = tokio::time::sleep(WAIT) => {}
            () = app.closing.cancelled() => {}
        }
    }
    let change = changes.get(&id).await?.ok_or_else(|| ApiError::from(ChangeError::Unknown(id.clone())))?;
    let log = changes.log(&id).await?;
    Ok(Json(ChangeShown { change, log }))
}
