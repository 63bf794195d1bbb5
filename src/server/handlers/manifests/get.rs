//! `GET` and `HEAD /v2/<name>/manifests/<reference>`

use axum::response::Response;

use super::super::content::{Answer, Source};
use super::super::v2::V2;
use crate::blobs::INLINE_BYTES;
use crate::names::RepoName;
use crate::registry::{BlobFound, RegistryError};
use crate::server::errors::ApiResult;

pub(in crate::server) async fn get(v2: &V2, name: &str, reference: &str) -> ApiResult<Response> {
    let found = v2.registry.manifest(&v2.who, name, reference).await?;
    let answer = Answer::new(v2, &found.digest, found.size, &found.media_type)?;
    if !answer.has_bytes() {
        return Ok(answer.bare());
    }
    if found.size <= INLINE_BYTES as u64 {
        return answer.of(Source::Memory(v2.registry.manifest_bytes(&found).await?)).await;
    }
    // A large one is streamed like a blob: held as a whole, it would stay in memory once for every slow reader.
    let (repo, stored) = (RepoName::parse(name).map_err(RegistryError::NameInvalid)?, found.stored.clone());
    let blob = BlobFound { repo, digest: found.digest.clone(), stored, size: found.size };
    answer.of(Source::Blob(v2.registry.clone(), blob)).await
}
