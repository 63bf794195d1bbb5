//! `GET` and `DELETE /v1/repositories/{name}/tags`

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::administers;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::{Page, Params, Segment, limit};

/// Which tags.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct TagParams {
    /// The whole name of the image.
    image: String,
    /// How many entries at most (1 to 200).
    limit: Option<usize>,
    /// The tag after which to begin.
    after: Option<String>,
}

/// Which tag goes.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct DeleteTagParams {
    /// The whole name of the image.
    image: String,
    /// The tag.
    tag: String,
    /// Answers as if it were done, or refuses as it would be refused, and changes nothing.
    #[serde(default)]
    dry_run: bool,
}

/// A tag of an image.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::server) struct ImageTag {
    /// The tag.
    tag: String,
    /// The manifest that it points to.
    digest: String,
    /// When it was set, RFC 3339.
    set_at: String,
    /// When its manifest was asked for last, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pulled_at: Option<String>,
}

/// The tags of an image, by name.
#[utoipa::path(
    get,
    path = "/v1/repositories/{name}/tags",
    operation_id = "listImageTags",
    tag = "repositories",
    params(("name" = String, Path, description = "The name of the repository"), TagParams),
    responses((status = 200, body = Page<ImageTag>), (status = 404, description = "There is none of this name"))
)]
pub(in crate::server) async fn list(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
    Params(params): Params<TagParams>,
) -> ApiResult<Json<Page<ImageTag>>> {
    administers(&caller, &name)?;
    let limit = limit(params.limit)?;
    let registry = &app.parts.registry;
    let found = registry.image_tags(&name, &params.image, params.after.as_deref(), limit).await?;
    let tags = found
        .into_iter()
        .map(|found| ImageTag {
            tag: found.tag.to_string(),
            digest: found.digest.to_string(),
            set_at: found.set_at.rfc3339(),
            pulled_at: found.pulled_at.map(crate::names::Millis::rfc3339),
        })
        .collect();
    Ok(Json(Page::new(tags, limit, |tag: &ImageTag| tag.tag.clone())))
}

/// Removes a tag, immutable or not, and nothing else.
#[utoipa::path(
    delete,
    path = "/v1/repositories/{name}/tags",
    operation_id = "deleteImageTag",
    tag = "repositories",
    params(("name" = String, Path, description = "The name of the repository"), DeleteTagParams),
    responses(
        (status = 204, description = "It is gone, or could be removed (`dry_run`)"),
        (status = 403, description = "The repository is one of Pantry's own"),
        (status = 404, description = "There is no such repository or tag"),
    )
)]
pub(in crate::server) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
    Params(params): Params<DeleteTagParams>,
) -> ApiResult<http::StatusCode> {
    administers(&caller, &name)?;
    let registry = &app.parts.registry;
    registry.delete_image_tag(&caller.0, &name, &params.image, &params.tag, params.dry_run).await?;
    Ok(http::StatusCode::NO_CONTENT)
}
