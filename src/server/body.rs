//! Bodies: streamed, or collected under a cap and a budget that all share.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::header;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::errors::{ApiError, ApiResult};
use super::share::{Holder, Holders};

/// What is beyond a cap is read and dropped up to here, so that a client that sends before it listens gets the answer.
const DROP_BYTES: u64 = 256 * 1024 * 1024;

/// Of the body of a request that is refused before it was read, so much is read away …
const DRAINED: usize = 1024 * 1024;
/// … and for so long.
const DRAINING: Duration = Duration::from_secs(2);

/// Of a body that is left over when its request is answered, so much is read away while the answer goes out …
const LEFT_OVER: usize = 16 * 1024 * 1024;
/// … and for so long.
const LEFT_OVER_TIME: Duration = Duration::from_secs(5);

/// All collected bodies together have so many bytes in memory at most, apart from what each has for free.
const BUDGET_BYTES: usize = 32 * 1024 * 1024;
/// So much of each body is free: no more than its connection holds anyway, and what small requests need also while
/// others have used up the budget.
const FREE_BYTES: usize = 16 * 1024;
/// What the budget is counted in.
const UNIT_BYTES: usize = 4 * 1024;

/// The budget of this process.
static BUDGET: LazyLock<Budget> =
    LazyLock::new(|| Budget::new(BUDGET_BYTES, Duration::from_secs(2), Duration::from_secs(30)));

/// Bodies of requests that need no credentials have a budget of their own, and less time: whoever fills it keeps nobody
/// out who has rights.
const STRANGERS_BYTES: usize = 4 * 1024 * 1024;
static STRANGERS: LazyLock<Budget> =
    LazyLock::new(|| Budget::new(STRANGERS_BYTES, Duration::from_secs(2), Duration::from_secs(10)));

/// All answers that are made in memory have so much at most together, until their clients have taken them, apart from
/// what each has for free.
const ANSWERS_BYTES: usize = 64 * 1024 * 1024;
static ANSWERS: LazyLock<Budget> =
    LazyLock::new(|| Budget::new(ANSWERS_BYTES, Duration::from_secs(1), Duration::ZERO));
/// So many answers that may need much memory while they are made are made at the same time.
const MAKING: usize = 8;
static TURNS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAKING)));
/// One waits for its turn so long, and is then refused.
const TURN_WAIT: Duration = Duration::from_secs(5);

/// How much memory collected bodies may have, and how long they may keep it before they are whole.
pub(super) struct Budget {
    units: Arc<Semaphore>,
    /// Nobody has more than a part of them.
    holders: Arc<Holders>,
    /// All units.
    most: u32,
    /// A body waits for memory so long, and is then refused.
    wait: Duration,
    /// All of a body must come within this.
    whole_within: Duration,
}

impl Budget {
    fn new(bytes: usize, wait: Duration, whole_within: Duration) -> Self {
        let units = bytes / UNIT_BYTES;
        let most = u32::try_from(units).unwrap_or(u32::MAX);
        let units = Arc::new(Semaphore::new(units));
        Self { units, holders: Arc::default(), most, wait, whole_within }
    }

    /// So many units, for one that has `have` of them already; `None` when there are none within the wait, for all or for
    /// the one whose request it is.
    async fn take(&self, have: u32, units: u32) -> Option<Taken> {
        tokio::time::timeout(self.wait, async {
            let mut taken =
                Taken { holder: Holder::of_this_request(), noted: 0, units: None, of: self.holders.clone() };
            if let Some(holder) = taken.holder {
                self.holders.take(holder, self.most, have, units).await;
                taken.noted = units;
            }
            taken.units = Some(self.units.clone().acquire_many_owned(units).await.ok()?);
            Some(taken)
        })
        .await
        .ok()?
    }
}

/// Units of a budget, until this is dropped.
struct Taken {
    holder: Option<Holder>,
    /// How many are noted as the holder's.
    noted: u32,
    units: Option<OwnedSemaphorePermit>,
    of: Arc<Holders>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        // The units first: who waits for its part finds them.
        drop(self.units.take());
        if let Some(holder) = self.holder {
            self.of.give_back(holder, self.noted);
        }
    }
}

/// A body that is being collected, with its share of the budget; the share goes back with the last of its bytes.
#[derive(Default)]
struct Share {
    bytes: Vec<u8>,
    taken: Vec<Taken>,
    units: u32,
}

impl AsRef<[u8]> for Share {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Share {
    /// Appends a piece; `false` when there is no memory for it within the budget's wait.
    async fn push(&mut self, piece: &[u8], cap: u64, budget: &Budget) -> bool {
        let length = self.bytes.len() + piece.len();
        if length > self.bytes.capacity() {
            // Doubled, as a body of many pieces would else be copied for each; and what is counted is what is reserved.
            let most = usize::try_from(cap).unwrap_or(usize::MAX);
            let capacity = length.max(FREE_BYTES.min(most)).max((self.bytes.capacity() * 2).min(most));
            let units =
                u32::try_from(capacity.saturating_sub(FREE_BYTES).div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
            let more = units.saturating_sub(self.units);
            if more > 0 {
                let Some(taken) = budget.take(self.units, more).await else { return false };
                self.taken.push(taken);
                self.units = units;
            }
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        true
    }
}

/// The body as pieces. How fast they have to come is the connection's affair, which breaks off a body that stalls.
pub(super) fn pieces(body: Body) -> stream::BoxStream<'static, io::Result<Bytes>> {
    let pieces = Some(body.into_data_stream());
    stream::unfold(pieces, |pieces| async move {
        let mut pieces = pieces?;
        match pieces.next().await? {
            Ok(piece) => Some((Ok(piece), Some(pieces))),
            Err(error) => Some((Err(io::Error::other(error)), None)),
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
    /// Other bodies have all the memory that there is for them; what came was dropped.
    Busy,
    /// It broke off, or took too long.
    Broken(io::Error),
}

/// The whole body when it has `cap` bytes at most. Never holds more than that, nor more than all bodies may.
pub(super) async fn collect(pieces: impl Stream<Item = io::Result<Bytes>> + Unpin, cap: u64) -> Collected {
    collect_within(&BUDGET, pieces, cap).await
}

async fn collect_within(
    budget: &Budget,
    mut pieces: impl Stream<Item = io::Result<Bytes>> + Unpin,
    cap: u64,
) -> Collected {
    let deadline = Instant::now() + budget.whole_within;
    let mut share = Share::default();
    // Set when the answer is clear; what still comes is then dropped.
    let mut refused = None;
    let mut seen = 0_u64;
    loop {
        let piece = match tokio::time::timeout_at(deadline, pieces.next()).await {
            Ok(None) => break,
            Ok(Some(Ok(piece))) => piece,
            // Its end is of no interest any more when the answer is clear.
            _ if refused.is_some() => break,
            Ok(Some(Err(error))) => return Collected::Broken(error),
            Err(_) => {
                let slow = io::Error::new(io::ErrorKind::TimedOut, "it took too long to come");
                return Collected::Broken(slow);
            }
        };
        seen += piece.len() as u64;
        if seen > cap {
            refused = Some(Collected::TooLarge);
        } else if refused.is_none() && !share.push(&piece, cap, budget).await {
            refused = Some(Collected::Busy);
        }
        if refused.is_some() {
            share = Share::default();
        }
        if seen > cap.saturating_add(DROP_BYTES) {
            break;
        }
    }
    refused.unwrap_or_else(|| Collected::Whole(Bytes::from_owner(share)))
}

/// The whole body, or the error that a handler answers.
pub(super) async fn collect_or_refuse(body: Body, cap: u64) -> ApiResult<Bytes> {
    whole(collect(pieces(body), cap).await, cap)
}

/// As [`collect_or_refuse`], of a request that shows no credentials before its body was read.
pub(super) async fn collect_of_stranger(body: Body, cap: u64) -> ApiResult<Bytes> {
    whole(collect_within(&STRANGERS, pieces(body), cap).await, cap)
}

fn whole(collected: Collected, cap: u64) -> ApiResult<Bytes> {
    match collected {
        Collected::Whole(bytes) => Ok(bytes),
        Collected::TooLarge => Err(ApiError::too_large(cap)),
        Collected::Busy => Err(ApiError::busy("too_many_requests")),
        Collected::Broken(error) => {
            Err(ApiError::invalid("body_incomplete", format!("the body broke off: {error}"))
                .hint("send all of it, as long as `Content-Length` says, without a pause"))
        }
    }
}

/// The turn to make an answer that may need much memory; to be put into the extensions of the answer, so that it lasts
/// until the answer has its share of the memory of all.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Turn {
    /// Waits for it; `code` is that of the path's form.
    pub(super) async fn wait(code: &'static str) -> ApiResult<Self> {
        match tokio::time::timeout(TURN_WAIT, TURNS.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Self { _permit: Arc::new(permit) }),
            _ => Err(ApiError::busy(code)),
        }
    }
}

/// The layer: an answer from memory takes its share of what all answers may have, and keeps it until its client has
/// taken it. What is streamed from files passes.
pub(super) async fn share_answers(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let code = if path.starts_with("/v2/") { "TOOMANYREQUESTS" } else { "too_many_requests" };
    let response = next.run(request).await;
    shared(&ANSWERS, response).await.unwrap_or_else(|| ApiError::busy(code).into_response())
}

/// The answer with its share; `None` when there is none within the budget's wait.
async fn shared(budget: &Budget, mut response: Response) -> Option<Response> {
    let turn = response.extensions_mut().remove::<Turn>();
    let size = response.body().size_hint().exact().and_then(|size| usize::try_from(size).ok());
    let Some(size) = size.filter(|size| *size > FREE_BYTES) else { return Some(response) };
    let units = u32::try_from(size.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(budget.most);
    let taken = budget.take(0, units).await?;
    drop(turn);
    let (head, body) = response.into_parts();
    // It is in memory already, in one piece.
    let bytes = axum::body::to_bytes(body, usize::MAX).await.ok()?;
    let bytes = Bytes::from_owner(Share { bytes: bytes.into(), taken: vec![taken], units });
    Some(Response::from_parts(head, Body::from(bytes)))
}

/// Reads away what a client still sends before it is refused: a connection that is closed on unread bytes is reset, and
/// the refusal lost with it. A long body is not waited for.
pub(super) async fn drain(body: Body) {
    read_away(body, DRAINED, DRAINING).await;
}

async fn read_away(body: Body, most: usize, time: Duration) {
    let reading = async {
        let (mut pieces, mut read) = (pieces(body), 0);
        while let Some(Ok(piece)) = pieces.next().await {
            read += piece.len();
            if read > most {
                break;
            }
        }
    };
    let _too_long = tokio::time::timeout(time, reading).await;
}

/// Answers at once also when the body is not wanted, such as a chunk that is out of order or a token that has ended: what
/// is left of the body is read away meanwhile, up to a limit, so that the answer arrives and the connection lives on.
pub(super) async fn read_leftovers(request: Request, next: Next) -> Response {
    // Who waits for a word before it sends must not get one by our reading.
    if request.body().is_end_stream() || request.headers().contains_key(header::EXPECT) {
        return next.run(request).await;
    }
    next.run(request.map(|body| Body::new(Leftover(Some(body))))).await
}

/// A body that is read away when it is dropped before its end.
struct Leftover(Option<Body>);

impl HttpBody for Leftover {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.0 = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(read_away(body, LEFT_OVER, LEFT_OVER_TIME));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);
    const SHORT: Duration = Duration::from_millis(20);

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

    #[tokio::test]
    async fn bodies_share_one_budget_and_small_ones_need_none() {
        let budget = Budget::new(1 << 20, SHORT, LONG);
        let held = collect_within(&budget, repeated(100_000, 9), 1_000_000).await;
        let Collected::Whole(held) = held else { panic!("{held:?}") };
        assert!(budget.units.available_permits() * UNIT_BYTES < 200_000);
        let other = || collect_within(&budget, repeated(100_000, 5), 8 << 20);
        assert!(matches!(other().await, Collected::Busy));
        let small = collect_within(&budget, repeated(1_000, 16), 8 << 20).await;
        assert!(matches!(&small, Collected::Whole(bytes) if bytes.len() == 16_000));
        // A part of the bytes keeps all of them in memory, and so their share.
        let part = held.slice(..10);
        drop(held);
        assert!(matches!(other().await, Collected::Busy));
        drop(part);
        assert!(matches!(other().await, Collected::Whole(bytes) if bytes == vec![7; 500_000]));
        assert_eq!(budget.units.available_permits(), (1 << 20) / UNIT_BYTES);
    }

    #[tokio::test]
    async fn one_address_has_a_part_of_the_budget_and_others_the_rest() {
        let budget = Budget::new(1 << 20, SHORT, LONG);
        let body = |from: &str, times| {
            Holder::sample(from).holds(collect_within(&budget, repeated(100_000, times), 8 << 20))
        };
        let held = body("192.0.2.1", 3).await;
        assert!(matches!(held, Collected::Whole(_)));
        assert!(matches!(body("192.0.2.1", 3).await, Collected::Busy), "more than half");
        let other = body("192.0.2.2", 3).await;
        assert!(matches!(&other, Collected::Whole(bytes) if bytes.len() == 300_000));
        drop(other);
        assert!(matches!(body("192.0.2.2", 6).await, Collected::Busy), "there is not so much");
        drop(held);
        let large = body("192.0.2.1", 6).await;
        assert!(matches!(large, Collected::Whole(_)), "one body may have more than a part of the budget");
        drop(large);
        assert_eq!(budget.units.available_permits(), (1 << 20) / UNIT_BYTES);
    }

    #[tokio::test]
    async fn a_body_waits_for_the_memory_of_another() {
        let budget = Budget::new(1 << 20, LONG, LONG);
        let held = collect_within(&budget, repeated(100_000, 9), 1_000_000).await;
        let other = collect_within(&budget, repeated(100_000, 5), 8 << 20);
        let (other, ()) = tokio::join!(other, async { drop(held) });
        assert!(matches!(other, Collected::Whole(bytes) if bytes.len() == 500_000));
    }

    #[tokio::test]
    async fn answers_share_one_budget_until_they_are_taken() {
        let budget = Budget::new(1 << 20, SHORT, LONG);
        let answer = |size: usize| Response::new(Body::from(vec![7; size]));
        let held = shared(&budget, answer(900_000)).await.unwrap();
        assert!(shared(&budget, answer(500_000)).await.is_none());
        assert!(shared(&budget, answer(FREE_BYTES)).await.is_some(), "small ones need none");
        let streamed = Body::from_stream(repeated(100_000, 9));
        assert!(shared(&budget, Response::new(streamed)).await.is_some(), "nor do streamed ones");
        assert_eq!(held.body().size_hint().exact(), Some(900_000));
        let mut pieces = held.into_body().into_data_stream();
        let piece = pieces.next().await.unwrap().unwrap();
        drop(pieces);
        // The body is at its end, and its bytes wait in the connection.
        assert!(shared(&budget, answer(500_000)).await.is_none());
        assert_eq!(piece, vec![7; 900_000]);
        drop(piece);
        assert!(shared(&budget, answer(500_000)).await.is_some());
        assert!(shared(&budget, answer(5_000_000)).await.is_some(), "more than all is all");
        assert_eq!(budget.units.available_permits(), (1 << 20) / UNIT_BYTES);
    }

    #[tokio::test]
    async fn a_body_that_stalls_gives_its_memory_back() {
        let budget = Budget::new(1 << 20, SHORT, SHORT);
        let stalled = repeated(100_000, 5).chain(stream::pending());
        let outcome = collect_within(&budget, stalled, 8 << 20).await;
        assert!(matches!(outcome, Collected::Broken(error) if error.kind() == io::ErrorKind::TimedOut));
        assert_eq!(budget.units.available_permits(), (1 << 20) / UNIT_BYTES);
    }
}
