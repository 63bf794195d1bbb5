//! `POST /v1/submissions/{id}/container-result`

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use serde_json::Value;

use crate::callback;
use crate::server::app::App;
use crate::server::body::collect_of_stranger;
use crate::server::errors::ApiResult;
use crate::server::extract::Segment;

/// Takes the signed result of a test. For everybody: the signature alone says who sends it.
#[utoipa::path(
    post,
    path = "/v1/submissions/{id}/container-result",
    operation_id = "acceptContainerResult",
    tag = "submissions",
    params(("id" = String, Path, description = "The submission")),
    request_body = Value,
    responses(
        (status = 200, description = "Accepted, or a repeat of what was", body = Value),
        (status = 401, description = "The signature is missing or not valid"),
        (status = 404, description = "There is no such submission"),
        (status = 409, description = "No result is awaited"),
        (status = 413, description = "Larger than 1 MiB"),
        (status = 422, description = "Not of the schema"),
    )
)]
pub(in crate::server) async fn container_result(
    State(app): State<App>,
    Segment(id): Segment,
    headers: HeaderMap,
    body: Body,
) -> ApiResult<Json<Value>> {
    let bytes = collect_of_stranger(body, callback::BODY_CAP as u64).await?;
    let values = headers.get_all(callback::HEADER).iter().map(|value| value.as_bytes().to_vec()).collect();
    Ok(Json(app.parts.store.container_result(&id, values, bytes).await?))
}
