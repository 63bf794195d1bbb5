//! What is read from other parts at the moment when it is asked for.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::access::LoginCounts;
use crate::repos::Totals;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    kind: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRepository {
    repository: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct What {
    what: &'static str,
}

/// The figures of one repository.
pub(in crate::server) struct RepositoryFigures {
    pub(in crate::server) name: String,
    pub(in crate::server) totals: Totals,
    pub(in crate::server) pulls: u64,
    pub(in crate::server) pushes: u64,
}

/// The figures of other parts.
#[derive(Default)]
pub(in crate::server) struct Measured {
    pub(in crate::server) state_commits: Counter,
    pub(in crate::server) state_closures: Counter,
    pub(in crate::server) state_commit_seconds: Counter<f64, AtomicU64>,
    pub(in crate::server) state_commit_max_seconds: Gauge<f64, AtomicU64>,
    pub(in crate::server) oldest_waiting_seconds: Gauge<f64, AtomicU64>,
    pub(in crate::server) blobs: Gauge,
    pub(in crate::server) blobs_bytes: Gauge,
    pub(in crate::server) uploads_open: Gauge,
    pub(in crate::server) connections_open: Gauge,
    pub(in crate::server) connections_accepted: Counter,
    pub(in crate::server) connections_refused: Counter,
    pub(in crate::server) collections: Counter,
    pub(in crate::server) collected_blobs: Counter,
    pub(in crate::server) collected_bytes: Counter,
    changes_ended: Family<Ended, Counter>,
    retired: Family<What, Counter>,
    logins: Family<Outcome, Counter>,
    repositories: Repositories,
    /// The repositories that are told, so that one that was removed is told no longer.
    told: Mutex<BTreeSet<String>>,
}

#[derive(Default)]
struct Repositories {
    pulls: Family<OfRepository, Counter>,
    pushes: Family<OfRepository, Counter>,
    images: Family<OfRepository, Gauge>,
    manifests: Family<OfRepository, Gauge>,
    tags: Family<OfRepository, Gauge>,
    blobs: Family<OfRepository, Gauge>,
    bytes: Family<OfRepository, Gauge>,
}

impl Repositories {
    fn gauges(&self) -> [(&Family<OfRepository, Gauge>, &'static str, &'static str); 5] {
        [
            (&self.images, "repository_images", "Names below a repository that hold something"),
            (&self.manifests, "repository_manifests", "Manifests in a repository"),
            (&self.tags, "repository_tags", "Tags in a repository"),
            (
                &self.blobs,
                "repository_blobs",
                "Blobs in a repository, those that several images hold as often",
            ),
            (
                &self.bytes,
                "repository_bytes",
                "Bytes of these manifests and blobs; on disk shared ones lie once",
            ),
        ]
    }

    fn counters(&self) -> [(&Family<OfRepository, Counter>, &'static str, &'static str); 2] {
        [
            (&self.pulls, "repository_pulls", "Manifests that clients asked for and that were there"),
            (&self.pushes, "repository_pushes", "Manifests that clients put"),
        ]
    }
}

impl Measured {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let own = Self::default();
        for (counter, name, help) in [
            (&own.state_commits, "state_commits", "Durable commits of the state"),
            (&own.state_closures, "state_closures", "Writes that the commits carried"),
            (&own.connections_accepted, "connections", "Connections that were accepted"),
            (&own.collections, "collections", "Collections since the start"),
            (&own.collected_blobs, "collected_blobs", "Blobs and left-over files that collection removed"),
            (&own.collected_bytes, "collected_bytes", "Bytes that collection removed"),
            (
                &own.connections_refused,
                "connections_refused",
                "Connections that were turned away, as their address had its share of the places",
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "state_commit_seconds",
            "Time spent in commits of the state",
            own.state_commit_seconds.clone(),
        );
        for (gauge, name, help) in [
            (
                &own.state_commit_max_seconds,
                "state_commit_max_seconds",
                "The longest commit of the state since the start",
            ),
            (
                &own.oldest_waiting_seconds,
                "changes_oldest_waiting_seconds",
                "How long the oldest change that is due has waited",
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register("blobs", "Blobs that are stored, each content once", own.blobs.clone());
        registry.register("blobs_bytes", "Bytes of these blobs", own.blobs_bytes.clone());
        registry.register("uploads_open", "Uploads that are open and in memory", own.uploads_open.clone());
        registry.register("connections_open", "Connections that are open", own.connections_open.clone());
        registry.register(
            "changes_ended",
            "Changes that ended, by kind and result",
            own.changes_ended.clone(),
        );
        registry.register(
            "logins",
            "Requests with credentials: accepted, refused (they are not valid), limited (too many attempts)",
            own.logins.clone(),
        );
        registry.register("retention_removed", "What retention rules removed", own.retired.clone());
        for (family, name, help) in own.repositories.counters() {
            registry.register(name, help, family.clone());
        }
        for (family, name, help) in own.repositories.gauges() {
            registry.register(name, help, family.clone());
        }
        own
    }

    pub(in crate::server) fn change_ended(&self, kind: &str, result: &'static str, count: u64) {
        let label = Ended { kind: kind.to_owned(), result };
        self.changes_ended.get_or_create(&label).inner().store(count, Ordering::Relaxed);
    }

    pub(in crate::server) fn logins(&self, counts: LoginCounts) {
        let LoginCounts { accepted, wrong, stale, limited, .. } = counts;
        for (outcome, count) in [("accepted", accepted), ("refused", wrong + stale), ("limited", limited)] {
            self.logins.get_or_create(&Outcome { outcome }).inner().store(count, Ordering::Relaxed);
        }
    }

    pub(in crate::server) fn retired(&self, tags: u64, manifests: u64) {
        for (what, count) in [("tags", tags), ("manifests", manifests)] {
            self.retired.get_or_create(&What { what }).inner().store(count, Ordering::Relaxed);
        }
    }

    pub(in crate::server) fn repository(&self, figures: &RepositoryFigures) {
        let label = OfRepository { repository: figures.name.clone() };
        let totals = figures.totals;
        let gauged = [totals.images, totals.manifests, totals.tags, totals.blobs, totals.bytes];
        for ((family, ..), value) in self.repositories.gauges().into_iter().zip(gauged) {
            family.get_or_create(&label).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        let counted = [figures.pulls, figures.pushes];
        for ((family, ..), value) in self.repositories.counters().into_iter().zip(counted) {
            family.get_or_create(&label).inner().store(value, Ordering::Relaxed);
        }
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(figures.name.clone());
    }

    /// Tells no longer what is not there any more.
    pub(in crate::server) fn forget_repositories(&self, known: impl Fn(&str) -> bool) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).retain(|name| {
            let keep = known(name);
            if !keep {
                let label = OfRepository { repository: name.clone() };
                for (family, ..) in self.repositories.gauges() {
                    family.remove(&label);
                }
                for (family, ..) in self.repositories.counters() {
                    family.remove(&label);
                }
            }
            keep
        });
    }
}
