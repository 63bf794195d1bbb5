//! The registry's part of the server, over real records and bytes in a temporary root.
#![allow(clippy::unwrap_used)]

mod accounts;
mod changing;
mod clients;
mod hostile;
mod lists;
mod push_pull;
mod ranges;
mod referrers;
mod refusals;
mod removals;
mod repositories;
mod retention;
mod uploads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::FromRef;
use axum::routing::{any, get};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::guard::Guard;
use super::handlers::{token, v2};
use super::metrics::Metrics;
use super::observe::Observer;
use super::router::layered;
use crate::access::{Access, AccessParts, Mode};
use crate::blobs::Blobs;
use crate::config::{self, Flags};
use crate::names::{Digest, Faults, ManualClock, Millis, SystemRandom};
use crate::registry::{Registry, RegistryParts};
use crate::state::State;

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST_CAP: u64 = 8 << 20;

#[derive(Clone)]
struct Shared {
    registry: Registry,
    access: Access,
    metrics: Metrics,
}

impl FromRef<Shared> for Registry {
    fn from_ref(shared: &Shared) -> Self {
        shared.registry.clone()
    }
}

impl FromRef<Shared> for Access {
    fn from_ref(shared: &Shared) -> Self {
        shared.access.clone()
    }
}

impl FromRef<Shared> for Metrics {
    fn from_ref(shared: &Shared) -> Self {
        shared.metrics.clone()
    }
}

/// A registry in a temporary root, and the way to ask it.
struct World {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    state: State,
    registry: Registry,
    access: Access,
    router: Router,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of the first error.
    fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/json");
        self.json()["errors"][0]["code"].as_str().unwrap().to_owned()
    }

    fn is(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

impl World {
    async fn new() -> Self {
        Self::with(Mode::None).await
    }

    async fn with(mode: Mode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Millis(1_700_000_000_000)));
        Self::open(folder, clock, mode).await
    }

    async fn open(folder: tempfile::TempDir, clock: Arc<ManualClock>, mode: Mode) -> Self {
        let root = folder.path().to_owned();
        let flags = Flags { root: Some(root.clone()), ..Flags::default() };
        let config = config::load(&flags, &BTreeMap::new()).unwrap().config;
        let state = State::open(&root.join("state.redb"), Faults::none()).unwrap();
        let random = Arc::new(SystemRandom);
        let blobs =
            Blobs::open(&root, state.clone(), clock.clone(), random.clone(), Faults::none()).await.unwrap();
        let registry = Registry::new(RegistryParts {
            state: state.clone(),
            blobs,
            clock: clock.clone(),
            faults: Faults::none(),
            config: config.registry.clone(),
            manifest_cap_bytes: MANIFEST_CAP,
            grace: Duration::from_hours(1),
        });
        fs_err::create_dir_all(root.join("keys")).unwrap();
        let access = Access::open(AccessParts {
            state: state.clone(),
            clock: clock.clone(),
            random: random.clone(),
            keys_dir: root.join("keys"),
            mode,
            htpasswd: None,
            token_key: vec![7; 32],
            token_life: Duration::from_mins(5),
            recorder: Arc::new(|_, _, _| Ok(())),
        })
        .await
        .unwrap();
        let metrics = Metrics::new();
        let shared = Shared { registry: registry.clone(), access: access.clone(), metrics: metrics.clone() };
        let registry_routes = Router::new()
            .route("/v2/", any(v2::base))
            .route("/v2/token", get(token::issue::issue).post(token::exchange::exchange))
            .route("/v2/{*rest}", any(v2::dispatch))
            .route("/panics", any(panics))
            .with_state(shared);
        let router = layered(registry_routes, Guard::new(&config), Observer { metrics, random });
        Self { folder, clock, state, registry, access, router }
    }

    /// Stops and starts again, as a new process would.
    async fn restart(self) -> Self {
        let Self { folder, clock, state, registry, access, router } = self;
        registry.close().await;
        drop((registry, access, router));
        state.close().await.unwrap();
        drop(state);
        Self::open(folder, clock, Mode::None).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost:7721");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = tokio::time::timeout(Duration::from_mins(1), body.collect()).await.unwrap().unwrap();
        Answer { status: head.status, headers: head.headers, body: body.to_bytes() }
    }

    /// What an operator sets for `local`.
    async fn set(&self, settings: Value) {
        let settings = serde_json::from_value(settings).unwrap();
        self.state.write(move |tx| crate::repos::tests::put_settings(tx, "local", &settings)).await.unwrap();
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Body::empty()).await
    }

    async fn head(&self, path: &str) -> Answer {
        self.send(Method::HEAD, path, &[], Body::empty()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], Body::empty()).await
    }

    async fn push_blob(&self, repo: &str, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let path = format!("/v2/{repo}/blobs/uploads/?digest={digest}");
        self.send(Method::POST, &path, &[], content.to_vec()).await.is(201);
        digest
    }

    async fn put_manifest(&self, repo: &str, reference: &str, kind: &str, manifest: &Value) -> Answer {
        let path = format!("/v2/{repo}/manifests/{reference}");
        self.send(Method::PUT, &path, &[("content-type", kind)], manifest.to_string()).await
    }

    /// An image of one configuration and one layer under a tag; its digest.
    async fn push_image(&self, repo: &str, tag: &str, layer: &[u8]) -> Digest {
        self.push_blob(repo, b"{}").await;
        self.push_blob(repo, layer).await;
        let manifest = image(layer);
        self.put_manifest(repo, tag, IMAGE, &manifest).await.is(201);
        Digest::of(manifest.to_string().as_bytes())
    }

    /// Files below `uploads/`.
    fn uploads(&self) -> usize {
        fs_err::read_dir(self.folder.path().join("uploads")).unwrap().count()
    }
}

async fn panics() -> StatusCode {
    let nothing: Vec<u8> = Vec::new();
    StatusCode::from_u16(u16::from(nothing[std::hint::black_box(0)])).unwrap()
}

fn descriptor(kind: &str, content: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": Digest::of(content), "size": content.len()})
}

fn image(layer: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)],
    })
}

/// Bytes that are no others' and don't compress.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    crate::names::Random::fill(&crate::names::SeededRandom::new(u64::from(seed)), &mut bytes);
    bytes
}
