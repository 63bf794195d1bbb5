//! `POST /v1/submissions`

use axum::Json;
use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest as _, Multipart, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

use crate::access::Action;
use crate::blobs::{Stored, Writer};
use crate::server::app::App;
use crate::server::body::{collect_or_refuse, drain, pieces};
use crate::server::caller::Caller;
use crate::server::connection::Connection;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::extract::Params;
use crate::store::{SubmissionView, Submit, Submitted};

/// A manifest, or a submission that is JSON alone, has no more bytes than this.
const JSON_CAP: u64 = 256 * 1024;
/// A key of the client's has no more characters than this.
const KEY_CAP: usize = 200;

/// How it is submitted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::server) struct SubmitParams {
    /// Runs the checks that need no build, and keeps nothing.
    #[serde(default)]
    preview: bool,
}

/// The parts of a submission.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "it describes the form; the parts are read as a stream")]
pub(in crate::server) struct SubmissionForm {
    /// The source as an archive (.tar or .tar.gz).
    #[schema(value_type = String, format = Binary)]
    source: Vec<u8>,
    /// The manifest as JSON, where the source has none.
    manifest: Option<String>,
}

/// Submits a package: its source as an upload.
#[utoipa::path(
    post,
    path = "/v1/submissions",
    operation_id = "createSubmission",
    tag = "submissions",
    params(
        SubmitParams,
        ("Idempotency-Key" = Option<String>, Header, description = "Repeats with the same key are one submission"),
    ),
    request_body(content = SubmissionForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "Taken; `links` say where to look", body = SubmissionView),
        (status = 200, description = "What a preview found", body = crate::store::VerdictView),
        (status = 413, description = "The source is too large"),
        (status = 422, description = "Refused; `findings` say why"),
        (status = 429, description = "This address has submitted too much; `Retry-After` says when it may again"),
        (status = 503, description = "Foreign code may not run here"),
    )
)]
pub(in crate::server) async fn create(
    State(app): State<App>,
    caller: ApiResult<Caller>,
    Params(params): Params<SubmitParams>,
    request: Request,
) -> ApiResult<Response> {
    let admitted = caller.and_then(|caller| {
        caller.require(Action::Submit)?;
        pace(&app, &request)?;
        Ok((key(request.headers())?, caller))
    });
    let (idempotency_key, caller) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            drain(request.into_body()).await;
            return Err(refusal);
        }
    };
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    if kind.starts_with("application/json") {
        return Err(without_upload(request.into_body()).await?);
    }
    if !kind.starts_with("multipart/form-data") {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media_type_unsupported",
            "a submission is `multipart/form-data` with a part `source`",
        ));
    }
    let (source, manifest) = read_parts(&app, request).await?;
    let submit = Submit { source, manifest, preview: params.preview, idempotency_key, by: caller.0 };
    Ok(match app.parts.store.submit(submit).await? {
        Submitted::Accepted(view) => {
            let location = [(header::LOCATION, format!("/v1/submissions/{}", view.id))];
            (StatusCode::CREATED, location, Json(view)).into_response()
        }
        Submitted::Preview(verdict) => Json(verdict).into_response(),
    })
}

/// Counts the request against its address; the local socket has no limit.
fn pace(app: &App, request: &Request) -> ApiResult<()> {
    let Some(Connection::Tcp { remote, .. }) = request.extensions().get::<Connection>() else {
        return Ok(());
    };
    app.parts.store.count_submission(remote.ip()).map_err(|wait| {
        let limit = app.config.limits.submissions_per_hour;
        let detail = format!("this address has used up its {limit} submissions an hour");
        let seconds = wait.as_secs().saturating_add(1).to_string();
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "submission_limit_reached", detail)
            .hint("previews count, too; the operator sets `limits.submissions_per_hour`")
            .with_header(header::RETRY_AFTER, &seconds)
    })
}

fn key(headers: &HeaderMap) -> ApiResult<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(text) if !text.is_empty() && text.len() <= KEY_CAP => Ok(Some(text.to_owned())),
        _ => Err(ApiError::invalid(
            "idempotency_key_invalid",
            format!("`Idempotency-Key` must be 1 to {KEY_CAP} visible characters"),
        )),
    }
}

/// A submission that names its source instead of bringing it.
async fn without_upload(body: Body) -> ApiResult<ApiError> {
    let bytes = collect_or_refuse(body, JSON_CAP).await?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::invalid("body_invalid", error.to_string()))?;
    let (code, detail) = if value.get("package_url").is_some() {
        ("source_kind_not_supported", "this Pantry takes sources by upload only, not from a URL")
    } else {
        ("source_missing", "the submission has no source")
    };
    Ok(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
        .hint("send `multipart/form-data` with the source as part `source`; `pantry submit DIR` does that"))
}

/// Reads the form as it comes; the source goes to the blobs piece by piece.
async fn read_parts(app: &App, request: Request) -> ApiResult<(Stored, Option<Value>)> {
    // With the deadline between pieces that every streamed body has.
    let request = request.map(|body| Body::from_stream(pieces(body)));
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|error| ApiError::invalid("form_invalid", error.body_text()))?;
    let mut source = None;
    let mut manifest = None;
    let read = async {
        while let Some(field) = form.next_field().await.map_err(|error| broken(&error))? {
            match field.name() {
                Some("source") if source.is_none() => source = Some(receive(app, field).await?),
                Some("manifest") if manifest.is_none() => manifest = Some(read_manifest(field).await?),
                Some("source" | "manifest") => {
                    return Err(ApiError::invalid("form_invalid", "a part is there twice"));
                }
                _ => return Err(ApiError::invalid("form_invalid", "the parts are `source` and `manifest`")),
            }
        }
        Ok(())
    };
    let read = read.await;
    match (read, source) {
        (Ok(()), Some(writer)) => Ok((writer.finish(None).await?, manifest)),
        (Ok(()), None) => Err(ApiError::invalid("source_missing", "the form has no part `source`")),
        (Err(error), Some(writer)) => {
            discard(writer).await;
            Err(error)
        }
        (Err(error), None) => Err(error),
    }
}

/// Writes the source, up to the cap; nothing of it stays behind when it breaks off.
async fn receive(app: &App, mut field: Field<'_>) -> ApiResult<Writer> {
    let cap = app.config.store.upload_cap_bytes;
    let mut writer = app.parts.blobs.begin().await?;
    let failed = loop {
        match field.chunk().await {
            Ok(None) => return Ok(writer),
            Ok(Some(piece)) => {
                if writer.written().saturating_add(piece.len() as u64) > cap {
                    break ApiError::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "source_too_large",
                        format!("the source may have {cap} bytes at most"),
                    );
                }
                if let Err(error) = writer.write(piece).await {
                    break error.into();
                }
            }
            Err(error) => break broken(&error),
        }
    };
    discard(writer).await;
    Err(failed)
}

async fn discard(writer: Writer) {
    if let Err(error) = writer.discard().await {
        tracing::warn!(%error, "an upload that failed could not be removed");
    }
}

async fn read_manifest(mut field: Field<'_>) -> ApiResult<Value> {
    let mut bytes = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(|error| broken(&error))? {
        if (bytes.len() + piece.len()) as u64 > JSON_CAP {
            return Err(ApiError::too_large(JSON_CAP));
        }
        bytes.extend_from_slice(&piece);
    }
    serde_json::from_slice(&bytes).map_err(|error| ApiError::invalid("manifest_not_json", error.to_string()))
}

fn broken(error: &MultipartError) -> ApiError {
    ApiError::invalid("form_invalid", error.body_text())
}
