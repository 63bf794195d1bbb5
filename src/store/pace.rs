//! How much one address may submit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::names::Millis;

const HOUR: Duration = Duration::from_hours(1);
/// Addresses that are remembered; past it the one that is forgotten soonest anyway makes room.
const ADDRESSES: usize = 10_000;

/// Counts by address; each count begins with an address's first request and is forgotten an hour later.
#[derive(Default)]
pub(super) struct Pace(Mutex<HashMap<IpAddr, Count>>);

#[derive(Clone, Copy)]
struct Count {
    since: Millis,
    requests: u32,
}

impl Pace {
    /// Counts a request; how long to wait when the hour's are used up. `per_hour` 0 is no limit.
    pub(super) fn count(&self, from: IpAddr, per_hour: u32, now: Millis) -> Result<(), Duration> {
        if per_hour == 0 {
            return Ok(());
        }
        let from = network_of(from);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back begins a new hour, too.
        let fresh = |count: &Count| count.since <= now && now.since(count.since) < HOUR;
        if counts.len() >= ADDRESSES && !counts.contains_key(&from) {
            counts.retain(|_, count| fresh(count));
            if counts.len() >= ADDRESSES
                && let Some(oldest) = counts.iter().min_by_key(|(_, count)| count.since).map(|(at, _)| *at)
            {
                counts.remove(&oldest);
            }
        }
        let new = Count { since: now, requests: 0 };
        let count = counts
            .entry(from)
            .and_modify(|count| {
                if !fresh(count) {
                    *count = new;
                }
            })
            .or_insert(new);
        if count.requests >= per_hour {
            return Err(count.since.after(HOUR).since(now));
        }
        count.requests += 1;
        Ok(())
    }
}

/// Whoever has an IPv6 address has a network of them.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_an_hour_and_others_have_their_own() {
        let (pace, start) = (Pace::default(), Millis(1_000));
        for _ in 0..2 {
            assert_eq!(pace.count(at("192.0.2.1"), 2, start), Ok(()));
        }
        let later = start.after(Duration::from_mins(15));
        assert_eq!(pace.count(at("192.0.2.1"), 2, later), Err(Duration::from_mins(45)));
        assert_eq!(pace.count(at("::ffff:192.0.2.1"), 2, later), Err(Duration::from_mins(45)));
        assert_eq!(pace.count(at("192.0.2.2"), 2, later), Ok(()));
        assert_eq!(pace.count(at("192.0.2.1"), 0, later), Ok(()), "0 is no limit");
        assert_eq!(pace.count(at("192.0.2.1"), 2, start.after(HOUR)), Ok(()));
        assert_eq!(pace.count(at("192.0.2.1"), 2, Millis(1)), Ok(()), "the clock was set back");
    }

    #[test]
    fn addresses_of_one_network_count_together() {
        let pace = Pace::default();
        assert_eq!(pace.count(at("2001:db8::1"), 1, Millis(1)), Ok(()));
        assert!(pace.count(at("2001:db8::ffff:2"), 1, Millis(1)).is_err());
        assert_eq!(pace.count(at("2001:db8:0:1::1"), 1, Millis(1)), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_expires() {
        let pace = Pace::default();
        let address = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from_bits(n));
        for n in 0..u32::try_from(ADDRESSES).unwrap() + 5 {
            assert_eq!(pace.count(address(n), 1, Millis(u64::from(n))), Ok(()));
        }
        assert_eq!(pace.0.lock().unwrap().len(), ADDRESSES);
        assert_eq!(pace.count(address(1 << 30), 1, Millis(0).after(HOUR * 2)), Ok(()));
        assert_eq!(pace.0.lock().unwrap().len(), 1);
    }
}
