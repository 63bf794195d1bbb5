//! Memory for the pieces of blobs on their way out: a little for each stream, more while there is enough for all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How large buffers are. A stream has one of the first size for itself, all others are from what streams share.
pub(super) const SIZES: [usize; 3] = [16 * 1_024, 64 * 1_024, 256 * 1_024];
/// All streams together hold so much at most, beside the one buffer that each has for itself.
const SHARED_BYTES: usize = 64 * 1_024 * 1_024;
/// A shared buffer is lent while so many of its size are left, so that sizes go down before there is nothing left.
const SPARE: usize = 32;
/// So much is kept for the next readers, so that a large read neither zeroes nor faults in fresh memory for each piece.
const KEPT_BYTES: usize = 8 * 1_024 * 1_024;

/// The memory of all streams.
#[derive(Debug)]
pub(super) struct Buffers {
    left: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    of_size: [Vec<Vec<u8>>; SIZES.len()],
    bytes: usize,
}

impl Default for Buffers {
    fn default() -> Self {
        Self { left: AtomicUsize::new(SHARED_BYTES), kept: Mutex::default() }
    }
}

/// The one buffer that a stream has for itself.
#[derive(Clone, Debug)]
pub(super) struct Own(Arc<Semaphore>);

impl Default for Own {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Own {
    /// Tells whether nothing is in it.
    pub(super) fn is_free(&self) -> bool {
        self.0.available_permits() > 0
    }
}

impl Buffers {
    /// A buffer for at most `length` bytes. Where streams hold all that there is to share, it is the stream's own, and
    /// waited for until what was in it is gone.
    pub(super) async fn lend(self: &Arc<Self>, own: &Own, length: usize) -> Lent {
        if length <= SIZES[0]
            && let Ok(permit) = own.0.clone().try_acquire_owned()
        {
            return self.lent(0, length, Loan::Own { _permit: permit });
        }
        if let Some(lent) = self.try_lend(length) {
            return lent;
        }
        let permit = own.0.clone().acquire_owned().await.expect("invariant: nobody closes the semaphore");
        self.lent(0, length, Loan::Own { _permit: permit })
    }

    /// As [`Buffers::lend`], of what is shared alone.
    pub(super) fn try_lend(self: &Arc<Self>, length: usize) -> Option<Lent> {
        let fits = SIZES.iter().position(|size| *size >= length).unwrap_or(SIZES.len() - 1);
        let lent = |at: usize| {
            let size = SIZES[at];
            let enough = |left| (left >= size * SPARE).then(|| left - size);
            let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough).is_ok();
            taken.then(|| self.lent(at, length, Loan::Shared))
        };
        (0..=fits).rev().find_map(lent)
    }

    fn lent(self: &Arc<Self>, size: usize, length: usize, loan: Loan) -> Lent {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let buffer = kept.of_size[size].pop();
        if buffer.is_some() {
            kept.bytes -= SIZES[size];
        }
        drop(kept);
        let buffer = buffer.unwrap_or_else(|| vec![0; SIZES[size]]);
        Lent { buffer, size, length: length.min(SIZES[size]), buffers: self.clone(), loan }
    }

    fn give_back(&self, size: usize, buffer: Vec<u8>, loan: &Loan) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes + SIZES[size] <= KEPT_BYTES {
            kept.bytes += SIZES[size];
            kept.of_size[size].push(buffer);
        }
        drop(kept);
        if matches!(loan, Loan::Shared) {
            self.left.fetch_add(SIZES[size], Ordering::Relaxed);
        }
    }

    /// How much of what is shared is lent.
    #[cfg(test)]
    pub(super) fn shared_bytes(&self) -> usize {
        SHARED_BYTES - self.left.load(Ordering::Relaxed)
    }
}

/// Where a buffer is from.
#[derive(Debug)]
enum Loan {
    Shared,
    Own { _permit: OwnedSemaphorePermit },
}

/// A buffer that goes back when the last part of the bytes in it is gone.
#[derive(Debug)]
pub(super) struct Lent {
    /// As long as its size, whatever was in it before.
    buffer: Vec<u8>,
    size: usize,
    length: usize,
    buffers: Arc<Buffers>,
    loan: Loan,
}

impl Lent {
    /// For so many bytes.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The bytes, to be written over.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.length]
    }
}

impl From<Lent> for Bytes {
    fn from(lent: Lent) -> Self {
        Self::from_owner(lent)
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.buffers.give_back(self.size, std::mem::take(&mut self.buffer), &self.loan);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn sizes_go_down_while_what_is_shared_runs_out_and_each_stream_has_one_of_its_own() {
        let buffers = Arc::<Buffers>::default();
        let greedy: Vec<Lent> = std::iter::from_fn(|| buffers.try_lend(1 << 20)).collect();
        assert!(greedy.is_sorted_by(|one, next| one.length() >= next.length()));
        for size in SIZES {
            assert!(greedy.iter().filter(|lent| lent.length() == size).count() >= SPARE - 1, "{size}");
        }
        assert_eq!(buffers.shared_bytes(), greedy.iter().map(Lent::length).sum::<usize>());
        assert!(buffers.shared_bytes() > SHARED_BYTES - SPARE * SIZES[0]);

        let own = Own::default();
        let first = buffers.lend(&own, 1 << 20).await;
        assert_eq!(first.length(), SIZES[0]);
        assert!(buffers.lend(&own, 100).now_or_never().is_none(), "nothing is left for a second");
        assert_eq!(buffers.lend(&Own::default(), 100).await.length(), 100, "another has its own");
        let waits = buffers.lend(&own, 100);
        let (second, ()) = tokio::join!(waits, async { drop(first) });
        drop(second);

        drop(greedy);
        assert_eq!(buffers.shared_bytes(), 0);
        assert!(buffers.kept.lock().unwrap().bytes <= KEPT_BYTES);
        assert_eq!(buffers.try_lend(1 << 20).unwrap().length(), SIZES[2]);
    }

    #[tokio::test]
    async fn buffers_are_used_again() {
        let buffers = Arc::<Buffers>::default();
        let places: Vec<*const u8> = (0..20)
            .map(|_| {
                let lent = buffers.try_lend(SIZES[2]).unwrap();
                let piece = Bytes::from(lent);
                piece.slice(10..20).as_ptr().wrapping_sub(10)
            })
            .collect();
        assert!(places.iter().all(|place| *place == places[0]));
    }
}
