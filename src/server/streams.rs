//! The requests of one HTTP/2 connection, each in a task that ends when its client takes nothing for too long.
//!
//! A client can leave the window of one stream shut while the connection is well; nothing of the connection shows that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::pace::window;

tokio::task_local! {
    static WATCH: Arc<Watch>;
}

/// Runs each stream in a task of its own.
#[derive(Clone)]
pub(super) struct Streams {
    stall: Duration,
}

impl Streams {
    /// A stream ends when no piece of its answer is taken within `stall`, though there are some.
    pub(super) fn new(stall: Duration) -> Self {
        Self { stall }
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let (watch, stall) = (Arc::new(Watch::new()), self.stall);
        let watching = watch.clone();
        tokio::spawn(WATCH.scope(watch, async move {
            tokio::select! {
                biased;
                _ = stream => {}
                // Dropping the stream resets it.
                () = watching.stalled(stall) => tracing::debug!("a stream is reset: its client takes nothing"),
            }
        }));
    }
}

/// Since when pieces of an answer have waited, without one of them being taken.
pub(super) struct Watch {
    base: Instant,
    /// How many wait.
    waiting: AtomicUsize,
    /// When the first of them was given, or the last one before them taken: milliseconds after `base`.
    since: AtomicU64,
}

impl Watch {
    fn new() -> Self {
        Self { base: Instant::now(), waiting: AtomicUsize::new(0), since: AtomicU64::new(0) }
    }

    /// That of the stream whose task this is.
    pub(super) fn of_this_stream() -> Option<Arc<Self>> {
        WATCH.try_with(Arc::clone).ok()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// One more waits.
    pub(super) fn given(&self) {
        if self.waiting.load(Ordering::Acquire) == 0 {
            self.since.store(self.now(), Ordering::Relaxed);
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
    }

    /// One of them has been sent.
    pub(super) fn taken(&self) {
        self.since.store(self.now(), Ordering::Relaxed);
        self.waiting.fetch_sub(1, Ordering::AcqRel);
    }

    async fn stalled(&self, stall: Duration) {
        loop {
            tokio::time::sleep(stall / 8).await;
            // In this order: what is given now has set its time before it counts.
            if self.waiting.load(Ordering::Acquire) == 0 {
                continue;
            }
            let waited = self.now().saturating_sub(self.since.load(Ordering::Relaxed));
            if Duration::from_millis(waited) >= window(stall) {
                return;
            }
        }
    }
}
