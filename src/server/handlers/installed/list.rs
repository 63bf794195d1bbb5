//! `GET /v1/installed`

use axum::Json;
use axum::extract::State;

use crate::access::Action;
use crate::install::InstalledView;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::ApiResult;
use crate::server::extract::Page;

/// What is installed on this machine.
#[utoipa::path(get, path = "/v1/installed", operation_id = "listInstalled", tag = "installed", responses((status = 200, body = Page<InstalledView>)))]
pub(in crate::server) async fn list(
    State(app): State<App>,
    caller: Caller,
) -> ApiResult<Json<Page<InstalledView>>> {
    caller.require(Action::ReadStatus)?;
    Ok(Json(Page::whole(app.parts.installer.list().await?)))
}
