//! What this server counts, and what it reads from other parts when it is asked. `docs/operations/metrics.md` lists
//! all of it; a test compares.

mod measured;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::crowd::Crowd;
pub(super) use measured::{Measured, RepositoryFigures};

/// Upper bounds in seconds: from a cached manifest to a slow download.
const LATENCY_SECONDS: [f64; 11] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    method: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

/// The figures of a server; clones share them.
#[derive(Clone)]
pub(super) struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    requests: Family<Answered, Counter>,
    latency: Family<Route, Histogram, fn() -> Histogram>,
    blob_bytes: Family<Direction, Counter>,
    crowd: OnceLock<Crowd>,
    measured: Measured,
}

fn latency() -> Histogram {
    Histogram::new(LATENCY_SECONDS)
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("pantry");
        let requests = Family::default();
        registry.register(
            "http_requests",
            "Requests answered, by route, method and status",
            requests.clone(),
        );
        let latency = Family::new_with_constructor(latency as fn() -> Histogram);
        registry.register(
            "http_request_seconds",
            "Time until the head of an answer, by route",
            latency.clone(),
        );
        let blob_bytes = Family::default();
        registry.register(
            "blob_bytes",
            "Bytes of blobs that clients sent (in) and got (out)",
            blob_bytes.clone(),
        );
        let measured = Measured::register(&mut registry);
        Self(Arc::new(Inner { registry, requests, latency, blob_bytes, crowd: OnceLock::new(), measured }))
    }

    pub(super) fn answered(&self, route: &str, method: &http::Method, code: u16, took: Duration) {
        // An extension method is the client's to invent; it must not make a series.
        let known =
            matches!(method.as_str(), "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS");
        let method = if known { method.as_str() } else { "other" };
        let answered = Answered { route: route.to_owned(), method: method.to_owned(), code };
        self.0.requests.get_or_create(&answered).inc();
        self.0.latency.get_or_create(&Route { route: route.to_owned() }).observe(took.as_secs_f64());
    }

    pub(super) fn bytes_in(&self, bytes: usize) {
        self.0.blob_bytes.get_or_create(&Direction { direction: "in" }).inc_by(bytes as u64);
    }

    pub(super) fn bytes_out(&self, bytes: usize) {
        self.0.blob_bytes.get_or_create(&Direction { direction: "out" }).inc_by(bytes as u64);
    }

    /// Whose connections are told; the first call counts.
    pub(super) fn attend(&self, crowd: Crowd) {
        let _first = self.0.crowd.set(crowd);
    }

    /// Connections that are open, that were accepted and that were turned away.
    pub(super) fn connections(&self) -> (u64, u64, u64) {
        self.0.crowd.get().map(Crowd::figures).unwrap_or_default()
    }

    pub(super) fn measured(&self) -> &Measured {
        &self.0.measured
    }

    /// Everything in the text form of `OpenMetrics`.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}
