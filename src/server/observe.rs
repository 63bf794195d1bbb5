//! Around each request: an id, a log line, figures, and an answer also when a handler panics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue};

use super::connection::Connection;
use super::errors::{ApiError, Internal, write_body};
use super::metrics::Metrics;
use crate::names::Random;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request was for, where the route alone doesn't tell; handlers put it into the answer's extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct RouteLabel(pub(super) &'static str);

/// What the layer needs.
#[derive(Clone)]
pub(super) struct Observer {
    pub(super) metrics: Metrics,
    pub(super) random: Arc<dyn Random>,
}

impl Observer {
    /// 16 hexadecimal characters of our own: one that a client sends could be made to look like another's.
    fn request_id(&self) -> String {
        let mut bytes = [0_u8; 8];
        self.random.fill(&mut bytes);
        format!("{:016x}", u64::from_be_bytes(bytes))
    }
}

/// The layer.
pub(super) async fn observe(State(observer): State<Observer>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = observer.request_id();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let connection = request.extensions().get::<Connection>().copied();
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answer.unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        ApiError::panicked(message).into_response()
    });
    write_body(&mut response, path == "/v2" || path.starts_with("/v2/"), &id);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let label = response.extensions().get::<RouteLabel>().map(|label| label.0);
    let route = label.or(route.as_ref().map(MatchedPath::as_str)).unwrap_or("unmatched");
    let took = started.elapsed();
    let status = response.status().as_u16();
    observer.metrics.answered(route, &method, status, took);
    let from = match connection {
        Some(Connection::Tcp { remote, .. }) => remote.to_string(),
        Some(Connection::Local { uid, .. }) => format!("uid:{uid}"),
        None => String::new(),
    };
    if let Some(Internal(internal)) = response.extensions().get::<Internal>() {
        tracing::error!(request.id = %id, http.path = %path, error = %internal, "a request failed inside");
    }
    tracing::info!(
        request.id = %id,
        http.method = %method,
        http.path = %path,
        http.route = route,
        http.status = status,
        duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        client = %from,
        "request"
    );
    response
}
