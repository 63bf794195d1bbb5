//! The logic of the OCI distribution API over the repositories: uploads, blobs, manifests, tags, referrers, deletion.
//!
//! Knows no HTTP: callers hand in texts as they came and streams of bytes, and get records, readers and
//! [`RegistryError`]s with the codes of the specification. `server` turns these into answers.
//!
//! This part must never hold a body in memory whose size the client chooses (manifests have a cap), and never name
//! bytes in a record before they are durable.
//!
//! Invariants:
//! - Every call takes the [`Principal`](crate::access::Principal) who asks, and checks its rights before it looks
//!   whether anything exists.
//! - Clients write only to repositories that [`repos::writable`](crate::repos::writable) gives them.
//! - An answer that says "created" comes after the commit of the record.
//! - An upload is used by one request at a time; one for which nothing comes leaves it to the next. A request that ends early leaves it at a whole piece (a writer takes
//!   a piece before it first waits); one whose bytes failed to be written is never continued.
//!
//! *Source*: OCI distribution specification.

mod blobs;
mod conditions;
mod deletion;
mod error;
mod listing;
mod manifests;
mod naming;
mod pulls;
mod range;
mod referrers;
mod removal;
mod repositories;
mod retention;
mod sessions;
mod uploads;

#[cfg(test)]
mod durability;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;

pub use blobs::BlobFound;
pub use conditions::Conditions;
#[cfg(any(test, feature = "fault-points"))]
#[doc(hidden)]
pub use conditions::conditions_hold;
pub use error::RegistryError;
pub use listing::Page;
pub use manifests::{ManifestPut, PutManifest};
pub use range::{ByteRange, ContentRange, parse_byte_range, parse_content_range};
pub use referrers::ReferrersPage;
pub use repositories::{RemovedRepository, RepositoryError, TagView};
pub use retention::{RetentionEntry, RetentionSummary};
pub use uploads::{BeginUpload, Begun, BlobCreated, Chunk, Upload};

use crate::blobs::Blobs;
use crate::config::RegistryConfig;
use crate::names::{Clock, Faults};
use crate::repos::Repositories;
use crate::state::State;
use deletion::Taggings;
use pulls::Pulls;
use sessions::Sessions;

/// A blob that is asked for again and again has its time written down so often within its grace.
const RENEWALS_PER_GRACE: u32 = 8;

/// A body as it comes in, piece by piece.
pub type Body = BoxStream<'static, std::io::Result<Bytes>>;

/// What a registry stands on.
pub struct RegistryParts {
    /// Where the records are.
    pub state: State,
    /// Where the bytes are.
    pub blobs: Blobs,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where crash tests stop.
    pub faults: Faults,
    /// What the operator configured.
    pub config: RegistryConfig,
    /// Manifests may have this many bytes at most.
    pub manifest_cap_bytes: u64,
    /// How long repositories hold a blob that no manifest keeps, which decides how often being asked for is written.
    pub grace: Duration,
}

/// The registry; clones share one.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    state: State,
    blobs: Blobs,
    clock: Arc<dyn Clock>,
    faults: Faults,
    config: RegistryConfig,
    manifest_cap_bytes: u64,
    renew_ahead: Duration,
    sessions: Sessions,
    repositories: Repositories,
    pulls: Arc<Pulls>,
    taggings: Arc<Taggings>,
    retired_tags: AtomicU64,
    retired_manifests: AtomicU64,
}

impl Registry {
    /// A registry over these parts.
    #[must_use]
    pub fn new(parts: RegistryParts) -> Self {
        let RegistryParts { state, blobs, clock, faults, config, manifest_cap_bytes, grace } = parts;
        let sessions = Sessions::new(state.clone(), blobs.clone(), clock.clone());
        let repositories = Repositories::new(state.clone());
        let pulls = Arc::default();
        Self(Arc::new(Inner {
            state,
            blobs,
            clock,
            faults,
            config,
            manifest_cap_bytes,
            renew_ahead: grace / RENEWALS_PER_GRACE,
            sessions,
            repositories,
            pulls,
            taggings: Arc::default(),
            retired_tags: AtomicU64::new(0),
            retired_manifests: AtomicU64::new(0),
        }))
    }

    /// Manifests may have this many bytes at most.
    #[must_use]
    pub fn manifest_cap_bytes(&self) -> u64 {
        self.0.manifest_cap_bytes
    }

    /// How many uploads are open and in memory; those that were put aside are not counted.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        self.0.sessions.count()
    }

    /// What retention has removed since the start: tags and manifests.
    #[must_use]
    pub fn retired(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.0.retired_tags), count(&self.0.retired_manifests))
    }

    /// Puts aside uploads that nobody has used for a while, and removes those that nobody came back to; to be called
    /// every few seconds.
    pub async fn tend(&self) {
        self.0.sessions.tend().await;
        self.0.pulls.flush(&self.0.state, self.0.clock.now(), pulls::Flush::WhenDue).await;
    }

    /// Puts every upload aside, so that another process can continue it.
    pub async fn close(&self) {
        self.0.sessions.suspend_all().await;
        self.0.pulls.flush(&self.0.state, self.0.clock.now(), pulls::Flush::Now).await;
    }
}
