//! Errors as clients see them. The one place that knows which status an error has.
//!
//! **Which error type to use where**: parts below return their own errors and know nothing of HTTP; handlers return
//! [`ApiError`], into which `?` turns those; what a client did wrong here at the edge has a constructor named by
//! meaning (`ApiError::not_found`). An [`ApiError`] carries what the client is told, and apart from it what only the
//! log is told; its body is written by `observe`, which knows the request's id and which form its path wants.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::challenge::Challenge;
use crate::access::AccessError;
use crate::blobs::BlobError;
use crate::changes::ChangeError;
use crate::install::InstallRefusal;
use crate::names::NameError;
use crate::registry::{RegistryError, RepositoryError};
use crate::state::StateError;
use crate::store::{RefusalKind, StoreRefusal};

/// An error on its way to a client.
#[derive(Debug)]
pub(super) struct ApiError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    problem: Problem,
    headers: Vec<(HeaderName, HeaderValue)>,
    internal: Option<String>,
    challenge: Option<Challenge>,
}

/// What the client is told; travels in the response's extensions until `observe` writes the body.
#[derive(Clone, Debug)]
struct Problem {
    code: Cow<'static, str>,
    detail: String,
    hint: Option<String>,
    /// Further members.
    more: serde_json::Map<String, Value>,
}

/// What the log is told.
#[derive(Clone, Debug)]
pub(super) struct Internal(pub(super) Arc<str>);

pub(super) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Self {
        let problem =
            Problem { code: code.into(), detail: detail.into(), hint: None, more: serde_json::Map::new() };
        Self(Box::new(Inner { status, problem, headers: Vec::new(), internal: None, challenge: None }))
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.problem.hint = Some(hint.into());
        self
    }

    fn maybe_hint(mut self, hint: Option<impl Into<String>>) -> Self {
        self.0.problem.hint = hint.map(Into::into);
        self
    }

    fn more(mut self, name: &str, value: Value) -> Self {
        self.0.problem.more.insert(name.to_owned(), value);
        self
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        // A value that is no header would be one of ours with control characters in it; it is left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.push((name, value));
        }
        self
    }

    /// The stable code.
    #[cfg(test)]
    pub(super) fn code(&self) -> &str {
        &self.0.problem.code
    }

    /// An error whose inside is for the log alone.
    pub(super) fn internal(code: &'static str, error: &dyn std::error::Error) -> Self {
        let mut chain = error.to_string();
        let mut source = error.source();
        let mut full = false;
        while let Some(next) = source {
            full |= next.downcast_ref::<std::io::Error>().is_some_and(|error| {
                matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            });
            chain.push_str(": ");
            chain.push_str(&next.to_string());
            source = next.source();
        }
        let detail = "something failed inside; the log has more under this request id";
        let mut own =
            if full { Self::disk_full() } else { Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, detail) };
        own.0.internal = Some(chain);
        own
    }

    /// What failed below a blob, of which the client may know only what it can act on.
    fn blobs(error: &BlobError) -> Self {
        match error {
            BlobError::UploadBusy(_) => {
                Self::new(StatusCode::CONFLICT, error.code(), "another request is using the upload")
                    .maybe_hint(error.hint())
            }
            _ if error.is_disk_full() => {
                let mut own = Self::disk_full();
                own.0.internal = Self::internal(error.code(), error).0.internal;
                own
            }
            _ => Self::internal(error.code(), error),
        }
    }

    fn disk_full() -> Self {
        let detail = "the server has no room for these bytes: its disk is full";
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", detail)
            .hint("free space on the disk of the root, then send the content again")
    }

    pub(super) fn panicked(message: &str) -> Self {
        let detail = "something failed inside; the log has more under this request id";
        let mut own = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", detail);
        own.0.internal = Some(format!("a handler panicked: {message}"));
        own
    }

    pub(super) fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", what)
    }

    pub(super) fn no_route() -> Self {
        Self::not_found("there is nothing at this path").hint("GET /v1/openapi.json lists what there is")
    }

    pub(super) fn method_not_allowed(allowed: Option<&str>) -> Self {
        let own = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path does not answer this method",
        )
        .hint("the answer's `Allow` lists the methods");
        match allowed {
            Some(allowed) => own.with_header(header::ALLOW, allowed),
            None => own,
        }
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "this needs credentials")
            .hint("use the local socket, or a token: `Authorization: Bearer pty_…`, or Basic with the token as password")
            .challenged()
    }

    pub(super) fn wrong_credentials() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "these credentials are not valid")
            .hint("show a token of this server as `Authorization: Bearer pty_…`, or as the password of Basic")
            .challenged()
    }

    /// What may be in memory at once is used up; `code` is that of the path's form.
    pub(super) fn busy(code: &'static str) -> Self {
        let detail = "other requests have all the memory that there is for bodies at this moment";
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail)
            .hint("send the request again after the time in `Retry-After`")
            .with_header(header::RETRY_AFTER, "2")
    }

    fn challenged(mut self) -> Self {
        self.0.challenge = Some(Challenge::default());
        self
    }

    /// Tells a client why its token is not enough, without which some never ask for another one.
    pub(super) fn token_error(mut self, error: &'static str) -> Self {
        self.0.challenge = Some(Challenge { error: Some(error) });
        self
    }

    pub(super) fn too_many_attempts(code: &'static str, retry_after: Duration) -> Self {
        let seconds = retry_after.as_millis().div_ceil(1000).max(1);
        let detail = "there were too many wrong credentials; these have not been looked at";
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail)
            .hint("wait for the time in `Retry-After`, then show the right ones")
            .with_header(header::RETRY_AFTER, &seconds.to_string())
    }

    pub(super) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "your role does not allow this")
            .hint("use the local socket, or a token, of somebody who may")
    }

    pub(super) fn host_not_allowed() -> Self {
        let detail = "the request's `Host` is not a name of this server";
        Self::new(StatusCode::MISDIRECTED_REQUEST, "host_not_allowed", detail)
            .hint("add the name to `allowed_hosts`, or set `public_url`")
    }

    pub(super) fn origin_not_allowed() -> Self {
        let detail = "the request was made by a page of another site";
        Self::new(StatusCode::FORBIDDEN, "origin_not_allowed", detail)
            .hint("set `public_url` if that page is this server's own, behind a proxy")
    }

    pub(super) fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(super) fn target_too_long(cap: usize) -> Self {
        let detail = format!("the address may have {cap} bytes at most, beginning with its path");
        Self::new(StatusCode::URI_TOO_LONG, "uri_too_long", detail).hint("ask for less at a time")
    }

    pub(super) fn too_many_headers(cap: usize) -> Self {
        let detail = format!("a request may have {cap} header lines at most");
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too_many_headers", detail)
            .hint("send fewer header lines")
    }

    pub(super) fn too_large(cap: u64) -> Self {
        let detail = format!("the body may have {cap} bytes at most");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail).hint("send a smaller body")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Inner { status, problem, headers, internal, challenge } = *self.0;
        let mut response = status.into_response();
        for (name, value) in headers {
            response.headers_mut().append(name, value);
        }
        if let Some(internal) = internal {
            response.extensions_mut().insert(Internal(internal.into()));
        }
        if let Some(challenge) = challenge {
            response.extensions_mut().insert(challenge);
        }
        response.extensions_mut().insert(problem);
        response
    }
}

/// Writes the body of an error answer: in the specification's form below `/v2`, as a problem document elsewhere.
pub(super) fn write_body(response: &mut Response, below_v2: bool, request_id: &str) {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return };
    let status = response.status();
    let Problem { code, detail, hint, mut more } = problem;
    let (kind, body) = if below_v2 {
        more.insert("request_id".to_owned(), request_id.into());
        if let Some(hint) = hint {
            more.insert("hint".to_owned(), hint.into());
        }
        let own = code.to_ascii_uppercase();
        let code = code_of_specification(&own, status);
        if code != own {
            more.insert("code".to_owned(), own.into());
        }
        ("application/json", json!({"errors": [{"code": code, "message": detail, "detail": more}]}))
    } else {
        more.insert("code".to_owned(), code.into());
        more.insert("title".to_owned(), status.canonical_reason().unwrap_or("Error").into());
        more.insert("status".to_owned(), status.as_u16().into());
        more.insert("detail".to_owned(), detail.into());
        more.insert("request_id".to_owned(), request_id.into());
        if let Some(hint) = hint {
            more.insert("hint".to_owned(), hint.into());
        }
        ("application/problem+json", Value::Object(more))
    };
    let body = body.to_string();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    *response.body_mut() = body.into();
}

/// The codes that clients of a registry know: those of the specification, and with `RANGE_INVALID`,
/// `PAGINATION_NUMBER_INVALID` and `UNKNOWN` those that registries gave before it.
const CODES: [&str; 17] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "PAGINATION_NUMBER_INVALID",
    "RANGE_INVALID",
    "SIZE_INVALID",
    "TOOMANYREQUESTS",
    "UNAUTHORIZED",
    "UNKNOWN",
    "UNSUPPORTED",
];

/// The code under which clients of a registry are told; our own one then stands in the detail.
fn code_of_specification(own: &str, status: StatusCode) -> &'static str {
    if let Some(known) = CODES.iter().find(|code| **code == own) {
        return known;
    }
    match status {
        StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
        StatusCode::FORBIDDEN => "DENIED",
        StatusCode::NOT_FOUND => "NAME_UNKNOWN",
        StatusCode::PAYLOAD_TOO_LARGE => "SIZE_INVALID",
        StatusCode::PRECONDITION_FAILED => "MANIFEST_INVALID",
        StatusCode::TOO_MANY_REQUESTS => "TOOMANYREQUESTS",
        status if status.is_server_error() => "UNKNOWN",
        _ => "UNSUPPORTED",
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        use RegistryError as E;
        let error = match error {
            E::State(error) | E::Blobs(BlobError::State(error)) => return error.into(),
            other => other,
        };
        let status = match &error {
            E::NameUnknown { .. } | E::BlobUnknown { .. } | E::UploadUnknown | E::ManifestUnknown { .. } => {
                StatusCode::NOT_FOUND
            }
            E::OutOfOrder { .. } | E::RangeInvalid { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            E::ManifestTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            E::Unauthorized | E::InsufficientScope => StatusCode::UNAUTHORIZED,
            E::Denied { .. } | E::TagImmutable { .. } => StatusCode::FORBIDDEN,
            E::TooManyTags { .. } => StatusCode::URI_TOO_LONG,
            E::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            E::Unsupported { .. } => StatusCode::METHOD_NOT_ALLOWED,
            E::TooManyUploads | E::Tagged => StatusCode::TOO_MANY_REQUESTS,
            E::Interrupted => StatusCode::CONFLICT,
            E::Blobs(error) => return Self::blobs(error),
            _ => StatusCode::BAD_REQUEST,
        };
        let mut own = Self::new(status, error.code(), error.to_string()).maybe_hint(error.hint());
        if let Some(detail) = error.detail() {
            own = own.more("about", detail);
        }
        match &error {
            E::OutOfOrder { at } => own
                .with_header(header::LOCATION, &super::handlers::uploads::location(at))
                .with_header(header::RANGE, &super::handlers::uploads::progress(at.received)),
            E::RangeInvalid { size } => own
                .with_header(header::ACCEPT_RANGES, "bytes")
                .with_header(header::CONTENT_RANGE, &format!("bytes */{size}")),
            E::Unauthorized => own.challenged(),
            E::InsufficientScope => own.token_error("insufficient_scope"),
            E::TooManyUploads | E::Tagged => own.with_header(header::RETRY_AFTER, "2"),
            _ => own,
        }
    }
}

impl From<StoreRefusal> for ApiError {
    fn from(refusal: StoreRefusal) -> Self {
        let status = match refusal.kind {
            RefusalKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            RefusalKind::Forbidden => StatusCode::FORBIDDEN,
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Conflict => StatusCode::CONFLICT,
            RefusalKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            RefusalKind::Unauthorized => StatusCode::UNAUTHORIZED,
            RefusalKind::Busy => StatusCode::TOO_MANY_REQUESTS,
            RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            RefusalKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut own = Self::new(status, refusal.code, refusal.message).maybe_hint(refusal.hint);
        if !refusal.findings.is_empty() {
            own = own.more("findings", json!(refusal.findings));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            own = own.with_header(header::RETRY_AFTER, "60");
        }
        own
    }
}

impl From<InstallRefusal> for ApiError {
    fn from(refusal: InstallRefusal) -> Self {
        let status = match refusal.code.as_str() {
            _ if refusal.conflict.is_some() => StatusCode::CONFLICT,
            "not_installed" | "package_unknown" => StatusCode::NOT_FOUND,
            "forbidden" => StatusCode::FORBIDDEN,
            "command_conflict" | "wrapper_in_the_way" | "change_in_progress" => StatusCode::CONFLICT,
            "disk_full" => StatusCode::INSUFFICIENT_STORAGE,
            // Told as they are: who may install may know which file of the root is in the way.
            "blob_missing" | "digest_mismatch" | "permission_denied" | "install_io" => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            code if code.starts_with("state_") => return Self::internal("internal_error", &refusal),
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let mut own = Self::new(status, refusal.code, refusal.message).maybe_hint(refusal.hint);
        if let Some(change) = refusal.conflict {
            own = own.more("change", change.into());
        }
        own
    }
}

impl From<RepositoryError> for ApiError {
    fn from(error: RepositoryError) -> Self {
        use RepositoryError as E;
        let status = match error {
            E::State(error) => return error.into(),
            E::Unknown(_) | E::TagUnknown { .. } => StatusCode::NOT_FOUND,
            E::Exists(_) | E::Going(_) | E::TooMany | E::NotEmpty { .. } => StatusCode::CONFLICT,
            E::Reserved(_) => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.code(), error.to_string()).maybe_hint(error.hint())
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        if let ChangeError::Unknown(id) = &error {
            return Self::new(StatusCode::NOT_FOUND, "change_unknown", format!("there is no change {id}"))
                .hint("GET /v1/changes lists them");
        }
        Self::internal("internal_error", &error)
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        use AccessError as E;
        let status = match error {
            E::State(error) => return error.into(),
            E::Forbidden { .. } => StatusCode::FORBIDDEN,
            E::UserUnknown { .. } | E::TokenUnknown { .. } | E::GrantUnknown { .. } => StatusCode::NOT_FOUND,
            E::UserExists { .. } | E::UserOfFile { .. } | E::TokenExists { .. } | E::TooMany { .. } => {
                StatusCode::CONFLICT
            }
            E::NameInvalid { .. }
            | E::SubjectInvalid { .. }
            | E::PasswordInvalid { .. }
            | E::TokenInvalid { .. }
            | E::GrantInvalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            _ => return Self::internal(error.code(), &error),
        };
        Self::new(status, error.code(), error.to_string()).maybe_hint(error.hint())
    }
}

impl From<StateError> for ApiError {
    fn from(error: StateError) -> Self {
        let inside = Self::internal(error.code(), &error);
        let mut own = match error.code() {
            "disk_full" => Self::disk_full(),
            // The state opens its file again by itself: whoever asks again soon may be served.
            "state_failed" => {
                let detail = "the state cannot be written at this moment";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "state_failed", detail)
                    .maybe_hint(error.hint())
                    .with_header(header::RETRY_AFTER, "2")
            }
            _ => return inside,
        };
        own.0.internal = inside.0.internal;
        own
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::TooLarge { cap, .. } => Self::too_large(cap),
            BlobError::State(error) => error.into(),
            other => Self::blobs(&other),
        }
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::invalid("name_invalid", error.to_string())
            .hint("GET /v1/packages lists the names of what is published")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> StateError {
        let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
        StateError::Io { step: "write", source: Arc::new(source) }
    }

    #[test]
    fn a_push_is_told_that_the_state_has_no_room_or_is_away_for_a_moment() {
        type Way = fn(StateError) -> ApiError;
        let ways: [Way; 4] = [
            |error| error.into(),
            |error| RegistryError::State(error).into(),
            |error| RegistryError::Blobs(BlobError::State(error)).into(),
            |error| BlobError::State(error).into(),
        ];
        for way in ways {
            for (error, status, code) in [
                (full(), 507, "disk_full"),
                (StateError::Failed, 503, "state_failed"),
                (StateError::Closed, 500, "state_closed"),
            ] {
                let answer = way(error);
                assert_eq!((answer.0.status.as_u16(), answer.code()), (status, code));
                assert!(answer.0.problem.hint.is_some() == (status != 500) && answer.0.internal.is_some());
            }
        }
    }
}
