//! How fast the other end has to be: a rate measured over a window, never a limit on the whole.
//!
//! A body of any length passes at any speed above the rate; who takes or sends next to nothing for a whole window is
//! cut off, as it would else hold its place, its memory and what it has locked for as long as it likes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::connection::Limits;
use super::crowd::Seat;

/// Whoever is waited for must move so many bytes a second, over a whole window.
const BYTES_PER_SECOND: u64 = 1024;
/// While answers that nobody takes hold more memory than this, the window is an eighth.
const PRESSURE_BYTES: usize = 64 * 1024 * 1024;

/// What of all answers has been read and not yet been sent.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Counts bytes of an answer as held until this is dropped.
pub(super) struct Held(usize);

impl Held {
    pub(super) fn new(bytes: usize) -> Self {
        HELD.fetch_add(bytes, Ordering::Relaxed);
        Self(bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// The window as it is under the present pressure.
pub(super) fn window(calm: Duration) -> Duration {
    if HELD.load(Ordering::Relaxed) > PRESSURE_BYTES { calm / 8 } else { calm }
}

/// Measures one direction of one transfer, of which only the time spent waiting counts.
pub(super) struct Pace {
    calm: Duration,
    /// Waited for, and moved, since enough was moved last.
    waited: Duration,
    bytes: u64,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(super) fn new(calm: Duration) -> Self {
        Self { calm, waited: Duration::ZERO, bytes: 0, since: None, timer: None }
    }

    /// So many bytes have gone through.
    pub(super) fn moved(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        self.bytes += bytes as u64;
        if self.bytes >= BYTES_PER_SECOND * self.calm.as_secs().max(1) {
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
    }

    /// Nothing goes through at this moment; ready when that has been so for too long.
    pub(super) fn poll_too_slow(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let ends = since + window(self.calm).saturating_sub(self.waited);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(ends)));
        if timer.deadline() != ends {
            timer.as_mut().reset(ends);
        }
        timer.as_mut().poll(context)
    }
}

/// What a peer that is too slow is cut off with.
pub(super) fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the other end moved next to nothing for a whole window")
}

/// A connection whose other end has to take what it asked for, and to ask in time.
pub(super) struct Paced<I> {
    inner: I,
    writes: Pace,
    /// Absent where requests share the connection and each is watched for itself.
    asks: Option<Asks>,
}

/// How long may pass until a request is there.
struct Asks {
    seat: Arc<Seat>,
    header: Duration,
    idle: Duration,
    /// The requests that had begun when `since` was set.
    begun: u64,
    /// A part of a header has come.
    in_header: bool,
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<I> Paced<I> {
    /// For one request at a time: the first header must come within its time, and so must each that has begun; between
    /// two of them the connection may be idle for a while.
    pub(super) fn one_by_one(inner: I, limits: &Limits, seat: Arc<Seat>) -> Self {
        let asks = Asks {
            begun: seat.begun(),
            seat,
            header: limits.header,
            idle: limits.idle,
            in_header: true,
            since: Instant::now(),
            timer: Box::pin(tokio::time::sleep(limits.header)),
        };
        Self { inner, writes: Pace::new(limits.stall), asks: Some(asks) }
    }

    /// For many requests at a time.
    pub(super) fn shared(inner: I, limits: &Limits) -> Self {
        Self { inner, writes: Pace::new(limits.stall), asks: None }
    }

    /// Passes on what a write came to; one that waits too long fails.
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
        bytes: impl Fn(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Ready(Ok(done)) => {
                self.writes.moved(bytes(&done));
                Poll::Ready(Ok(done))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.writes.poll_too_slow(context));
                Poll::Ready(Err(too_slow()))
            }
        }
    }
}

impl Asks {
    /// A request has begun and ended since: what comes now belongs to the next.
    fn catch_up(&mut self) {
        let begun = self.seat.begun();
        if begun != self.begun {
            (self.begun, self.in_header, self.since) = (begun, false, Instant::now());
        }
    }

    fn came(&mut self) {
        self.catch_up();
        if !self.in_header {
            (self.in_header, self.since) = (true, Instant::now());
        }
    }

    fn poll_too_slow(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.seat.is_idle() {
            return Poll::Pending;
        }
        self.catch_up();
        let ends = self.since + if self.in_header { self.header } else { self.idle };
        if self.timer.deadline() != ends {
            self.timer.as_mut().reset(ends);
        }
        self.timer.as_mut().poll(context)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Paced<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(context, buffer);
        let Some(asks) = &mut self.asks else { return outcome };
        match outcome {
            Poll::Pending => {
                ready!(asks.poll_too_slow(context));
                Poll::Ready(Err(too_slow()))
            }
            Poll::Ready(_) => {
                if buffer.filled().len() > before && asks.seat.is_idle() {
                    asks.came();
                }
                outcome
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Paced<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.written(context, outcome, |length| *length)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(context, pieces);
        self.written(context, outcome, |length| *length)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(context);
        self.written(context, outcome, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(context);
        self.written(context, outcome, |()| 0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    const WINDOW: Duration = Duration::from_millis(400);

    /// Tells whether the other end is not yet too slow after `time`.
    async fn waits(pace: &mut Pace, time: Duration) -> bool {
        let slow = poll_fn(|context| pace.poll_too_slow(context));
        tokio::time::timeout(time, slow).await.is_err()
    }

    #[tokio::test]
    async fn who_moves_nothing_for_a_window_is_too_slow() {
        let mut pace = Pace::new(WINDOW);
        assert!(waits(&mut pace, WINDOW / 4).await);
        assert!(!waits(&mut pace, WINDOW * 10).await);
    }

    #[tokio::test]
    async fn a_byte_now_and_then_is_too_slow() {
        let mut pace = Pace::new(WINDOW);
        let mut moved = 0;
        while waits(&mut pace, WINDOW / 8).await {
            pace.moved(1);
            moved += 1;
            assert!(moved < 10, "it goes on for ever");
        }
    }

    #[tokio::test]
    async fn who_moves_enough_in_every_window_goes_on() {
        let mut pace = Pace::new(WINDOW);
        for _ in 0..20 {
            assert!(waits(&mut pace, WINDOW / 8).await);
            pace.moved(1_024);
        }
    }

    #[tokio::test]
    async fn time_in_which_nobody_waits_does_not_count() {
        let mut pace = Pace::new(WINDOW);
        for _ in 0..4 {
            assert!(waits(&mut pace, WINDOW / 20).await);
            pace.moved(1);
            tokio::time::sleep(WINDOW).await;
        }
    }
}
