//! The handle: queues writes, runs reads, closes.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::{Database, ReadableDatabase};

use super::damage::{Source, let_go};
use super::file::{self, Schema};
use super::writer::{Closure, Job, Opener, Order, Shared, SharedRef, Slot, Writer, panic_message};
use super::{StateError, Tx, View};
use crate::names::Faults;

/// A snapshot held longer than this makes the file grow, and is said in the log.
const SLOW_READ: Duration = Duration::from_millis(50);

/// All records; cheap to clone. Dropping the last clone commits what is queued and closes the file.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    path: PathBuf,
    schema: Schema,
    shared: SharedRef,
    queue: Mutex<Option<Sender<Order>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    writer_thread: std::thread::ThreadId,
}

/// Counters since the state was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateStats {
    /// Durable commits.
    pub commits: u64,
    /// Closures that ran, merged or not.
    pub closures: u64,
    /// Closures that returned an error or panicked, of which nothing was kept.
    pub refused: u64,
    /// The time of all commits together, in microseconds.
    pub commit_micros_total: u64,
    /// The longest commit, in microseconds.
    pub commit_micros_max: u64,
    /// Whether the state is stopped, after a storage error, at present.
    pub failed: bool,
}

impl State {
    /// The schema that this binary writes.
    pub const SCHEMA: u32 = 18;

    /// Opens or makes the file and migrates it.
    ///
    /// # Errors
    /// [`StateError::InUse`] when it is open elsewhere, [`StateError::SchemaNewer`] and
    /// [`StateError::SchemaTooOld`] when this binary cannot work with it, [`StateError::NotOurs`] when it is
    /// something else, [`StateError::Damaged`] when it is not as it was written, and [`StateError::Open`] or [`StateError::Io`] when the system refuses.
    pub fn open(path: &Path, faults: Faults) -> Result<Self, StateError> {
        let (database, schema) = file::open(path)?;
        let reopen = {
            let path = path.to_owned();
            Box::new(move || file::reopen(&path))
        };
        Self::start(path.to_owned(), database, schema, reopen, faults)
    }

    pub(super) fn start(
        path: PathBuf,
        database: Database,
        schema: Schema,
        reopen: Opener,
        faults: Faults,
    ) -> Result<Self, StateError> {
        let database = Arc::new(database);
        let shared = SharedRef::new(Shared::new(Arc::clone(&database)));
        let (sender, receiver) = channel();
        let thread = Writer::new(path.clone(), reopen, receiver, Arc::clone(&shared), faults);
        let writer = std::thread::Builder::new()
            .name("state-writer".to_owned())
            .spawn(move || thread.run(database))
            .map_err(StateError::io("start the writer of the state"))?;
        Ok(Self(Arc::new(Inner {
            path,
            schema,
            shared,
            queue: Mutex::new(Some(sender)),
            writer_thread: writer.thread().id(),
            writer: Mutex::new(Some(writer)),
        })))
    }

    /// Runs the closure in the writer and answers when what it wrote is durable.
    ///
    /// The closure may run again, so it touches nothing outside. What it wrote is merged only when it returns `Ok`:
    /// a refusal that must leave no trace is decided before the first write, or is an `Err`. It runs also when the
    /// caller stops waiting.
    ///
    /// # Errors
    /// The closure's own; [`StateError::Panicked`]; [`StateError::Commit`] and [`StateError::Storage`] when the
    /// storage fails, after which it is unknown whether this write took place; [`StateError::Failed`] while the
    /// file is not open again after that; [`StateError::Damaged`]; [`StateError::Closed`].
    pub async fn write<T: Send + 'static>(
        &self,
        act: impl Fn(&mut Tx<'_>) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.0.queue(Closure::boxed(act, move |result| _ = reply.send(result)))?;
        answer.await.unwrap_or_else(|_| Err(self.0.gone()))
    }

    /// As [`State::write`], for threads that may block.
    ///
    /// # Errors
    /// As [`State::write`]; [`StateError::Nested`] inside the closure of a write.
    pub fn write_blocking<T: Send + 'static>(
        &self,
        act: impl Fn(&mut Tx<'_>) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        if std::thread::current().id() == self.0.writer_thread {
            return Err(StateError::Nested);
        }
        let (reply, answer) = sync_channel(1);
        self.0.queue(Closure::boxed(act, move |result| _ = reply.send(result)))?;
        answer.recv().unwrap_or_else(|_| Err(self.0.gone()))
    }

    /// Runs the closure on a snapshot, off the async threads. It is to take 50 ms at most.
    ///
    /// # Errors
    /// The closure's own; [`StateError::Storage`], [`StateError::Damaged`], [`StateError::Failed`],
    /// [`StateError::Panicked`], [`StateError::Closed`].
    pub async fn read<T: Send + 'static>(
        &self,
        act: impl FnOnce(&View<'_>) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let state = self.clone();
        match tokio::task::spawn_blocking(move || state.read_blocking(act)).await {
            Ok(result) => result,
            Err(error) => Err(error.try_into_panic().map_or(StateError::Closed, |panic| {
                StateError::Panicked { message: panic_message(&*panic) }
            })),
        }
    }

    /// As [`State::read`], for a few rows by their keys: on the calling thread, unless the file is just being opened.
    ///
    /// To hand a closure to another thread costs several times what such a read does, whose pages nearly always are in
    /// memory. A page that is not holds the thread for as long as the disk takes to give it.
    ///
    /// # Errors
    /// As [`State::read`].
    pub async fn read_few<T: Send + 'static>(
        &self,
        act: impl FnOnce(&View<'_>) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        if let Ok(slot) = self.0.shared.slot.try_read() {
            let act = AssertUnwindSafe(|| self.read_from(&slot, act));
            return catch_unwind(act)
                .unwrap_or_else(|panic| Err(StateError::Panicked { message: panic_message(&*panic) }));
        }
        self.read(act).await
    }

    /// As [`State::read`], for threads that may block.
    ///
    /// # Errors
    /// As [`State::read`]; a panic of the closure goes through.
    pub fn read_blocking<T>(
        &self,
        act: impl FnOnce(&View<'_>) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        // Held for the whole read, so that the file is really closed when `close` or the writer closes it.
        let slot = self.0.shared.slot.read().unwrap_or_else(PoisonError::into_inner);
        self.read_from(&slot, act)
    }

    fn read_from<T>(
        &self,
        slot: &Slot,
        act: impl FnOnce(&View<'_>) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let (database, opening) = match slot {
            Slot::Open { database, opening } => (database, *opening),
            Slot::Down => return Err(StateError::Failed),
            Slot::Closed => return Err(StateError::Closed),
        };
        let source = Source::new(&self.0.path);
        let started = Instant::now();
        let snapshot = source.ask("begin a snapshot", || {
            database.begin_read().map_err(|error| StateError::storage("begin a snapshot", error))
        });
        let result = snapshot.and_then(|snapshot| {
            let result = act(&View::new(&snapshot, &source));
            let_go(snapshot);
            result
        });
        if source.failed()
            && let Some(queue) = &*lock(&self.0.queue)
        {
            // Redb answers nothing more until its file is opened again, which is the writer's to do.
            _ = queue.send(Order::Reopen { opening });
        }
        let elapsed = started.elapsed();
        if elapsed > SLOW_READ {
            tracing::warn!(
                elapsed_ms = elapsed.as_millis(),
                "a read of the state held its snapshot for long"
            );
        }
        result
    }

    /// The schema of the file, after migrations.
    #[must_use]
    pub fn schema(&self) -> Schema {
        self.0.schema
    }

    /// Removes the copies kept from before migrations, as health is good.
    ///
    /// # Errors
    /// [`StateError::Io`] when a copy cannot be removed.
    pub fn settle(&self) -> Result<(), StateError> {
        file::settle(&self.0.path)
    }

    /// Commits what is queued and closes the file; later calls give [`StateError::Closed`]. Closing twice is fine.
    ///
    /// # Errors
    /// [`StateError::Failed`] when the state had stopped after a storage error.
    pub async fn close(&self) -> Result<(), StateError> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || inner.close()).await.map_err(|_| StateError::Failed)?;
        if self.0.shared.failed.load(Ordering::Acquire) { Err(StateError::Failed) } else { Ok(()) }
    }

    /// Counters for metrics.
    #[must_use]
    pub fn stats(&self) -> StateStats {
        let shared = &self.0.shared;
        StateStats {
            commits: shared.commits.load(Ordering::Relaxed),
            closures: shared.closures.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
            commit_micros_total: shared.commit_micros_total.load(Ordering::Relaxed),
            commit_micros_max: shared.commit_micros_max.load(Ordering::Relaxed),
            failed: shared.failed.load(Ordering::Acquire),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("path", &self.0.path)
            .field("schema", &self.0.schema)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn queue(&self, job: Box<dyn Job>) -> Result<(), StateError> {
        let queue = lock(&self.queue);
        let queue = queue.as_ref().ok_or(StateError::Closed)?;
        if self.shared.failed.load(Ordering::Acquire) {
            return Err(StateError::Failed);
        }
        queue.send(Order::Run(job)).map_err(|_| self.gone())
    }

    /// Why a job got no answer.
    fn gone(&self) -> StateError {
        if self.shared.failed.load(Ordering::Acquire) { StateError::Failed } else { StateError::Closed }
    }

    fn close(&self) {
        drop(lock(&self.queue).take());
        let writer = lock(&self.writer).take();
        if let Some(writer) = writer
            && std::thread::current().id() != self.writer_thread
            && writer.join().is_err()
        {
            self.shared.failed.store(true, Ordering::Release);
        }
        let mut slot = self.shared.slot.write().unwrap_or_else(PoisonError::into_inner);
        let_go(std::mem::replace(&mut *slot, Slot::Closed));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
