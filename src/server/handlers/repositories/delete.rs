//! `DELETE /v1/repositories/{name}`

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::access::Action;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::extract::{Params, Segment};

/// How it is removed.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct DeleteParams {
    /// Everything that it holds goes too.
    #[serde(default)]
    force: bool,
    /// Answers as if it were done, or refuses as it would be refused, and changes nothing.
    #[serde(default)]
    dry_run: bool,
}

/// What a repository held that was removed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::server) struct Removed {
    /// Its name.
    name: String,
    /// Names below it that held something.
    images: u64,
    /// Their manifests.
    manifests: u64,
    /// Their tags.
    tags: u64,
    /// Grants on it, and on what lay below it, that were taken back.
    grants: u64,
    /// Their bytes; those on disk that nothing else refers to go with the next collection.
    bytes: u64,
}

/// Removes a repository; answers when everything that it held is gone from it.
#[utoipa::path(
    delete,
    path = "/v1/repositories/{name}",
    operation_id = "removeRepository",
    tag = "repositories",
    params(("name" = String, Path, description = "The name of the repository"), DeleteParams),
    responses(
        (status = 200, description = "It is gone, or could be removed (`dry_run`)", body = Removed),
        (status = 403, description = "It is one of Pantry's own"),
        (status = 404, description = "There is none of this name"),
        (status = 409, description = "It holds something, and `force` was not given"),
    )
)]
pub(in crate::server) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
    Params(params): Params<DeleteParams>,
) -> ApiResult<Json<Removed>> {
    caller.require(Action::Administer)?;
    let (registry, access, asked) = (app.parts.registry.clone(), app.parts.access.clone(), name.clone());
    // It goes on also when the client stops waiting.
    let removal = tokio::spawn(async move {
        let removal = registry.remove_repository(&caller.0, &asked, params.force, params.dry_run).await;
        if !params.dry_run
            && let Err(error) = access.reload().await
        {
            tracing::error!(%error, "grants that were taken back with a repository are still in memory");
        }
        removal
    });
    let removed = removal.await.map_err(|error| ApiError::internal("internal_error", &error))??;
    let totals = removed.totals;
    Ok(Json(Removed {
        name,
        images: totals.images,
        manifests: totals.manifests,
        tags: totals.tags,
        grants: removed.grants,
        bytes: totals.bytes,
    }))
}
