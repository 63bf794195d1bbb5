//! Who is connected: how many at once, how many of one address, and who has to leave when more come.
//!
//! Whoever has no request under way makes room, the longest idle first, so that connections which ask for nothing
//! keep nobody out.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether somebody has become idle, while all places are taken.
const LOOK: Duration = Duration::from_millis(50);

/// The connections of one server; clones share them.
#[derive(Clone)]
pub(super) struct Crowd(Arc<Inner>);

struct Inner {
    places: Arc<Semaphore>,
    /// One address has no more connections than this.
    of_one: usize,
    members: Mutex<Members>,
    /// Counts on whenever somebody becomes idle.
    moments: AtomicU64,
    entered: AtomicU64,
    refused: AtomicU64,
}

#[derive(Default)]
struct Members {
    by_id: BTreeMap<u64, (Option<IpAddr>, Arc<Member>)>,
    of: HashMap<IpAddr, usize>,
}

struct Member {
    requests: AtomicUsize,
    /// All that there ever were.
    begun: AtomicU64,
    idle_since: AtomicU64,
    leave: CancellationToken,
}

impl Crowd {
    /// Places for so many connections, and for so many of one address.
    pub(super) fn new(connections: usize, of_one: usize) -> Self {
        Self(Arc::new(Inner {
            places: Arc::new(Semaphore::new(connections)),
            of_one,
            members: Mutex::default(),
            moments: AtomicU64::new(0),
            entered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.0.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are here, how many ever came, and how many were turned away.
    pub(super) fn figures(&self) -> (u64, u64, u64) {
        let here = self.members().by_id.len() as u64;
        (here, self.0.entered.load(Ordering::Relaxed), self.0.refused.load(Ordering::Relaxed))
    }

    /// A place for one more; waits while all others are at work. `None` when `peer` has its share, all at work.
    pub(super) async fn enter(&self, peer: Option<IpAddr>) -> Option<Seat> {
        let peer = peer.map(|peer| peer.to_canonical());
        if let Some(one) = peer {
            let full = self.members().of.get(&one).is_some_and(|count| *count >= self.0.of_one);
            if full && !self.dismiss(Some(one)) {
                self.0.refused.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
        let place = loop {
            if let Ok(place) = self.0.places.clone().try_acquire_owned() {
                break place;
            }
            self.dismiss(None);
            let place = tokio::time::timeout(LOOK, self.0.places.clone().acquire_owned()).await;
            if let Ok(place) = place {
                break place.expect("invariant: nobody closes the semaphore");
            }
        };
        let id = self.0.moments.fetch_add(1, Ordering::Relaxed);
        self.0.entered.fetch_add(1, Ordering::Relaxed);
        let member = Arc::new(Member {
            requests: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            idle_since: AtomicU64::new(id),
            leave: CancellationToken::new(),
        });
        let mut members = self.members();
        members.by_id.insert(id, (peer, member.clone()));
        if let Some(peer) = peer {
            *members.of.entry(peer).or_default() += 1;
        }
        drop(members);
        Some(Seat { crowd: self.clone(), id, member, _place: place })
    }

    /// Asks the one who is idle longest to leave, of one address or of all; `false` when nobody is idle.
    fn dismiss(&self, of: Option<IpAddr>) -> bool {
        let members = self.members();
        let idle = members.by_id.values().filter(|(peer, member)| {
            (of.is_none() || *peer == of) && member.is_idle() && !member.leave.is_cancelled()
        });
        let longest = idle.min_by_key(|(_, member)| member.idle_since.load(Ordering::Relaxed));
        if let Some((_, member)) = longest {
            member.leave.cancel();
        }
        longest.is_some()
    }
}

impl Member {
    fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Acquire) == 0
    }
}

/// The place of one connection, free again when this is dropped.
pub(super) struct Seat {
    crowd: Crowd,
    id: u64,
    member: Arc<Member>,
    _place: OwnedSemaphorePermit,
}

impl Seat {
    /// A request on this connection: it is at work until the last of these is dropped.
    pub(super) fn request(&self) -> AtWork {
        self.member.requests.fetch_add(1, Ordering::AcqRel);
        self.member.begun.fetch_add(1, Ordering::Relaxed);
        AtWork { crowd: self.crowd.clone(), member: self.member.clone() }
    }

    /// Resolves when somebody else needs the place.
    pub(super) async fn dismissed(&self) {
        self.member.leave.cancelled().await;
    }

    /// How many requests have begun on this connection.
    pub(super) fn begun(&self) -> u64 {
        self.member.begun.load(Ordering::Relaxed)
    }

    /// Tells whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.member.is_idle()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut members = self.crowd.members();
        let Some((Some(peer), _)) = members.by_id.remove(&self.id) else { return };
        if let Some(count) = members.of.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                members.of.remove(&peer);
            }
        }
    }
}

/// A request under way, until its answer has been sent.
pub(super) struct AtWork {
    crowd: Crowd,
    member: Arc<Member>,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let now = self.crowd.0.moments.fetch_add(1, Ordering::Relaxed);
        self.member.idle_since.store(now, Ordering::Relaxed);
        self.member.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[allow(clippy::unnecessary_wraps)] // As connections give it: those of the local socket have none.
    fn peer(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[tokio::test]
    async fn one_address_has_its_share_of_the_places_and_its_idle_connections_make_room() {
        let crowd = Crowd::new(4, 2);
        let first = crowd.enter(peer(1)).await.unwrap();
        let second = crowd.enter(peer(1)).await.unwrap();
        let at_work = first.request();
        let third = crowd.enter(peer(1)).await.unwrap();
        second.dismissed().await;
        drop(second);
        let also_at_work = third.request();
        assert!(crowd.enter(peer(1)).await.is_none(), "both are at work");
        let other = crowd.enter(peer(2)).await.unwrap();
        drop((at_work, also_at_work));
        let _fourth = crowd.enter(peer(1)).await.unwrap();
        first.dismissed().await;
        assert!(!other.member.leave.is_cancelled() && !third.member.leave.is_cancelled());
    }

    #[tokio::test]
    async fn when_all_places_are_taken_the_longest_idle_leaves() {
        let crowd = Crowd::new(2, 1);
        let first = crowd.enter(peer(1)).await.unwrap();
        let second = crowd.enter(peer(2)).await.unwrap();
        drop(first.request());
        let leaves = async {
            second.dismissed().await;
            drop(second);
        };
        let (third, ()) = tokio::join!(crowd.enter(None), leaves);
        let _busy = (first.request(), third.as_ref().unwrap().request());
        let waits = tokio::time::timeout(LOOK * 3, crowd.enter(peer(3))).await;
        assert!(waits.is_err(), "nobody at work is sent away");
        drop(third);
        crowd.enter(peer(3)).await.unwrap();
    }
}
