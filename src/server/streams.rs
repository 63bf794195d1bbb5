//! The requests of one HTTP/2 connection, each in a task that ends when its client takes nothing for too long.
//!
//! A client can leave the window of one stream shut while the connection is well; nothing of the connection shows that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// A stream ends when a piece of its answer isn't taken within `stall`.
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

/// Since when a piece of an answer has waited to be taken.
pub(super) struct Watch {
    base: Instant,
    /// Milliseconds after `base`, 0 when nothing waits.
    given: AtomicU64,
}

impl Watch {
    fn new() -> Self {
        Self { base: Instant::now(), given: AtomicU64::new(0) }
    }

    /// That of the stream whose task this is.
    pub(super) fn of_this_stream() -> Option<Arc<Self>> {
        WATCH.try_with(Arc::clone).ok()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    pub(super) fn given(&self) {
        self.given.store(self.now(), Ordering::Relaxed);
    }

    pub(super) fn taken(&self) {
        self.given.store(0, Ordering::Relaxed);
    }

    async fn stalled(&self, stall: Duration) {
        loop {
            tokio::time::sleep(stall / 8).await;
            let given = self.given.load(Ordering::Relaxed);
            let waited = Duration::from_millis(self.now().saturating_sub(given));
            if given > 0 && waited >= window(stall) {
                return;
            }
        }
    }
}
