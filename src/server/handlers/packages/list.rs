//! `GET /v1/packages`

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use crate::access::Action;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::{Page, Params, limit};
use crate::store::PackageView;

/// Which packages.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct PackageParams {
    /// Words that the name or description must have.
    q: Option<String>,
    /// How many entries at most (1 to 200).
    limit: Option<usize>,
    /// The name after which to begin.
    after: Option<String>,
}

/// Published packages, by name.
#[utoipa::path(
    get,
    path = "/v1/packages",
    operation_id = "listPackages",
    tag = "packages",
    params(PackageParams),
    responses((status = 200, body = Page<PackageView>))
)]
pub(in crate::server) async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<PackageParams>,
) -> ApiResult<Json<Page<PackageView>>> {
    caller.require(Action::ReadStatus)?;
    let limit = limit(params.limit)?;
    let packages = app.parts.store.packages(params.q, params.after, limit).await?;
    Ok(Json(Page::new(packages, limit, |package| package.name.clone())))
}
