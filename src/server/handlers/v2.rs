//! `/v2/`: hands each path, read from the right, to its handler.

use std::net::IpAddr;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{blobs, catalogue, extensions, manifests, referrers, tags, uploads};
use crate::access::Principal;
use crate::registry::Registry;
use crate::server::caller::{Caller, address};
use crate::server::errors::{ApiError, ApiResult};
use crate::server::metrics::Metrics;
use crate::server::observe::RouteLabel;
use crate::server::pairs::Pairs;
use crate::server::v2_path::Target;

pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(in crate::server) const API_VERSION: HeaderName =
    HeaderName::from_static("docker-distribution-api-version");

/// A request to the registry: who, with which headers and query.
pub(in crate::server) struct V2 {
    pub(super) registry: Registry,
    pub(super) metrics: Metrics,
    pub(super) who: Principal,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    /// Of the other end, where there is one.
    pub(super) address: Option<IpAddr>,
    query: Pairs,
}

impl V2 {
    /// The first parameter of this name.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.query.one(name)
    }

    /// All parameters of this name.
    pub(super) fn params(&self, name: &str) -> Vec<String> {
        self.query.all(name).map(str::to_owned).collect()
    }

    /// A header that is there once, as text.
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    }

    /// All values of a header as one list; absent when there is none.
    pub(super) fn list(&self, name: HeaderName) -> Option<String> {
        let values: Vec<&str> =
            self.headers.get_all(&name).iter().map(|value| value.to_str().unwrap_or_default()).collect();
        self.headers.contains_key(name).then(|| values.join(","))
    }

    pub(super) fn content_length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH)?.parse().ok()
    }

    /// Tells whether the client has this version of the content already.
    pub(super) fn has(&self, etag: &str) -> bool {
        self.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(
            |list| {
                list.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == etag)
            },
        )
    }
}

/// `/v2/` itself: clients look here whether this is a registry, and whether their credentials are good.
pub(in crate::server) async fn base(caller: Caller, method: Method) -> Response {
    let answer = match method {
        Method::GET | Method::HEAD => caller
            .require_credentials()
            .map(|()| ([(header::CONTENT_TYPE, "application/json")], "{}").into_response()),
        _ => Err(method_not_allowed(Target::Base)),
    };
    finished(answer.unwrap_or_else(ApiError::into_response), Target::Base)
}

fn method_not_allowed(target: Target<'_>) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this path does not answer this method")
        .hint("the answer's `Allow` lists the methods")
        .with_header(header::ALLOW, target.methods())
}

/// Everything below `/v2/`.
pub(in crate::server) async fn dispatch(
    caller: Caller,
    State(registry): State<Registry>,
    State(metrics): State<Metrics>,
    path: Result<Path<String>, PathRejection>,
    query: ApiResult<Pairs>,
    request: Request,
) -> Response {
    let refused = |error: ApiError| versioned(error.into_response());
    let Ok(Path(rest)) = path else {
        return refused(ApiError::invalid("NAME_INVALID", "the path is not UTF-8"));
    };
    let query = match query {
        Ok(query) => query,
        Err(error) => return refused(error),
    };
    let Some(target) = Target::parse(&rest) else { return refused(ApiError::no_route()) };
    let (head, body) = request.into_parts();
    let address = address(&head.extensions);
    let v2 =
        V2 { registry, metrics, who: caller.0, method: head.method, headers: head.headers, address, query };
    let answer = match (v2.method.clone(), target) {
        (Method::GET | Method::HEAD, Target::Catalogue) => catalogue::list::list(&v2).await,
        (Method::GET | Method::HEAD, Target::Extensions { name }) => extensions::discover(&v2, name),
        (Method::GET | Method::HEAD, Target::Tags { name }) => tags::list::list(&v2, name).await,
        (Method::GET | Method::HEAD, Target::Referrers { name, digest }) => {
            referrers::list::list(&v2, name, digest).await
        }
        (Method::GET | Method::HEAD, Target::Manifest { name, reference }) => {
            manifests::get::get(&v2, name, reference).await
        }
        (Method::PUT, Target::Manifest { name, reference }) => {
            manifests::put::put(&v2, name, reference, body).await
        }
        (Method::DELETE, Target::Manifest { name, reference }) => {
            manifests::delete::delete(&v2, name, reference).await
        }
        (Method::GET | Method::HEAD, Target::Blob { name, digest }) => {
            blobs::get::get(&v2, name, digest).await
        }
        (Method::DELETE, Target::Blob { name, digest }) => blobs::delete::delete(&v2, name, digest).await,
        (Method::POST, Target::Uploads { name }) => uploads::begin::begin(&v2, name, body).await,
        (Method::PATCH, Target::Upload { name, id }) => uploads::append::append(&v2, name, id, body).await,
        (Method::PUT, Target::Upload { name, id }) => uploads::close::close(&v2, name, id, body).await,
        (Method::GET, Target::Upload { name, id }) => uploads::status::status(&v2, name, id).await,
        (Method::DELETE, Target::Upload { name, id }) => uploads::cancel::cancel(&v2, name, id).await,
        _ => Err(method_not_allowed(target)),
    };
    finished(answer.unwrap_or_else(ApiError::into_response), target)
}

/// What every answer of the registry carries.
fn finished(response: Response, target: Target<'_>) -> Response {
    let mut response = versioned(response);
    response.extensions_mut().insert(RouteLabel(target.label()));
    response
}

/// Old clients take only what says so for a registry.
fn versioned(mut response: Response) -> Response {
    response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

/// Says in the answer, for people, that it was limited.
pub(super) fn warn_limited(response: &mut Response, why: &str) {
    set(response, header::WARNING, &format!("299 - \"{why}\""));
}

/// Sets a header whose value is made of checked names.
pub(super) fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().append(name, value);
    }
}

/// The value as part of a query.
pub(super) fn in_query(value: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("invariant: writing to a String succeeds");
        }
    }
    text
}
