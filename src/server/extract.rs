//! Parameters of the JSON API, with refusals in our form.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::errors::{ApiError, ApiResult};

/// The query as `T`; a parameter that is not as it must be is refused, an unknown one too.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let read = Query::<T>::from_request_parts(parts, state).await;
        read.map(|Query(params)| Self(params))
            .map_err(|error: QueryRejection| ApiError::invalid("query_invalid", error.body_text()))
    }
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
        Some(_) => Err(ApiError::invalid("query_invalid", format!("`limit` must be 1 to {LIMIT_MAX}"))),
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

    /// A list that is never cut.
    pub(super) fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}
