//! The one thread that writes: runs queued closures in turn, many to one durable commit, and opens the file again
//! when its storage failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

use redb::Database;

use super::damage::{contained, let_go};
use super::file::begin;
use super::tx::Batch;
use super::{StateError, Tx};
use crate::names::Faults;

/// How many closures share a commit at most, so that the first of them does not wait without end.
const BATCH_CLOSURES: usize = 256;
/// How many changed bytes share a commit at most, so that the memory of a batch is bounded.
const BATCH_BYTES: usize = 8 * 1_024 * 1_024;

/// How long the file stays closed after the first failure, and after many without a commit between them.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How soon to look again whether the reads of the old handle are done.
const READERS_PAUSE: Duration = Duration::from_millis(5);

/// The open file, which reads share.
pub(super) enum Slot {
    Open {
        database: Arc<Database>,
        /// Which opening this is, so that a complaint about an earlier one is known as such.
        opening: u64,
    },
    /// Closed after a storage error, to be opened again.
    Down,
    /// Closed for good.
    Closed,
}

/// What the writer and the handles share.
pub(super) struct Shared {
    pub(super) slot: RwLock<Slot>,
    pub(super) failed: AtomicBool,
    pub(super) commits: AtomicU64,
    pub(super) closures: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) commit_micros_total: AtomicU64,
    pub(super) commit_micros_max: AtomicU64,
}

impl Shared {
    pub(super) fn new(database: Arc<Database>) -> Self {
        Self {
            slot: RwLock::new(Slot::Open { database, opening: 0 }),
            failed: AtomicBool::default(),
            commits: AtomicU64::default(),
            closures: AtomicU64::default(),
            refused: AtomicU64::default(),
            commit_micros_total: AtomicU64::default(),
            commit_micros_max: AtomicU64::default(),
        }
    }
}

/// Opens the file again after its storage failed.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, StateError> + Send>;

/// What the writer is asked for.
pub(super) enum Order {
    /// To run a closure.
    Run(Box<dyn Job>),
    /// To open the file again, as a read of this opening met a storage error.
    Reopen { opening: u64 },
}

/// A queued closure with the way back to its caller.
pub(super) trait Job: Send {
    /// Runs the closure and keeps its result; `Ok` when what it did to `tx` is to be merged.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), ()>;
    /// Answers the caller: with the closure's own result, unless the batch failed.
    fn answer(self: Box<Self>, batch: Result<(), StateError>);
}

/// The one kind of [`Job`] there is.
pub(super) struct Closure<T, F, A> {
    act: F,
    result: Option<Result<T, StateError>>,
    reply: A,
}

impl<T, F, A> Closure<T, F, A>
where
    T: Send + 'static,
    F: Fn(&mut Tx<'_>) -> Result<T, StateError> + Send + 'static,
    A: FnOnce(Result<T, StateError>) + Send + 'static,
{
    pub(super) fn boxed(act: F, reply: A) -> Box<dyn Job> {
        Box::new(Self { act, result: None, reply })
    }
}

impl<T, F, A> Job for Closure<T, F, A>
where
    T: Send,
    F: Fn(&mut Tx<'_>) -> Result<T, StateError> + Send,
    A: FnOnce(Result<T, StateError>) + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), ()> {
        // The overlay of a closure that panicked is dropped whole, so no half-done change can be seen through it.
        let result = catch_unwind(AssertUnwindSafe(|| (self.act)(tx)))
            .unwrap_or_else(|panic| Err(StateError::Panicked { message: panic_message(&*panic) }));
        let merged = result.as_ref().map(drop).map_err(drop);
        self.result = Some(result);
        merged
    }

    fn answer(self: Box<Self>, batch: Result<(), StateError>) {
        let result = match (self.result, batch) {
            (Some(Err(own)), _) => Err(own),
            (_, Err(failed)) => Err(failed),
            (Some(done), Ok(())) => done,
            (None, Ok(())) => Err(StateError::Failed),
        };
        (self.reply)(result);
    }
}

/// The text of a panic, cut to 200 characters.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message");
    text.chars().take(200).collect()
}

/// The thread's own: it alone writes, and it alone opens the file again.
pub(super) struct Writer {
    path: PathBuf,
    reopen: Opener,
    queue: Receiver<Order>,
    shared: SharedRef,
    faults: Faults,
    opening: u64,
    /// How long the file stays closed after the next failed commit.
    pause: Duration,
}

impl Writer {
    pub(super) fn new(
        path: PathBuf,
        reopen: Opener,
        queue: Receiver<Order>,
        shared: SharedRef,
        faults: Faults,
    ) -> Self {
        Self { path, reopen, queue, shared, faults, opening: 0, pause: PAUSES.0 }
    }

    /// Works until every sender is gone and the queue is empty.
    pub(super) fn run(mut self, mut database: Arc<Database>) {
        while let Ok(order) = self.queue.recv() {
            let pause = match order {
                Order::Reopen { opening } if opening == self.opening => {
                    self.shared.failed.store(true, Ordering::Release);
                    Duration::ZERO
                }
                Order::Reopen { .. } => continue,
                Order::Run(first) => {
                    if self.run_batch(&database, first) {
                        continue;
                    }
                    let pause = self.pause;
                    self.pause = (pause * 2).min(PAUSES.1);
                    pause
                }
            };
            match self.recover(database, pause) {
                Some(reopened) => database = reopened,
                None => return,
            }
        }
        let_go(database);
    }

    /// Runs a batch and answers everybody in it; `false` when the file has to be opened again.
    fn run_batch(&mut self, database: &Database, first: Box<dyn Job>) -> bool {
        let mut jobs = vec![first];
        let mut reopen = false;
        let outcome =
            contained(&self.path, "write a batch", || self.commit_batch(database, &mut jobs, &mut reopen));
        match &outcome {
            // A commit that failed may or may not be on disk: only opening the file again can tell.
            Err(error) => {
                reopen = true;
                tracing::error!(error = error as &dyn std::error::Error, "the state stops: a batch failed");
            }
            Ok(true) => self.pause = PAUSES.0,
            Ok(false) => {}
        }
        if reopen {
            self.shared.failed.store(true, Ordering::Release);
        }
        let outcome = outcome.map(drop);
        for job in jobs {
            job.answer(outcome.clone());
        }
        !reopen
    }

    /// Closes the file and opens it again, however often that takes; `None` when the state is being closed.
    fn recover(&mut self, database: Arc<Database>, mut pause: Duration) -> Option<Arc<Database>> {
        let_go(database);
        let mut next = Instant::now() + pause;
        loop {
            match self.queue.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Order::Run(job)) => {
                    job.answer(Err(StateError::Failed));
                    continue;
                }
                Ok(Order::Reopen { .. }) => continue,
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if !self.take_down() {
                next = Instant::now() + READERS_PAUSE;
                continue;
            }
            match contained(&self.path, "open the file again", || (self.reopen)()) {
                Ok(reopened) => return self.put_up(Arc::new(reopened)),
                Err(error) => {
                    pause = (pause * 2).clamp(PAUSES.0, PAUSES.1);
                    next = Instant::now() + pause;
                    let pause_ms = pause.as_millis();
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        hint = error.hint(),
                        pause_ms,
                        "the state file cannot be opened again yet"
                    );
                }
            }
        }
    }

    /// Closes the old handle, unless a read still uses it. It does not wait for the lock: a read that waits for a
    /// write, or begins another read, would wait for ever.
    fn take_down(&self) -> bool {
        let mut slot = match self.shared.slot.try_write() {
            Ok(slot) => slot,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        if matches!(*slot, Slot::Open { .. }) {
            let_go(std::mem::replace(&mut *slot, Slot::Down));
        }
        true
    }

    fn put_up(&mut self, database: Arc<Database>) -> Option<Arc<Database>> {
        let mut slot = self.shared.slot.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*slot, Slot::Closed) {
            return None;
        }
        self.opening += 1;
        *slot = Slot::Open { database: Arc::clone(&database), opening: self.opening };
        drop(slot);
        self.shared.failed.store(false, Ordering::Release);
        tracing::info!("the state file is open again");
        Some(database)
    }

    /// Runs the first job and what is queued behind it, and commits what they changed, if anything. Sets `reopen` when a read
    /// meanwhile asked for it.
    fn commit_batch(
        &self,
        database: &Database,
        jobs: &mut Vec<Box<dyn Job>>,
        reopen: &mut bool,
    ) -> Result<bool, StateError> {
        // Two-phase: others shape our values, and the one-phase checksum does not resist that. Quick repair:
        // opening after a crash must not walk the whole file.
        let transaction = begin(database)?;
        let shared = &self.shared;
        let mut batch = Batch::new(&transaction, &self.path);
        while let Some(job) = jobs.last_mut() {
            let mut tx = Tx::new(&batch);
            let merged = job.run(&mut tx);
            let changes = tx.into_changes();
            shared.closures.fetch_add(1, Ordering::Relaxed);
            match merged {
                Ok(()) => batch.merge(changes)?,
                Err(()) => _ = shared.refused.fetch_add(1, Ordering::Relaxed),
            }
            if batch.failed() {
                return Err(StateError::Failed);
            }
            if jobs.len() >= BATCH_CLOSURES || batch.changed_bytes() >= BATCH_BYTES {
                break;
            }
            match self.queue.try_recv() {
                Ok(Order::Run(next)) => jobs.push(next),
                Ok(Order::Reopen { opening }) => {
                    *reopen = opening == self.opening;
                    break;
                }
                Err(_) => break,
            }
        }
        let changed = batch.changed();
        drop(batch);
        if !changed {
            transaction.abort().map_err(|error| StateError::storage("end a transaction", error))?;
            return Ok(false);
        }
        self.faults.pass("state.commit.before");
        let started = Instant::now();
        transaction.commit().map_err(StateError::commit)?;
        self.faults.pass("state.commit.after");
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.commits.fetch_add(1, Ordering::Relaxed);
        shared.commit_micros_total.fetch_add(micros, Ordering::Relaxed);
        shared.commit_micros_max.fetch_max(micros, Ordering::Relaxed);
        Ok(true)
    }
}

/// What every handle needs of the thread.
pub(super) type SharedRef = Arc<Shared>;
