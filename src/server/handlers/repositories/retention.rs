//! `GET` and `POST /v1/repositories/{name}/retention`

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::administers;
use crate::registry::{RepositoryError, RetentionEntry, RetentionSummary};
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::extract::{ListParams, Params, Segment, limit};

/// A part of what the rules would do.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::server) struct RetentionPage {
    /// Tags, and manifests without one, image by image.
    items: Vec<RetentionEntry>,
    /// What to give as `after` for what is behind these; absent at the end. A page may be short before the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What the retention rules would do now, and why; changes nothing.
#[utoipa::path(
    get,
    path = "/v1/repositories/{name}/retention",
    operation_id = "previewRetention",
    tag = "repositories",
    params(("name" = String, Path, description = "The name of the repository"), ListParams),
    responses((status = 200, body = RetentionPage), (status = 404, description = "There is none of this name"))
)]
pub(in crate::server) async fn preview(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
    Params(params): Params<ListParams>,
) -> ApiResult<Json<RetentionPage>> {
    administers(&caller, &name)?;
    let limit = limit(params.limit)?;
    let registry = &app.parts.registry;
    let root = registry.repository(&name).await?.name;
    let page = registry.retention_preview(&root, params.after.as_deref(), limit).await?;
    let (items, next) = page.ok_or(RepositoryError::Cursor)?;
    Ok(Json(RetentionPage { items, next }))
}

/// Applies the retention rules of a repository now; answers when it is done.
#[utoipa::path(
    post,
    path = "/v1/repositories/{name}/retention",
    operation_id = "applyRetention",
    tag = "repositories",
    params(("name" = String, Path, description = "The name of the repository")),
    responses((status = 200, body = RetentionSummary), (status = 404, description = "There is none of this name"))
)]
pub(in crate::server) async fn apply(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
) -> ApiResult<Json<RetentionSummary>> {
    administers(&caller, &name)?;
    let registry = app.parts.registry.clone();
    // It goes on also when the client stops waiting.
    let pass = tokio::spawn(async move { registry.apply_retention(&caller.0, &name).await });
    let summary = pass.await.map_err(|error| ApiError::internal("internal_error", &error))??;
    Ok(Json(summary))
}
