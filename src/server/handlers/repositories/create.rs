//! `POST /v1/repositories`

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde::Deserialize;

use super::{DryRun, Repository, body};
use crate::access::Action;
use crate::repos::RepositorySettings;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::extract::Params;

/// A new repository.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::server) struct NewRepository {
    /// Its name: 1 to 63 lowercase letters and digits, joined by `.`, `_`, `__` or `-`.
    name: String,
    /// `local`, which is what it is when this is left out.
    #[serde(default)]
    r#type: Option<String>,
    /// `docker`, which is what it is when this is left out.
    #[serde(default)]
    package: Option<String>,
    /// Its settings; none when they are left out.
    #[serde(default)]
    settings: RepositorySettings,
}

/// Makes a repository.
#[utoipa::path(
    post,
    path = "/v1/repositories",
    operation_id = "createRepository",
    tag = "repositories",
    params(DryRun),
    request_body = NewRepository,
    responses(
        (status = 201, description = "It is there now", body = Repository),
        (status = 200, description = "It could be made (`dry_run`)", body = Repository),
        (status = 400, description = "The name or a setting is not as it must be"),
        (status = 409, description = "There is one of this name"),
    )
)]
pub(in crate::server) async fn create(
    State(app): State<App>,
    caller: Caller,
    Params(DryRun { dry_run }): Params<DryRun>,
    request: Body,
) -> ApiResult<Response> {
    caller.require(Action::Administer)?;
    let request: NewRepository = body(request, "send JSON: {\"name\": \"<name>\"}").await?;
    for (field, given, taken) in [("type", &request.r#type, "local"), ("package", &request.package, "docker")]
    {
        if given.as_deref().is_some_and(|given| given != taken) {
            let detail = format!("`{field}` must be `{taken}`: this registry has no others");
            return Err(ApiError::invalid("repository_type_unsupported", detail));
        }
    }
    let made =
        app.parts.registry.add_repository(&caller.0, &request.name, &request.settings, dry_run).await?;
    let (status, location) = (
        if dry_run { StatusCode::OK } else { StatusCode::CREATED },
        [(header::LOCATION, format!("/v1/repositories/{}", made.name))],
    );
    Ok((status, location, Json(Repository::from(made))).into_response())
}
