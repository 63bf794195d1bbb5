//! Parameters of the JSON API, with refusals in our form.

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::body::collect_or_refuse;
use super::errors::{ApiError, ApiResult};

/// The query as `T`; a parameter that is not as it must be is refused, an unknown one too.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let read = Query::<T>::from_request_parts(parts, state).await;
        read.map(|Query(params)| Self(params))
            .map_err(|error: QueryRejection| query_invalid(error.body_text()))
    }
}

fn query_invalid(detail: impl Into<String>) -> ApiError {
    ApiError::invalid("query_invalid", detail).hint("GET /v1/openapi.json lists the parameters of each path")
}

/// The one parameter of the path; bytes that are no text are refused.
pub(super) struct Segment(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let read = Path::<String>::from_request_parts(parts, state).await;
        read.map(|Path(segment)| Self(segment)).map_err(|error: PathRejection| {
            ApiError::invalid("path_invalid", error.body_text())
                .hint("a path is UTF-8, with `%` and two digits for what URLs do not take")
        })
    }
}

/// A request has no more bytes than this.
pub(super) const BODY_CAP: u64 = 64 * 1024;

/// The JSON of a request; a member that is not as it must be is refused, an unknown one too where `T` says so.
pub(super) async fn sent<T: DeserializeOwned>(body: Body) -> ApiResult<T> {
    let bytes = collect_or_refuse(body, BODY_CAP).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        ApiError::invalid("body_invalid", error.to_string())
            .hint("GET /v1/openapi.json describes the body of each request")
    })
}

/// Which part of a list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// How many entries at most (1 to 200).
    pub(super) limit: Option<usize>,
    /// The entry after which to begin.
    pub(super) after: Option<String>,
}

/// A list is cut here when nothing else is asked for.
const LIMIT: usize = 50;
/// A list has no more entries than this.
const LIMIT_MAX: usize = 200;

/// How many entries a request is answered.
pub(super) fn limit(asked: Option<usize>) -> ApiResult<usize> {
    match asked {
        None => Ok(LIMIT),
        Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Some(_) => Err(query_invalid(format!("`limit` must be 1 to {LIMIT_MAX}"))),
    }
}

/// A part of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Page<T> {
    /// The entries.
    items: Vec<T>,
    /// What to give as `after` for the entries behind these; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl<T> Page<T> {
    /// The entries found under `limit`; `key` names an entry as `after` does.
    pub(super) fn new(items: Vec<T>, limit: usize, key: impl Fn(&T) -> String) -> Self {
        let next = if items.len() < limit { None } else { items.last().map(key) };
        Self { items, next }
    }

    /// The part that is asked for of entries in the order of their keys.
    pub(super) fn of_sorted(
        items: Vec<T>,
        params: &ListParams,
        key: impl Fn(&T) -> String,
    ) -> ApiResult<Self> {
        let limit = limit(params.limit)?;
        let behind = |item: &T| params.after.as_ref().is_none_or(|after| key(item) > *after);
        Ok(Self::new(items.into_iter().filter(behind).take(limit).collect(), limit, key))
    }

    /// A list that is never cut.
    pub(super) fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http::Request;
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn a_path_that_is_no_text_is_refused_in_our_form() {
        let routes = axum::Router::new()
            .route("/v1/{name}", axum::routing::get(async |Segment(name): Segment| name))
            .layer(axum::middleware::map_response(async |mut response: axum::response::Response| {
                super::super::errors::write_body(&mut response, false, "id");
                response
            }));
        let ask = async |path: &str| {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            let answer = routes.clone().oneshot(request).await.unwrap();
            let status = answer.status().as_u16();
            let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(ask("/v1/a%20b").await, (200, "a b".to_owned()));
        let (status, body) = ask("/v1/%ff").await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, body["code"].as_str()), (400, Some("path_invalid")));
        assert!(body["hint"].is_string());
    }
}
