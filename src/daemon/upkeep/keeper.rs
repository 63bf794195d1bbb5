//! Begins runs, by the schedule or because somebody asks, and shows what came of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::order::{Account, Order};
use super::report;
use super::task::{Asked, Upkeep};
use super::work::{self, COLLECTION, KINDS};
use crate::blobs::Blobs;
use crate::changes::{self, ChangeError, Changes, Conflict, NewChange, TaskFailure, TaskSet};
use crate::names::{ChangeId, Clock, Millis, Random};
use crate::registry::Registry;
use crate::server::{UpkeepFigures, UpkeepReport, UpkeepWork};
use crate::state::{State, StateError};

/// Changes of the schedule that are kept.
const MADE_KEPT: usize = 10;
/// How long the schedule waits after something went wrong.
const PAUSE: Duration = Duration::from_mins(1);

/// What upkeep works with.
#[derive(Clone)]
pub(in crate::daemon) struct KeeperParts {
    pub(in crate::daemon) state: State,
    pub(in crate::daemon) blobs: Blobs,
    pub(in crate::daemon) changes: Changes,
    pub(in crate::daemon) clock: Arc<dyn Clock>,
    pub(in crate::daemon) random: Arc<dyn Random>,
    /// The grace where a request names none.
    pub(in crate::daemon) grace: Duration,
    /// The time between two collections; none means never by itself.
    pub(in crate::daemon) every: Option<Duration>,
    /// What applies the retention rules.
    pub(in crate::daemon) registry: Registry,
}

/// The keeper of what is stored; cheap to clone.
#[derive(Clone)]
pub(in crate::daemon) struct Keeper(Arc<Inner>);

struct Inner {
    parts: KeeperParts,
    /// When the schedule last looked and found nothing to do.
    idle_at: Mutex<Option<Millis>>,
    figures: Arc<Figures>,
}

/// What was collected since the start.
#[derive(Default)]
pub(super) struct Figures {
    runs: AtomicU64,
    blobs: AtomicU64,
    bytes: AtomicU64,
}

impl Figures {
    pub(super) fn add(&self, account: &Account) {
        let count = |name: &str| account.counts.get(name).copied().unwrap_or_default();
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.blobs.fetch_add(count("blobs") + count("files"), Ordering::Relaxed);
        self.bytes.fetch_add(count("blob_bytes") + count("file_bytes"), Ordering::Relaxed);
    }
}

impl Keeper {
    pub(in crate::daemon) fn new(parts: KeeperParts) -> Self {
        Self(Arc::new(Inner { parts, idle_at: Mutex::default(), figures: Arc::default() }))
    }

    /// Adds the kinds of change, each with a place of its own.
    pub(in crate::daemon) fn register(&self, set: &mut TaskSet) {
        let parts = &self.0.parts;
        for kind in KINDS {
            set.limit(kind.change, 1);
            let (passes, state) = ((kind.passes)(parts), parts.state.clone());
            let figures = Arc::clone(&self.0.figures);
            set.add(Arc::new(Upkeep { kind, passes, state, figures }));
        }
    }

    /// Collects by the schedule until `stop`.
    ///
    /// The time counts from the last run that was complete, and that is persisted: a process that never lives for a
    /// whole interval collects nevertheless.
    pub(in crate::daemon) async fn tend(self, stop: CancellationToken) {
        let Some(every) = self.0.parts.every else { return };
        loop {
            let wait = match self.due_in(every).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(%error, code = error.code(), "the schedule of collection can't be read");
                    PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            if !wait.is_zero() {
                continue;
            }
            let ran = tokio::select! {
                () = stop.cancelled() => return,
                ran = self.collect_if_needed() => ran,
            };
            if let Err(error) = ran {
                tracing::warn!(code = error.code, error = %error.message, "a collection by the schedule failed");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(every.min(PAUSE)) => {}
                }
            }
        }
    }

    async fn due_in(&self, every: Duration) -> Result<Duration, StateError> {
        let completed = self.0.parts.state.read(|view| Ok(report::schedule(view)?.completed_at)).await?;
        let idle = *self.0.idle_at.lock().unwrap_or_else(PoisonError::into_inner);
        let last = completed.max(idle);
        let now = self.0.parts.clock.now();
        Ok(last.map_or(Duration::ZERO, |last| every.saturating_sub(now.since(last))))
    }

    /// A run of the schedule; one that would find nothing is not begun, and writes nothing.
    async fn collect_if_needed(&self) -> Result<(), TaskFailure> {
        let parts = &self.0.parts;
        let order = Order { grace_ms: millis(parts.grace), dry_run: true, bytes_per_second: None };
        if !self.finds_something(&order).await? {
            *self.0.idle_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(parts.clock.now());
            return Ok(());
        }
        let work = UpkeepWork::Collection { dry_run: false, grace_ms: None };
        let id = match self.create(work, "schedule", true).await? {
            Ok(id) => id,
            // Somebody's is under way, or one from before a restart goes on.
            Err(conflict) => conflict.holder,
        };
        match parts.changes.until_ended(&id).await {
            Ok(ended) if ended.error.is_none() => Ok(()),
            Ok(ended) => {
                let error = ended.error.map(|error| (error.code, error.message)).unwrap_or_default();
                Err(TaskFailure::new(error.0, error.1))
            }
            Err(ChangeError::Stopped(_) | ChangeError::Unknown(_)) => Ok(()),
            Err(error) => Err(TaskFailure::new(error.code(), error.to_string())),
        }
    }

    async fn finds_something(&self, order: &Order) -> Result<bool, TaskFailure> {
        let mut account = Account::default();
        for pass in (COLLECTION.passes)(&self.0.parts) {
            let mut from = None;
            loop {
                from = pass.any_step(from, order, &mut account).await?;
                if account.done > 0 {
                    return Ok(true);
                }
                if from.is_none() {
                    break;
                }
            }
        }
        Ok(false)
    }

    async fn create(
        &self,
        work: UpkeepWork,
        by: &str,
        scheduled: bool,
    ) -> Result<Result<ChangeId, Conflict>, StateError> {
        let parts = &self.0.parts;
        let now = parts.clock.now();
        let id = ChangeId::new(parts.clock.as_ref(), parts.random.as_ref());
        let change = self.change(id.clone(), work, by);
        let made = id.clone();
        let created = parts
            .state
            .write(move |tx| {
                if let Err(conflict) = changes::create(tx, now, &change)? {
                    return Ok(Err(conflict));
                }
                if scheduled {
                    let mut schedule = report::schedule(tx)?;
                    schedule.made.push(made.clone());
                    let old = schedule.made.len().saturating_sub(MADE_KEPT);
                    for old in schedule.made.drain(..old) {
                        changes::forget(tx, now, &old)?;
                    }
                    report::put_schedule(tx, &schedule)?;
                }
                Ok::<_, StateError>(Ok(()))
            })
            .await?;
        parts.changes.wake();
        Ok(created.map(|()| id))
    }

    fn change(&self, id: ChangeId, work: UpkeepWork, by: &str) -> NewChange {
        let (kind, summary, order) = work::asked(work, millis(self.0.parts.grace));
        NewChange {
            id,
            kind: kind.change.to_owned(),
            summary: summary.to_owned(),
            subject: "storage".to_owned(),
            tasks: vec![kind.task],
            conflicts: vec![format!("storage/{}", kind.change)],
            data: serde_json::to_value(Asked { order, by: by.to_owned() }).unwrap_or_default(),
            by: by.to_owned(),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl crate::server::Upkeep for Keeper {
    fn begin<'a>(
        &'a self,
        work: UpkeepWork,
        by: &'a str,
    ) -> BoxFuture<'a, Result<Result<ChangeId, Conflict>, StateError>> {
        Box::pin(self.create(work, by, false))
    }

    fn report<'a>(&'a self, change: &'a ChangeId) -> BoxFuture<'a, Result<Option<UpkeepReport>, StateError>> {
        Box::pin(async move {
            let key = change.clone();
            let found = self.0.parts.state.read(move |view| report::get(view, &key)).await?;
            Ok(found.map(|record| UpkeepReport {
                change: change.to_string(),
                kind: record.kind,
                by: record.by,
                dry_run: record.dry_run,
                ended_at: record.ended_at.rfc3339(),
                found: record.account.done,
                counts: record.account.counts,
                lines: record.account.lines,
                omitted: record.account.omitted,
            }))
        })
    }

    fn figures(&self) -> UpkeepFigures {
        let figures = &self.0.figures;
        UpkeepFigures {
            collections: figures.runs.load(Ordering::Relaxed),
            collected_blobs: figures.blobs.load(Ordering::Relaxed),
            collected_bytes: figures.bytes.load(Ordering::Relaxed),
        }
    }
}
