//! Bodies: streamed with a deadline for each piece, or collected under a cap.

use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};

use super::errors::{ApiError, ApiResult};

/// The next piece of a body must come within this.
const IDLE: Duration = Duration::from_mins(1);
/// What is beyond a cap is read and dropped up to here, so that a client that sends before it listens gets the answer.
const DROP_BYTES: u64 = 256 * 1024 * 1024;

/// The body as pieces; one that doesn't come in time is an error.
pub(super) fn pieces(body: Body) -> stream::BoxStream<'static, io::Result<Bytes>> {
    let pieces = Some(body.into_data_stream());
    stream::unfold(pieces, |pieces| async move {
        let mut pieces = pieces?;
        match tokio::time::timeout(IDLE, pieces.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some(pieces))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Err(_) => {
                let slow = io::Error::new(io::ErrorKind::TimedOut, "no byte came for a minute");
                Some((Err(slow), None))
            }
        }
    })
    .boxed()
}

/// What came of collecting a body.
#[derive(Debug)]
pub(super) enum Collected {
    /// All of it.
    Whole(Bytes),
    /// It is larger than the cap; what came was dropped.
    TooLarge,
    /// It broke off.
    Broken(io::Error),
}

/// The whole body when it has `cap` bytes at most. Never holds more than that.
pub(super) async fn collect(
    mut pieces: impl Stream<Item = io::Result<Bytes>> + Unpin,
    cap: u64,
) -> Collected {
    let mut whole = BytesMut::new();
    let mut over = false;
    let mut seen = 0_u64;
    while let Some(piece) = pieces.next().await {
        match piece {
            // Its end is of no interest any more when the answer is clear.
            Err(_) if over => break,
            Err(error) => return Collected::Broken(error),
            Ok(piece) => {
                seen += piece.len() as u64;
                if seen <= cap {
                    whole.extend_from_slice(&piece);
                } else {
                    over = true;
                    whole = BytesMut::new();
                }
                if seen > cap.saturating_add(DROP_BYTES) {
                    break;
                }
            }
        }
    }
    if over { Collected::TooLarge } else { Collected::Whole(whole.freeze()) }
}

/// The whole body, or the error that a handler answers.
pub(super) async fn collect_or_refuse(body: Body, cap: u64) -> ApiResult<Bytes> {
    match collect(pieces(body), cap).await {
        Collected::Whole(bytes) => Ok(bytes),
        Collected::TooLarge => Err(ApiError::too_large(cap)),
        Collected::Broken(error) => {
            Err(ApiError::invalid("body_incomplete", format!("the body broke off: {error}")))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn repeated(piece: usize, times: usize) -> impl Stream<Item = io::Result<Bytes>> + Unpin {
        let piece = Bytes::from(vec![7; piece]);
        stream::iter((0..times).map(move |_| Ok(piece.clone())))
    }

    #[tokio::test]
    async fn exactly_the_cap_passes_and_one_byte_more_does_not() {
        assert!(
            matches!(collect(repeated(10, 10), 100).await, Collected::Whole(bytes) if bytes.len() == 100)
        );
        assert!(matches!(collect(repeated(10, 10), 99).await, Collected::TooLarge));
        assert!(matches!(collect(repeated(1 << 20, 100), 8 << 20).await, Collected::TooLarge));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_taken_for_a_whole_one() {
        let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(io::Error::other("gone"))]);
        assert!(matches!(collect(broken, 100).await, Collected::Broken(_)));
    }
}
