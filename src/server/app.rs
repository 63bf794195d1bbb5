//! What the server is given, and what its handlers share.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::upkeep::Upkeep;
use crate::access::Access;
use crate::blobs::Blobs;
use crate::changes::Changes;
use crate::config::Config;
use crate::install::Installer;
use crate::keys::Tls;
use crate::names::{Clock, Millis, Random};
use crate::registry::Registry;
use crate::state::State;
use crate::store::Store;

/// Makes a sandbox and tells its receipt, or why none can be made; the server asks once a minute at most.
pub type SandboxProbe = Arc<dyn Fn() -> BoxFuture<'static, Result<serde_json::Value, String>> + Send + Sync>;

/// What a server stands on.
pub struct ServerParts {
    /// Where the records are.
    pub state: State,
    /// Where the bytes are.
    pub blobs: Blobs,
    /// The logic behind `/v2`.
    pub registry: Registry,
    /// Submissions and the catalogue of packages.
    pub store: Store,
    /// What is installed here.
    pub installer: Installer,
    /// Long work.
    pub changes: Changes,
    /// TLS of the port; without it the port speaks plain HTTP.
    pub tls: Option<Tls>,
    /// Long work on what is stored.
    pub upkeep: Arc<dyn Upkeep>,
    /// Who may do what.
    pub access: Access,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where request ids come from.
    pub random: Arc<dyn Random>,
    /// Asked by `/health` and `/v1/status`.
    pub sandbox_probe: SandboxProbe,
    /// What the server stands on: where the bundle comes from, and its digest.
    pub posture: serde_json::Value,
}

/// What handlers share.
#[derive(Clone)]
pub(super) struct App(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) parts: ServerParts,
    pub(super) metrics: Metrics,
    pub(super) health: Cached<serde_json::Value>,
    /// Ends what would keep a connection open for long.
    pub(super) closing: CancellationToken,
}

impl App {
    pub(super) fn new(
        config: Config,
        parts: ServerParts,
        metrics: Metrics,
        closing: CancellationToken,
    ) -> Self {
        Self(Arc::new(Shared {
            config,
            parts,
            metrics,
            health: Cached::new(Duration::from_secs(1)),
            closing,
        }))
    }

    /// The receipt of a sandbox made lately.
    pub(super) async fn sandbox(&self) -> Result<serde_json::Value, String> {
        (self.0.parts.sandbox_probe)().await
    }
}

impl std::ops::Deref for App {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl FromRef<App> for Registry {
    fn from_ref(app: &App) -> Self {
        app.parts.registry.clone()
    }
}

impl FromRef<App> for Access {
    fn from_ref(app: &App) -> Self {
        app.parts.access.clone()
    }
}

impl FromRef<App> for Metrics {
    fn from_ref(app: &App) -> Self {
        app.metrics.clone()
    }
}

/// A value that is costly to get; asked for once by however many want it, and kept for a while.
pub(super) struct Cached<T> {
    lifetime: Duration,
    value: Mutex<Option<(Millis, T)>>,
}

impl<T: Clone> Cached<T> {
    fn new(lifetime: Duration) -> Self {
        Self { lifetime, value: Mutex::new(None) }
    }

    pub(super) async fn get<F: Future<Output = T>>(&self, now: Millis, make: impl FnOnce() -> F) -> T {
        let mut kept = self.value.lock().await;
        if let Some((at, value)) = &*kept
            && now.since(*at) < self.lifetime
        {
            return value.clone();
        }
        let value = make().await;
        *kept = Some((now, value.clone()));
        value
    }
}
