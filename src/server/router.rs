//! Every route, in one list.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get};
use axum::{Json, Router};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::body::{read_leftovers, share_answers};
use super::challenge::TOKEN_PATH;
use super::errors::ApiError;
use super::guard::{Guard, guard};
use super::handlers::{
    audit, changes, collections, damage, grants, health, installed, metrics, packages, repairs, reports,
    repositories, status, submissions, token, tokens, users, v2, verifications,
};
use super::observe::{Observer, observe};

#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "Pantry",
    description = "The JSON API of Pantry. Below `/v2/` it speaks the OCI distribution API, which that specification \
                   describes. Errors are `application/problem+json` with `code`, `title`, `detail`, `hint`, `request_id`."
))]
struct Api;

/// The routes of the JSON API and the description that falls out of them.
fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(health::show::show))
        .routes(routes!(metrics::show::show))
        .routes(routes!(submissions::create::create, submissions::list::list))
        .routes(routes!(submissions::show::show))
        .routes(routes!(submissions::events::events))
        .routes(routes!(submissions::container_result::container_result))
        .routes(routes!(packages::list::list))
        .routes(routes!(packages::show::show))
        .routes(routes!(installed::create::create, installed::list::list))
        .routes(routes!(installed::delete::delete))
        .routes(routes!(changes::list::list))
        .routes(routes!(changes::show::show))
        .routes(routes!(changes::abort::abort))
        .routes(routes!(repositories::list::list, repositories::create::create))
        .routes(routes!(repositories::show::show, repositories::set::set, repositories::delete::delete))
        .routes(routes!(repositories::images::list))
        .routes(routes!(repositories::tags::list, repositories::tags::delete))
        .routes(routes!(repositories::retention::preview, repositories::retention::apply))
        .routes(routes!(collections::create::create))
        .routes(routes!(verifications::create::create))
        .routes(routes!(repairs::create::create))
        .routes(routes!(reports::show::show))
        .routes(routes!(damage::list::list))
        .routes(routes!(audit::list::list))
        .routes(routes!(status::show::show))
        .routes(routes!(users::create::create, users::list::list))
        .routes(routes!(users::show::show, users::update::update, users::delete::delete))
        .routes(routes!(tokens::create::create, tokens::list::list))
        .routes(routes!(tokens::delete::delete))
        .routes(routes!(grants::create::create, grants::list::list, grants::delete::delete))
        .route("/v2", any(v2::base))
        .route("/v2/", any(v2::base))
        .route(TOKEN_PATH, get(token::issue::issue).post(token::exchange::exchange))
        .route("/v2/{*rest}", any(v2::dispatch))
}

/// The description of the JSON API (`OpenAPI` 3.1), made from the code.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    described().split_for_parts().1
}

/// The router with its layers, outermost last.
pub(super) fn router(app: &App) -> Router {
    let (routes, description) = described().split_for_parts();
    let routes = routes
        .route("/v1/openapi.json", get(move || std::future::ready(Json(description))))
        .with_state(app.clone());
    let observer = Observer { metrics: app.metrics.clone(), random: app.parts.random.clone() };
    layered(routes, Guard::new(&app.config), observer)
}

/// What goes around every route.
pub(super) fn layered(routes: Router, guarded: Guard, observer: Observer) -> Router {
    routes
        .fallback(|| std::future::ready(ApiError::no_route()))
        .method_not_allowed_fallback(|| std::future::ready(ApiError::method_not_allowed(None)))
        // Each handler has its own cap, and blobs have none.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(share_answers))
        .layer(from_fn(read_leftovers))
        .layer(from_fn_with_state(Arc::new(guarded), guard))
        .layer(from_fn_with_state(observer, observe))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_of_the_json_api_is_described() {
        let described = openapi();
        let paths: Vec<&str> = described.paths.paths.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            [
                "/health",
                "/metrics",
                "/v1/audit",
                "/v1/changes",
                "/v1/changes/{id}",
                "/v1/changes/{id}/abort",
                "/v1/collections",
                "/v1/damaged-blobs",
                "/v1/grants",
                "/v1/installed",
                "/v1/installed/{name}",
                "/v1/packages",
                "/v1/packages/{name}",
                "/v1/repairs",
                "/v1/reports/{change}",
                "/v1/repositories",
                "/v1/repositories/{name}",
                "/v1/repositories/{name}/images",
                "/v1/repositories/{name}/retention",
                "/v1/repositories/{name}/tags",
                "/v1/status",
                "/v1/submissions",
                "/v1/submissions/{id}",
                "/v1/submissions/{id}/container-result",
                "/v1/submissions/{id}/events",
                "/v1/tokens",
                "/v1/tokens/{id}",
                "/v1/users",
                "/v1/users/{name}",
                "/v1/verifications",
            ]
        );
        let text = described.to_json().unwrap_or_default();
        let ids = text.split("\"operationId\":\"").skip(1).filter_map(|rest| rest.split('"').next());
        let mut ids: Vec<&str> = ids.collect();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!((count, ids.len()), (43, 43), "{ids:?}");
    }
}
