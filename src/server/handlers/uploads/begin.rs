//! `POST /v2/<name>/blobs/uploads/`

use axum::body::Body;
use axum::response::Response;
use futures_util::StreamExt as _;
use http::StatusCode;

use super::super::v2::V2;
use super::{created, standing};
use crate::registry::{BeginUpload, Begun, Body as Pieces};
use crate::server::body::pieces;
use crate::server::errors::ApiResult;

pub(in crate::server) async fn begin(v2: &V2, name: &str, body: Body) -> ApiResult<Response> {
    let asked = BeginUpload {
        digest: v2.param("digest"),
        mount: v2.param("mount"),
        from: v2.param("from"),
        algorithm: v2.param("digest-algorithm"),
        address: v2.address,
    };
    Ok(match v2.registry.begin_upload(&v2.who, name, asked, counted(v2, body)).await? {
        Begun::Upload(upload) => standing(StatusCode::ACCEPTED, &upload),
        Begun::Created(blob) => created(&blob),
    })
}

/// The body, with its bytes in the figures.
pub(super) fn counted(v2: &V2, body: Body) -> Pieces {
    let metrics = v2.metrics.clone();
    pieces(body)
        .inspect(move |piece| {
            if let Ok(piece) = piece {
                metrics.bytes_in(piece.len());
            }
        })
        .boxed()
}
