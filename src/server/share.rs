//! Whose request it is, where all share something: one address, or one user of this machine, has no more than its part.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::connection::Connection;

tokio::task_local! {
    static HOLDER: Holder;
}

/// Of an IPv6 address these bits count: who has one has the others of its network.
const NETWORK: u128 = u128::MAX << 64;

/// On whose behalf something is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Address(IpAddr),
    /// A user of this machine, over the local socket.
    User(u32),
}

/// On whose behalf something is held, and which part of it one may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    who: Who,
    part: Part,
}

/// A part of a whole, as so many of so many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) of_one: usize,
    pub(super) of_all: usize,
}

impl Part {
    fn of(self, whole: u32) -> u32 {
        let part = u128::from(whole) * self.of_one as u128 / (self.of_all as u128).max(1);
        u32::try_from(part).unwrap_or(u32::MAX).min(whole)
    }
}

impl Holder {
    /// Whoever is at the other end.
    pub(super) fn new(connection: &Connection, part: Part) -> Self {
        let who = match connection {
            Connection::Local { uid, .. } => Who::User(*uid),
            Connection::Tcp { remote, .. } => Who::Address(match remote.ip().to_canonical() {
                IpAddr::V4(address) => address.into(),
                IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & NETWORK).into(),
            }),
        };
        Self { who, part }
    }

    /// All that `request` collects is held on behalf of this.
    pub(super) async fn holds<F: Future>(self, request: F) -> F::Output {
        HOLDER.scope(self, request).await
    }

    /// The one whose request this is.
    pub(super) fn of_this_request() -> Option<Self> {
        HOLDER.try_with(|holder| *holder).ok()
    }
}

/// Who holds how many units of one thing.
#[derive(Debug, Default)]
pub(super) struct Holders {
    held: Mutex<HashMap<Who, u32>>,
    freed: Notify,
}

impl Holders {
    fn held(&self) -> MutexGuard<'_, HashMap<Who, u32>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes `more` units for `holder` as soon as they are within its part of `whole`; `have` of those that it holds
    /// are the asking one's, who needs not wait for anybody else of the same holder when there is nobody.
    pub(super) async fn take(&self, holder: Holder, whole: u32, have: u32, more: u32) {
        let most = holder.part.of(whole);
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            {
                let mut held = self.held();
                let now = held.get(&holder.who).copied().unwrap_or(0);
                if now <= have || now.saturating_add(more) <= most {
                    held.insert(holder.who, now.saturating_add(more));
                    return;
                }
            }
            freed.await;
        }
    }

    /// Takes back what was noted.
    pub(super) fn give_back(&self, holder: Holder, units: u32) {
        let mut held = self.held();
        if let Some(now) = held.get_mut(&holder.who) {
            *now = now.saturating_sub(units);
            if *now == 0 {
                held.remove(&holder.who);
            }
        }
        drop(held);
        self.freed.notify_waiters();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
impl Holder {
    /// One of this address, with a half.
    pub(super) fn sample(address: &str) -> Self {
        let remote = (address.parse::<IpAddr>().unwrap(), 1).into();
        Self::new(&Connection::Tcp { remote, local: None, tls: false }, Part { of_one: 512, of_all: 1024 })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn one_has_its_part_and_one_thing_is_always_possible() {
        let (holders, one, other) =
            (Holders::default(), Holder::sample("192.0.2.1"), Holder::sample("192.0.2.2"));
        holders.take(one, 100, 0, 30).await;
        holders.take(one, 100, 0, 20).await;
        assert!(holders.take(one, 100, 30, 1).now_or_never().is_none());
        assert!(
            holders.take(other, 100, 0, 80).now_or_never().is_some(),
            "more than its part, but its only one"
        );
        assert!(holders.take(other, 100, 80, 10).now_or_never().is_some(), "and it may grow");
        assert!(holders.take(other, 100, 0, 1).now_or_never().is_none());
        let waits = holders.take(one, 100, 30, 20);
        tokio::join!(waits, async { holders.give_back(one, 20) });
        holders.give_back(one, 50);
        holders.give_back(other, 90);
        assert!(holders.held().is_empty());
    }

    #[test]
    fn one_network_and_one_user_is_one() {
        let who = |address| Holder::sample(address).who;
        assert_eq!(who("2001:db8::1"), who("2001:db8::ffff:1"));
        assert_ne!(who("2001:db8::1"), who("2001:db8:0:1::1"));
        assert_eq!(who("::ffff:192.0.2.1"), who("192.0.2.1"));
        assert_ne!(who("192.0.2.1"), who("192.0.2.2"));
        let user = Holder::new(&Connection::Local { uid: 7, gid: 7 }, Part { of_one: 1, of_all: 2 });
        assert_eq!(user.who, Who::User(7));
        assert_eq!((user.part.of(9), Part { of_one: 9, of_all: 2 }.of(9)), (4, 9));
    }
}
