//! `GET` and `HEAD /v2/<name>/manifests/<reference>`

use axum::response::Response;

use super::super::content::{Answer, Source};
use super::super::v2::V2;
use crate::server::errors::ApiResult;

pub(in crate::server) async fn get(v2: &V2, name: &str, reference: &str) -> ApiResult<Response> {
    let found = v2.registry.manifest(&v2.who, name, reference).await?;
    let answer = Answer::new(v2, &found.digest, found.size, &found.media_type)?;
    if !answer.has_bytes() {
        return Ok(answer.bare());
    }
    answer.of(Source::Memory(v2.registry.manifest_bytes(&found).await?)).await
}
