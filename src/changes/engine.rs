//! The engine as others use it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::context::Live;
use super::log::{self, LONGEST_READ, LiveLog};
use super::record::{CHANGES, READY};
use super::workspace::Workspace;
use super::{ChangeError, ChangeView, TaskSet, book, scheduler, view};
use crate::blobs::Blobs;
use crate::names::{ChangeId, Clock, Faults, Millis};
use crate::state::{Read as _, Scan, State};

/// How long [`Changes::stop`] waits for what is being recorded.
const STOP: Duration = Duration::from_secs(5);
/// Changes of one reading transaction.
const PAGE: usize = 50;

/// The engine: a handle that is cheap to clone.
#[derive(Clone)]
pub struct Changes {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) state: State,
    pub(super) blobs: Blobs,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) faults: Faults,
    pub(super) workspace: Workspace,
    /// Names this process in the rows that it works on.
    pub(super) owner: String,
    /// No instant before this one is ever told.
    pub(super) floor: AtomicU64,
    pub(super) wake: Notify,
    /// Changes with each end.
    pub(super) ended: watch::Sender<u64>,
    /// Ends since the start, by kind and how they were.
    ends: Mutex<BTreeMap<(String, &'static str), u64>>,
    pub(super) stop: CancellationToken,
    /// The changes that run.
    live: Mutex<HashMap<ChangeId, Arc<Live>>>,
    runner: Mutex<Option<JoinHandle<()>>>,
}

impl Inner {
    /// The later one of the machine's clock and the last instant that was told or persisted.
    pub(super) fn now(&self) -> Millis {
        let now = self.clock.now().0;
        Millis(self.floor.fetch_max(now, Ordering::SeqCst).max(now))
    }

    pub(super) fn live(&self) -> MutexGuard<'_, HashMap<ChangeId, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a change that ended.
    pub(super) fn count_end(&self, kind: &str, result: &'static str) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        *ends.entry((kind.to_owned(), result)).or_default() += 1;
    }

    /// Appends to a change's log, off the async threads.
    pub(super) async fn say(&self, log: &Arc<LiveLog>, who: &str, text: &str) {
        let (log, now, who, text) = (Arc::clone(log), self.now(), who.to_owned(), text.to_owned());
        let written = tokio::task::spawn_blocking(move || log.append(now, &who, &text)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "a line of a change's log can't be written");
        }
    }
}

impl Changes {
    /// An engine that stands still until [`Changes::start`].
    #[must_use]
    pub fn new(root: &Path, state: State, blobs: Blobs, clock: Arc<dyn Clock>, faults: Faults) -> Self {
        let owner = format!("{}@{}", std::process::id(), clock.now());
        let inner = Inner {
            state,
            blobs,
            clock,
            faults,
            workspace: Workspace::below(root),
            owner,
            floor: AtomicU64::new(0),
            wake: Notify::new(),
            ended: watch::Sender::new(0),
            ends: Mutex::default(),
            stop: CancellationToken::new(),
            live: Mutex::new(HashMap::new()),
            runner: Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// How many changes ended since the start, by kind and result (`done`, `undone`, `cancelled`, `needs_attention`).
    #[must_use]
    pub fn ends(&self) -> Vec<(String, &'static str, u64)> {
        let ends = self.inner.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.iter().map(|((kind, result), count)| (kind.clone(), *result, *count)).collect()
    }

    /// Recovers unfinished changes and runs until [`Changes::stop`]; a second call is ignored.
    ///
    /// The state file is this process's alone, so the leases of an earlier process are not waited for. Left-over work
    /// folders are swept first.
    ///
    /// *Limits*: must be called inside a tokio runtime.
    pub fn start(&self, tasks: TaskSet) {
        let mut runner = self.inner.runner.lock().unwrap_or_else(PoisonError::into_inner);
        if runner.is_none() && !self.inner.stop.is_cancelled() {
            // Listed before this returns: what is made from here on can't be taken for left over.
            let left = self.inner.workspace.entries();
            *runner = Some(tokio::spawn(scheduler::run(Arc::clone(&self.inner), Arc::new(tasks), left)));
        }
    }

    /// Tells the engine that there may be something to do; call it after a commit that created or signalled.
    pub fn wake(&self) {
        self.inner.wake.notify_one();
    }

    /// Stops within 5 s: tasks that run are dropped where they await, and run again after a restart.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        let runner = self.inner.runner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut runner) = runner
            && tokio::time::timeout(STOP, &mut runner).await.is_err()
        {
            tracing::warn!("a task did not let go in time; it runs again after the restart");
            runner.abort();
        }
    }

    /// The change, or `None` when it is unknown or was cleared away.
    ///
    /// # Errors
    /// Those of the state.
    pub async fn get(&self, id: &ChangeId) -> Result<Option<ChangeView>, ChangeError> {
        let key = id.clone();
        let mut shown = self.inner.state.read(move |rows| view::of(rows, &key)).await?;
        if let Some(shown) = &mut shown {
            self.show_progress(id, shown);
        }
        Ok(shown)
    }

    /// The changes after `after`, in the order of their creation.
    ///
    /// # Errors
    /// Those of the state.
    pub async fn list(&self, after: Option<ChangeId>, limit: usize) -> Result<Vec<ChangeView>, ChangeError> {
        let mut all = Vec::new();
        let mut last = after;
        while all.len() < limit {
            let (from, want) = (last.clone(), PAGE.min(limit - all.len()));
            let page = self.inner.state.read(move |rows| view::page(rows, from.as_ref(), want)).await?;
            let is_last = page.len() < want;
            for (id, mut shown) in page {
                self.show_progress(&id, &mut shown);
                all.push(shown);
                last = Some(id);
            }
            if is_last {
                break;
            }
        }
        Ok(all)
    }

    fn show_progress(&self, id: &ChangeId, shown: &mut ChangeView) {
        let live = self.inner.live().get(id).cloned();
        if let Some(live) = live {
            let (place, progress) = live.progress();
            view::show_progress(shown, place, &progress);
        }
    }

    /// Asks that the change be undone. `false` when it is too late: it has ended, or its pivot has completed.
    ///
    /// The wish is persisted. A pivot that is completing at this moment still wins.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`], and those of the state.
    pub async fn abort(&self, id: &ChangeId) -> Result<bool, ChangeError> {
        let (key, now) = (id.clone(), self.inner.now());
        match self.inner.state.write(move |tx| book::abort(tx, now, &key)).await? {
            book::Abort::Unknown => Err(ChangeError::Unknown(id.clone())),
            book::Abort::TooLate => Ok(false),
            book::Abort::Asked => {
                let live = self.inner.live().get(id).cloned();
                if let Some(live) = live {
                    live.cancel.cancel();
                }
                self.wake();
                Ok(true)
            }
        }
    }

    /// The lines of the change's log, live or closed.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`]; [`ChangeError::Log`] and [`ChangeError::LiveLog`] when it can't be read; those of
    /// the state.
    pub async fn log(&self, id: &ChangeId) -> Result<Vec<String>, ChangeError> {
        // A log that is live when the record is read may be closed when the file is opened: then the record knows.
        for _ in 0..2 {
            let key = id.clone();
            let record = self.inner.state.read(move |rows| rows.get(&CHANGES, &key)).await?;
            let record = record.ok_or_else(|| ChangeError::Unknown(id.clone()))?;
            if let Some(digest) = &record.log {
                let bytes = self.inner.blobs.read_small(digest, LONGEST_READ).await;
                let bytes = bytes.map_err(|source| ChangeError::Log { id: id.clone(), source })?;
                return Ok(log::lines(&bytes));
            }
            let folder = self.inner.workspace.of(id);
            let read = tokio::task::spawn_blocking(move || log::read(&folder)).await;
            let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            if let Some(bytes) = read.map_err(|source| ChangeError::LiveLog { id: id.clone(), source })? {
                return Ok(log::lines(&bytes));
            }
        }
        Ok(Vec::new())
    }

    /// Resolves when the change has ended, or at once when it has.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`]; [`ChangeError::Stopped`] when the engine stops first; those of the state.
    pub async fn until_ended(&self, id: &ChangeId) -> Result<ChangeView, ChangeError> {
        let mut ended = self.inner.ended.subscribe();
        loop {
            ended.borrow_and_update();
            let shown = self.get(id).await?.ok_or_else(|| ChangeError::Unknown(id.clone()))?;
            if shown.is_ended() {
                return Ok(shown);
            }
            tokio::select! {
                _ = ended.changed() => {}
                () = self.inner.stop.cancelled() => return Err(ChangeError::Stopped(id.clone())),
            }
        }
    }

    /// Since when the longest-waiting change could have gone on and has had no place to run; for health.
    ///
    /// # Errors
    /// Those of the state.
    pub async fn oldest_waiting(&self) -> Result<Option<Millis>, ChangeError> {
        let rows = self.inner.state.read(|rows| rows.scan(&READY, &Scan::all(), 1000)).await?;
        let live = self.inner.live();
        Ok(rows.into_iter().filter(|(id, _)| !live.contains_key(id)).map(|(_, ready)| ready.since).min())
    }
}

#[cfg(test)]
impl Changes {
    /// Ends everything at once, as a crash does: nothing more is recorded or cleaned up.
    pub(super) async fn crash(&self) {
        let runner = self.inner.runner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runner) = runner {
            runner.abort();
            let _ = runner.await;
        }
    }
}
