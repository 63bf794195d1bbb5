//! `GET /v1/packages/{name}`

use axum::Json;
use axum::extract::State;

use crate::access::Action;
use crate::names::PackageName;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::extract::Segment;
use crate::store::PackageView;

/// One package with its versions.
#[utoipa::path(
    get,
    path = "/v1/packages/{name}",
    operation_id = "showPackage",
    tag = "packages",
    params(("name" = String, Path, description = "The name of the package")),
    responses((status = 200, body = PackageView), (status = 404, description = "There is none"))
)]
pub(in crate::server) async fn show(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
) -> ApiResult<Json<PackageView>> {
    caller.require(Action::ReadStatus)?;
    let name = PackageName::parse(&name)?;
    let package = app.parts.store.package(&name).await?;
    package.map(Json).ok_or_else(|| {
        ApiError::new(http::StatusCode::NOT_FOUND, "package_unknown", format!("there is no package {name}"))
            .hint("GET /v1/packages lists what is published")
    })
}
