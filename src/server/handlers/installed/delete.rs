//! `DELETE /v1/installed/{name}`

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use crate::access::Action;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::{Params, Segment};
use crate::server::handlers::changes::begun::{Begun, begun};

/// How it is removed.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct RemoveParams {
    /// What the package wrote goes too.
    #[serde(default)]
    purge: bool,
}

/// Removes an installed package.
#[utoipa::path(
    delete,
    path = "/v1/installed/{name}",
    operation_id = "removePackage",
    tag = "installed",
    params(("name" = String, Path, description = "The name of the package"), RemoveParams),
    responses(
        (status = 202, description = "A change removes it", body = Begun),
        (status = 404, description = "It is not installed"),
    )
)]
pub(in crate::server) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Segment(name): Segment,
    Params(params): Params<RemoveParams>,
) -> ApiResult<Response> {
    caller.require(Action::Install)?;
    let change = app.parts.installer.remove(&name, params.purge, &caller.0).await?;
    Ok(begun(&change))
}
