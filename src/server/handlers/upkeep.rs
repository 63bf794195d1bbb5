//! How a run of upkeep is begun: what `collections`, `verifications` and `repairs` do alike.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde::de::DeserializeOwned;

use super::changes::begun::begun;
use crate::access::Action;
use crate::server::UpkeepWork;
use crate::server::app::App;
use crate::server::body::collect_or_refuse;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::extract::BODY_CAP;

/// Makes the change that does what the body asks for; no body asks for the usual.
pub(super) async fn begin<T>(app: &App, caller: &Caller, body: Body) -> ApiResult<Response>
where
    T: DeserializeOwned + Default + Into<UpkeepWork>,
{
    caller.require(Action::Administer)?;
    let bytes = collect_or_refuse(body, BODY_CAP).await?;
    let asked = if bytes.is_empty() {
        T::default()
    } else {
        serde_json::from_slice(&bytes).map_err(|error| {
            ApiError::invalid("body_invalid", error.to_string())
                .hint("send JSON, or no body: GET /v1/openapi.json tells which members there are")
        })?
    };
    match app.parts.upkeep.begin(asked.into(), &caller.0.label()).await? {
        Ok(change) => Ok(begun(&change)),
        Err(conflict) => {
            let detail = format!("change {} does that already", conflict.holder);
            Err(ApiError::new(StatusCode::CONFLICT, "upkeep_in_progress", detail)
                .hint(format!("wait for it: pantry change {}", conflict.holder)))
        }
    }
}
