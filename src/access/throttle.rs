//! How often somebody may be wrong: of one name from one address, and of one address.
//!
//! Each key has a time at which its account is even. A failure moves it on by a step; who is too far ahead of the
//! present waits. One number a key, and nothing to tidy up but what is even again.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::names::Millis;

/// One name from one address: 8 failures, then one a minute.
const PAIR: Limit = Limit { burst: 8, step_ms: 60_000 };
/// One address: 60 failures, then one in ten seconds.
const ADDRESS: Limit = Limit { burst: 60, step_ms: 10_000 };
/// Failures in the audit log: 30 at once, then one a minute, so that they don't fill a disk.
const NOTES: Limit = Limit { burst: 30, step_ms: 60_000 };
/// So many keys of a kind are kept.
const KEYS_CAP: usize = 20_000;
/// The first failure is answered after this, each further one after twice the time, up to the longest.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// Of a longer name only the beginning counts.
const NAME_CAP: usize = 64;

struct Limit {
    burst: u64,
    step_ms: u64,
}

impl Limit {
    /// One more from `even` on; refused with the time to wait.
    fn take(&self, even: &mut u64, now: Millis) -> Result<(), Duration> {
        let ahead = even.saturating_sub(now.0);
        let most = (self.burst - 1) * self.step_ms;
        if ahead > most {
            return Err(Duration::from_millis(ahead - most));
        }
        *even = now.0 + ahead + self.step_ms;
        Ok(())
    }

    /// How many are not forgiven yet.
    fn level(&self, even: u64, now: Millis) -> u64 {
        even.saturating_sub(now.0).div_ceil(self.step_ms)
    }
}

/// Where failures come from: an IPv4 address, or the network of an IPv6 one.
type Address = IpAddr;

/// Failures that count.
#[derive(Default)]
pub(super) struct Throttle {
    pairs: HashMap<(Address, String), u64>,
    addresses: HashMap<Address, u64>,
    noted: u64,
    unnoted: u64,
}

/// An attempt, which counts as a failure until it is known to be none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    address: Address,
    name: String,
    /// When it is answered if it fails, counted from its beginning.
    pub(super) delay: Duration,
}

impl Throttle {
    /// Counts an attempt.
    ///
    /// # Errors
    /// The time to wait, when there were too many.
    pub(super) fn begin(
        &mut self,
        now: Millis,
        from: Option<IpAddr>,
        name: &str,
    ) -> Result<Attempt, Duration> {
        let address = network(from);
        let name: String = name.chars().take(NAME_CAP).collect();
        let key = (address, name);
        make_room(&mut self.addresses, &address, now);
        make_room(&mut self.pairs, &key, now);
        let (of_all, of_one) =
            (self.addresses.entry(address).or_default(), *self.pairs.get(&key).unwrap_or(&0));
        // Asked before anything is counted, so that a refused attempt costs nothing.
        let mut next = of_one;
        PAIR.take(&mut next, now)?;
        ADDRESS.take(of_all, now)?;
        let level = u32::try_from(PAIR.level(next, now).saturating_sub(1)).unwrap_or(u32::MAX).min(16);
        let delay = FIRST_DELAY.saturating_mul(1 << level).min(LONGEST_DELAY);
        let (address, name) = key.clone();
        self.pairs.insert(key, next);
        Ok(Attempt { address, name, delay })
    }

    /// The attempt was none: what the name had is forgotten, and the address is where it was.
    pub(super) fn succeeded(&mut self, attempt: &Attempt) {
        self.pairs.remove(&(attempt.address, attempt.name.clone()));
        self.give_back(attempt);
    }

    /// The attempt was not decided.
    pub(super) fn undecided(&mut self, attempt: &Attempt) {
        if let Some(even) = self.pairs.get_mut(&(attempt.address, attempt.name.clone())) {
            *even = even.saturating_sub(PAIR.step_ms);
        }
        self.give_back(attempt);
    }

    fn give_back(&mut self, attempt: &Attempt) {
        if let Some(even) = self.addresses.get_mut(&attempt.address) {
            *even = even.saturating_sub(ADDRESS.step_ms);
        }
    }

    /// Whether a failure is to be written down, and how many before it were not.
    pub(super) fn note(&mut self, now: Millis) -> Option<u64> {
        if NOTES.take(&mut self.noted, now).is_err() {
            self.unnoted += 1;
            return None;
        }
        Some(std::mem::take(&mut self.unnoted))
    }
}

/// Forgets who is even when there is no place for one more; and if all are not, the one nearest to it.
fn make_room<K: Hash + Eq + Clone>(kept: &mut HashMap<K, u64>, key: &K, now: Millis) {
    if kept.len() < KEYS_CAP || kept.contains_key(key) {
        return;
    }
    kept.retain(|_, even| *even > now.0);
    if kept.len() >= KEYS_CAP {
        let nearest = kept.iter().min_by_key(|(_, even)| **even).map(|(key, _)| key.clone());
        nearest.map(|nearest| kept.remove(&nearest));
    }
}

/// Whoever has one IPv6 address has 2^64 of them.
fn network(from: Option<IpAddr>) -> Address {
    match from.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)).to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const START: Millis = Millis(1_700_000_000_000);

    fn at(seconds: u64) -> Millis {
        START.after(Duration::from_secs(seconds))
    }

    fn ip(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn one_name_from_one_address_fails_eight_times_and_then_once_a_minute() {
        let mut throttle = Throttle::default();
        let delays: Vec<u128> = (0..8)
            .map(|_| throttle.begin(START, ip("192.0.2.1"), "ann").unwrap().delay.as_millis())
            .collect();
        assert_eq!(delays, [500, 1000, 2000, 2000, 2000, 2000, 2000, 2000]);
        let wait = throttle.begin(START, ip("192.0.2.1"), "ann").unwrap_err();
        assert_eq!(wait, Duration::from_mins(1));
        assert_eq!(throttle.begin(at(59), ip("192.0.2.1"), "ann"), Err(Duration::from_secs(1)));
        throttle.begin(at(60), ip("192.0.2.1"), "ann").unwrap();
        assert!(throttle.begin(at(60), ip("192.0.2.1"), "ann").is_err());
        // Others are not in the way: another name, and the name from elsewhere.
        throttle.begin(START, ip("192.0.2.1"), "bob").unwrap();
        throttle.begin(START, ip("192.0.2.2"), "ann").unwrap();
        // After a while all is forgotten.
        assert_eq!(throttle.begin(at(4000), ip("192.0.2.1"), "ann").unwrap().delay, FIRST_DELAY);
    }

    #[test]
    fn one_address_fails_sixty_times_whatever_the_names() {
        let mut throttle = Throttle::default();
        for user in 0..60 {
            throttle.begin(START, ip("2001:db8::1"), &user.to_string()).unwrap();
        }
        let wait = throttle.begin(START, ip("2001:db8::ffff:1"), "another").unwrap_err();
        assert_eq!(wait, Duration::from_secs(10), "the whole network counts as one");
        throttle.begin(START, ip("2001:db8:0:1::1"), "another").unwrap();
        throttle.begin(at(10), ip("2001:db8::1"), "another").unwrap();
    }

    #[test]
    fn success_forgives_the_name_and_an_undecided_attempt_counts_for_nothing() {
        let mut throttle = Throttle::default();
        let attempts: Vec<Attempt> =
            (0..8).map(|_| throttle.begin(START, ip("192.0.2.1"), "ann").unwrap()).collect();
        throttle.undecided(&attempts[0]);
        let last = throttle.begin(START, ip("192.0.2.1"), "ann").unwrap();
        assert!(throttle.begin(START, ip("192.0.2.1"), "ann").is_err());
        throttle.succeeded(&last);
        assert_eq!(throttle.begin(START, ip("192.0.2.1"), "ann").unwrap().delay, FIRST_DELAY);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut throttle = Throttle::default();
        for one in 0..u32::try_from(KEYS_CAP).unwrap() + 10 {
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + one));
            throttle.begin(START, Some(address), "ann").unwrap();
        }
        assert_eq!((throttle.pairs.len(), throttle.addresses.len()), (KEYS_CAP, KEYS_CAP));
    }

    #[test]
    fn the_audit_log_gets_few_lines_and_the_number_of_the_others() {
        let mut throttle = Throttle::default();
        assert_eq!((0..100).filter(|_| throttle.note(START).is_some()).count(), 30);
        assert_eq!(throttle.note(at(60)), Some(70));
        assert_eq!(throttle.note(at(60)), None);
    }
}
