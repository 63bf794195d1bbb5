//! `GET` and `HEAD /v2/<name>/blobs/<digest>`

use axum::response::Response;

use super::super::content::{Answer, Source};
use super::super::v2::V2;
use crate::server::errors::ApiResult;

pub(in crate::server) async fn get(v2: &V2, name: &str, digest: &str) -> ApiResult<Response> {
    let found = v2.registry.blob(&v2.who, name, digest).await?;
    let answer = Answer::new(v2, &found.digest, found.size, "application/octet-stream")?;
    if !answer.has_bytes() {
        return Ok(answer.bare());
    }
    answer.of(Source::Blob(v2.registry.clone(), found.clone())).await
}
