//! The one thread that writes: runs queued closures in turn, many to one durable commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use redb::Database;

use super::tx::Batch;
use super::{StateError, Tx};
use crate::names::Faults;

/// How many closures share a commit at most, so that the first of them does not wait without end.
const BATCH_CLOSURES: usize = 256;
/// How many changed bytes share a commit at most, so that the memory of a batch is bounded.
const BATCH_BYTES: usize = 8 * 1_024 * 1_024;

/// What the writer and the handles share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) failed: AtomicBool,
    pub(super) commits: AtomicU64,
    pub(super) closures: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) commit_micros_total: AtomicU64,
    pub(super) commit_micros_max: AtomicU64,
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

/// Works until every sender is gone and the queue is empty.
pub(super) fn run(database: &Database, queue: &Receiver<Box<dyn Job>>, shared: &Shared, faults: &Faults) {
    while let Ok(first) = queue.recv() {
        if shared.failed.load(Ordering::Acquire) {
            first.answer(Err(StateError::Failed));
            continue;
        }
        let mut jobs = vec![first];
        let outcome =
            catch_unwind(AssertUnwindSafe(|| commit_batch(database, &mut jobs, queue, shared, faults)))
                .unwrap_or_else(|panic| {
                    tracing::error!(message = panic_message(&*panic), "the writer of the state panicked");
                    Err(StateError::Failed)
                });
        if let Err(error) = &outcome {
            // A commit that failed may or may not be on disk: only opening the file again can tell.
            shared.failed.store(true, Ordering::Release);
            tracing::error!(error = error as &dyn std::error::Error, "the state stops: a batch failed");
        }
        for job in jobs {
            job.answer(outcome.clone());
        }
    }
}

/// Runs the first job and what is queued behind it, and commits what they changed.
fn commit_batch(
    database: &Database,
    jobs: &mut Vec<Box<dyn Job>>,
    queue: &Receiver<Box<dyn Job>>,
    shared: &Shared,
    faults: &Faults,
) -> Result<(), StateError> {
    let mut transaction =
        database.begin_write().map_err(|error| StateError::storage("begin a transaction", error))?;
    // Two-phase: others shape our values, and the one-phase checksum does not resist that. Quick repair: opening
    // after a crash must not walk the whole file.
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    let mut batch = Batch::new(&transaction);
    while let Some(job) = jobs.last_mut() {
        let mut tx = Tx::new(&batch);
        let merged = job.run(&mut tx);
        let changes = tx.into_changes();
        shared.closures.fetch_add(1, Ordering::Relaxed);
        match merged {
            Ok(()) => batch.merge(changes)?,
            Err(()) => _ = shared.refused.fetch_add(1, Ordering::Relaxed),
        }
        if jobs.len() >= BATCH_CLOSURES || batch.changed_bytes() >= BATCH_BYTES {
            break;
        }
        match queue.try_recv() {
            Ok(next) => jobs.push(next),
            Err(_) => break,
        }
    }
    let changed = batch.changed();
    drop(batch);
    if !changed {
        return transaction.abort().map_err(|error| StateError::storage("end a transaction", error));
    }
    faults.pass("state.commit.before");
    let started = Instant::now();
    transaction.commit().map_err(StateError::commit)?;
    faults.pass("state.commit.after");
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    shared.commits.fetch_add(1, Ordering::Relaxed);
    shared.commit_micros_total.fetch_add(micros, Ordering::Relaxed);
    shared.commit_micros_max.fetch_max(micros, Ordering::Relaxed);
    Ok(())
}

/// What every handle needs of the thread.
pub(super) type SharedRef = Arc<Shared>;
