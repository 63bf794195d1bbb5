//! `GET /metrics`

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header;

use crate::access::Action;
use crate::blobs;
use crate::server::app::App;
use crate::server::caller::Caller;
use crate::server::errors::{ApiError, ApiResult};
use crate::server::metrics::RepositoryFigures;

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
    let figures = app.parts.upkeep.figures();
    measured.collections.inner().store(figures.collections, Ordering::Relaxed);
    measured.collected_blobs.inner().store(figures.collected_blobs, Ordering::Relaxed);
    measured.collected_bytes.inner().store(figures.collected_bytes, Ordering::Relaxed);
    let oldest = app.parts.changes.oldest_waiting().await?;
    let waited = oldest.map_or(0.0, |since| app.parts.clock.now().since(since).as_secs_f64());
    measured.oldest_waiting_seconds.set(waited);
    for (kind, result, count) in app.parts.changes.ends() {
        measured.change_ended(&kind, result, count);
    }
    let stored = app.parts.state.read(|view| blobs::totals(view)).await?;
    measured.blobs.set(i64::try_from(stored.blobs).unwrap_or(i64::MAX));
    measured.blobs_bytes.set(i64::try_from(stored.bytes).unwrap_or(i64::MAX));
    let registry = &app.parts.registry;
    measured.uploads_open.set(i64::try_from(registry.open_uploads()).unwrap_or(i64::MAX));
    let (tags, manifests) = registry.retired();
    measured.retired(tags, manifests);
    measured.logins(app.parts.access.login_counts());
    let (open, accepted, refused) = app.metrics.connections();
    measured.connections_open.set(i64::try_from(open).unwrap_or(i64::MAX));
    measured.connections_accepted.inner().store(accepted, Ordering::Relaxed);
    measured.connections_refused.inner().store(refused, Ordering::Relaxed);
    let traffic = registry.names().traffic();
    // One read of a row and its counters each; there are 1,000 at most.
    for repository in registry.repositories(None, traffic.len()).await? {
        let used = traffic.iter().find(|(name, ..)| *name == repository.name);
        let (pulls, pushes) = used.map_or((0, 0), |(_, pulls, pushes)| (*pulls, *pushes));
        measured.repository(&RepositoryFigures {
            name: repository.name,
            totals: repository.totals,
            pulls,
            pushes,
        });
    }
    measured.forget_repositories(|name| traffic.iter().any(|(known, ..)| known == name));
    let text = app.metrics.text().map_err(|error| ApiError::internal("metrics_failed", &error))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

fn seconds(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}
