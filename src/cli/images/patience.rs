//! How long a registry is waited for that neither sends nor takes anything. What moves, however slowly, is not cut.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::{Instant, sleep_until, timeout};

use super::failure::reason;
use crate::cli::failure::Failure;

/// How long, by what is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the head of an answer, and between any two pieces of what is sent or received.
    pub(super) quiet: Duration,
    /// For the answer to an upload after its last piece: some of it is still on its way, and is to be made durable.
    pub(super) after_upload: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { quiet: Duration::from_mins(1), after_upload: Duration::from_mins(5) }
    }
}

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    /// It has more bytes than it may.
    #[error("is longer than {cap} bytes")]
    TooLong {
        /// What it may have.
        cap: usize,
    },
    /// The connection ended.
    #[error("breaks off: {0}")]
    Broken(String),
    /// Nothing came any more.
    #[error("breaks off: nothing has come for {} s", quiet.as_secs())]
    Silent {
        /// For this long.
        quiet: Duration,
    },
}

impl Unread {
    /// What is to be told of it: a silence as such, else `other`.
    pub(super) fn of(self, host: &str, other: impl FnOnce(Self) -> Failure) -> Failure {
        match self {
            Self::Silent { quiet } => silent(host, quiet),
            unread => other(unread),
        }
    }
}

/// A registry that says nothing.
pub(super) fn silent(host: &str, quiet: Duration) -> Failure {
    let detail = format!("{host} has neither sent nor taken anything for {} s", quiet.as_secs());
    Failure::registry_silent(detail, "it, or the way to it, hangs: run the command again later")
}

impl Patience {
    /// Waits for an answer to a request that has no body worth mentioning.
    pub(super) async fn answer<T>(&self, host: &str, answer: impl Future<Output = T>) -> Result<T, Failure> {
        timeout(self.quiet, answer).await.map_err(|_| silent(host, self.quiet))
    }

    /// Waits for an answer to an upload, of which `moved` tells.
    pub(super) async fn uploaded<T>(
        &self,
        host: &str,
        moved: &Moved,
        answer: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let (last, left) = moved.now();
            let patience = if left == 0 { self.after_upload } else { self.quiet };
            tokio::select! {
                answer = &mut answer => return Ok(answer),
                () = sleep_until(last + patience) => {
                    if moved.now() == (last, left) {
                        return Err(silent(host, patience));
                    }
                }
            }
        }
    }

    /// The next piece of a body.
    pub(super) async fn piece(&self, response: &mut Response) -> Result<Option<Bytes>, Unread> {
        match timeout(self.quiet, response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(Unread::Broken(reason(&error))),
            Err(_) => Err(Unread::Silent { quiet: self.quiet }),
        }
    }

    /// A body of at most `cap` bytes.
    pub(super) async fn bounded(&self, mut response: Response, cap: usize) -> Result<Vec<u8>, Unread> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.piece(&mut response).await? {
            if bytes.len() + piece.len() > cap {
                return Err(Unread::TooLong { cap });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

/// How far an upload is; clones share it.
#[derive(Clone)]
pub(super) struct Moved(Arc<Mutex<(Instant, u64)>>);

impl Moved {
    /// An upload of so many bytes, which begins now.
    pub(super) fn begin(size: u64) -> Self {
        Self(Arc::new(Mutex::new((Instant::now(), size))))
    }

    /// So many more bytes were taken for sending.
    pub(super) fn note(&self, bytes: usize) {
        let mut moved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *moved = (Instant::now(), moved.1.saturating_sub(bytes as u64));
    }

    fn now(&self) -> (Instant, u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const WAITS: Patience = Patience { quiet: Duration::from_secs(1), after_upload: Duration::from_secs(2) };

    #[tokio::test]
    async fn an_upload_lasts_as_long_as_it_moves() {
        let began = Instant::now();
        let moved = Moved::begin(15);
        let sender = moved.clone();
        let slow = async {
            for _ in 0..15 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                sender.note(1);
            }
            tokio::time::sleep(Duration::from_millis(1_200)).await;
            "done"
        };
        assert_eq!(WAITS.uploaded("a", &moved, slow).await.unwrap(), "done");
        assert!(began.elapsed() > WAITS.after_upload);

        let moved = Moved::begin(100);
        moved.note(99);
        let failure = WAITS.uploaded("a", &moved, std::future::pending::<()>()).await.unwrap_err();
        assert!(format!("{failure:?}").contains("registry_silent") && !failure.may_pass());

        let (began, moved) = (Instant::now(), Moved::begin(1));
        moved.note(1);
        assert!(WAITS.uploaded("a", &moved, std::future::pending::<()>()).await.is_err());
        assert!(began.elapsed() >= WAITS.after_upload);
    }
}
