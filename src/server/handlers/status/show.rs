//! `GET /v1/status`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;

use crate::access::Action;
use crate::keys::{Tls, TlsInfo};
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;

/// What this server is and where.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::server) struct Status {
    /// The version of the binary.
    version: &'static str,
    /// The schema of its state.
    schema: u32,
    /// The folder of everything it keeps.
    root: String,
    /// The address that it listens on.
    listen: String,
    /// What the port shows by TLS; `null` when it speaks plain HTTP.
    #[schema(value_type = Object)]
    tls: Option<TlsInfo>,
    /// As others call it.
    public_url: Option<String>,
    /// Who is asking, as the audit log would name it.
    you: String,
    /// Where the bundle comes from, and its digest.
    posture: Value,
    /// Which limits a sandbox really has here; `null` when none can be made.
    sandbox: Value,
    /// Why no sandbox can be made.
    sandbox_error: Option<String>,
}

/// What this server is and where.
#[utoipa::path(get, path = "/v1/status", operation_id = "showStatus", tag = "operations", responses((status = 200, body = Status)))]
pub(in crate::server) async fn show(State(app): State<App>, caller: Caller) -> ApiResult<Json<Status>> {
    caller.require(Action::ReadStatus)?;
    let (sandbox, sandbox_error) = match app.sandbox().await {
        Ok(receipt) => (receipt, None),
        Err(why) => (Value::Null, Some(why)),
    };
    Ok(Json(Status {
        version: env!("PANTRY_BUILD_VERSION"),
        schema: app.parts.state.schema().schema,
        root: app.config.root.display().to_string(),
        listen: app.config.listen.to_string(),
        tls: app.parts.tls.as_ref().map(Tls::info),
        public_url: app.config.public_url.clone(),
        you: caller.0.label(),
        posture: app.parts.posture.clone(),
        sandbox,
        sandbox_error,
    }))
}
