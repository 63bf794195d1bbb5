//! `GET /metrics`

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;

use crate::access::Action;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};

/// The figures of this server in the text form of `OpenMetrics`.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "showMetrics",
    tag = "operations",
    responses((status = 200, description = "The figures", content_type = "application/openmetrics-text", body = String))
)]
pub(in crate::server) async fn show(State(app): State<App>, caller: Caller) -> ApiResult<Response> {
    caller.require(Action::ReadStatus)?;
    let measured = app.metrics.measured();
    let stats = app.parts.state.stats();
    // Counted by the state itself; what it tells only grows.
    measured.state_commits.inner().store(stats.commits, Ordering::Relaxed);
    measured.state_closures.inner().store(stats.closures, Ordering::Relaxed);
    let spent = seconds(stats.commit_micros_total);
    measured.state_commit_seconds.inner().store(spent.to_bits(), Ordering::Relaxed);
    measured.state_commit_max_seconds.set(seconds(stats.commit_micros_max));
    let oldest = app.parts.changes.oldest_waiting().await?;
    let waited = oldest.map_or(0.0, |since| app.parts.clock.now().since(since).as_secs_f64());
    measured.oldest_waiting_seconds.set(waited);
    let text = app.metrics.text().map_err(|error| ApiError::internal("metrics_failed", &error))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

fn seconds(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}
