//! `GET /v1/damaged-blobs`

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::access::Action;
use crate::blobs::{self, Damage};
use crate::names::Digest;
use crate::repos;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::{ListParams, Page, Params, limit};
use crate::state::StateError;

/// Manifests and owners that are told of one blob.
const AFFECTED: usize = 100;

/// A blob whose bytes are damaged or gone.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::server) struct DamagedView {
    /// Its digest.
    digest: String,
    /// `damaged` or `missing`.
    damage: &'static str,
    /// In bytes.
    size: u64,
    /// When it was found, RFC 3339.
    found_at: String,
    /// The manifests that need it, the first hundred.
    manifests: Vec<AffectedView>,
    /// Everybody who refers to it, as `kind key`, the first hundred.
    owners: Vec<String>,
}

/// A manifest that needs a damaged blob.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::server) struct AffectedView {
    /// Its repository.
    repository: String,
    /// As it is named.
    digest: String,
    /// Its first tags.
    tags: Vec<String>,
}

/// Blobs that were found damaged or missing, and who needs them. A push of the same bytes heals one.
#[utoipa::path(
    get,
    path = "/v1/damaged-blobs",
    operation_id = "listDamagedBlobs",
    tag = "storage",
    params(ListParams),
    responses((status = 200, body = Page<DamagedView>))
)]
pub(in crate::server) async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> ApiResult<Json<Page<DamagedView>>> {
    caller.require(Action::Administer)?;
    let limit = limit(params.limit)?;
    let after = params.after.map(|text| Digest::parse(&text)).transpose()?;
    let found = app
        .parts
        .state
        .read(move |view| {
            let mut found = Vec::new();
            for one in blobs::damaged(view, after.as_ref(), limit)? {
                let affected = repos::affected(view, &one.digest, AFFECTED)?;
                let owners = blobs::owners(view, &one.digest, AFFECTED)?;
                found.push((one, affected, owners));
            }
            Ok::<_, StateError>(found)
        })
        .await?;
    let views = found
        .into_iter()
        .map(|(one, affected, owners)| DamagedView {
            digest: one.digest.to_string(),
            damage: if one.damage == Damage::Missing { "missing" } else { "damaged" },
            size: one.size,
            found_at: one.found_at.rfc3339(),
            manifests: affected
                .into_iter()
                .map(|manifest| AffectedView {
                    repository: manifest.repo.to_string(),
                    digest: manifest.digest.to_string(),
                    tags: manifest.tags.iter().map(ToString::to_string).collect(),
                })
                .collect(),
            owners: owners.into_iter().map(|(kind, key)| format!("{kind} {key}")).collect(),
        })
        .collect();
    Ok(Json(Page::new(views, limit, |view| view.digest.clone())))
}
