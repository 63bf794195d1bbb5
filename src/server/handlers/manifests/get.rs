//! `GET` and `HEAD /v2/<name>/manifests/<reference>`

use axum::response::Response;

use super::super::content::{Answer, Source};
use super::super::v2::V2;
use crate::blobs::INLINE_BYTES;
use crate::server::errors::ApiResult;

pub(in crate::server) async fn get(v2: &V2, name: &str, reference: &str) -> ApiResult<Response> {
    let found = v2.registry.manifest(&v2.who, name, reference).await?;
    let answer = Answer::new(v2, &found.digest, found.size, &found.media_type)?;
    if !answer.has_bytes() {
        return Ok(answer.bare());
    }
    let source = if found.size <= INLINE_BYTES as u64 {
        Source::Memory(v2.registry.manifest_bytes(&found).await?)
    } else {
        // Held as a whole, a large one would stay in memory once for every slow reader.
        Source::Manifest(v2.registry.clone(), found.clone())
    };
    answer.of(source).await
}
