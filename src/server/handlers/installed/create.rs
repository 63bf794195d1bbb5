//! `POST /v1/installed`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

use crate::access::Action;
use crate::server::app::App;
use crate::server::body::collect_or_refuse;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::extract::BODY_CAP;
use crate::server::handlers::changes::begun::{Begun, begun};
use crate::store;

/// What is to be installed.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct InstallRequest {
    /// `name`, `publisher/name` or `name@version`.
    package: String,
    /// The version; the latest when it is left out.
    #[serde(default)]
    version: Option<String>,
}

/// Installs a published package.
#[utoipa::path(
    post,
    path = "/v1/installed",
    operation_id = "installPackage",
    tag = "installed",
    request_body = InstallRequest,
    responses(
        (status = 202, description = "A change installs it", body = Begun),
        (status = 404, description = "There is no such package or version"),
        (status = 409, description = "Another change works on it"),
    )
)]
pub(in crate::server) async fn create(
    State(app): State<App>,
    caller: Caller,
    body: Body,
) -> ApiResult<Response> {
    caller.require(Action::Install)?;
    let bytes = collect_or_refuse(body, BODY_CAP).await?;
    let request: InstallRequest = serde_json::from_slice(&bytes).map_err(|error| {
        ApiError::invalid("body_invalid", error.to_string()).hint("send JSON: {\"package\": \"<name>\"}")
    })?;
    let wanted = match &request.version {
        Some(version) => format!("{}@{version}", request.package),
        None => request.package,
    };
    let text = wanted.clone();
    let found = app.parts.state.read(move |view| store::resolve_package(view, &text)).await?;
    let (id, version, digest) = found.ok_or_else(|| {
        let shown: String = wanted.chars().take(200).collect();
        ApiError::new(StatusCode::NOT_FOUND, "package_unknown", format!("no published package is {shown:?}"))
            .hint("GET /v1/packages lists what is published")
    })?;
    let change = app.parts.installer.install(id, version, digest, &caller.0).await?;
    Ok(begun(&change))
}
