//! `GET /v1/repositories/{name}/images`

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::administers;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::{ListParams, Page, Params, Segment, limit};

/// An image of a repository.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::server) struct Image {
    /// Its whole name.
    name: String,
    /// How many manifests it holds.
    manifests: u64,
    /// How many tags it has.
    tags: u64,
    /// The bytes of its manifests and blobs.
    bytes: u64,
}

/// The images of a repository, by name.
#[utoipa::path(
    get,
    path = "/v1/repositories/{name}/images",
    operation_id = "listImages",
    tag = "repositories",
    params(("name" = String, Path, description = "The name of the repository"), ListParams),
    responses((status = 200, body = Page<Image>), (status = 404, description = "There is none of this name"))
)]
pub(in crate::server) async fn list(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
    Params(params): Params<ListParams>,
) -> ApiResult<Json<Page<Image>>> {
    administers(&caller, &name)?;
    let limit = limit(params.limit)?;
    let found = app.parts.registry.images(&name, params.after, limit).await?;
    let images = found
        .into_iter()
        .map(|image| Image {
            name: image.name.to_string(),
            manifests: image.manifests,
            tags: image.tags,
            bytes: image.bytes,
        })
        .collect();
    Ok(Json(Page::new(images, limit, |image: &Image| image.name.clone())))
}
