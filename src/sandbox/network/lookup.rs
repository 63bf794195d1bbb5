//! Looks names up, with an end.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::super::cancel::Cancel;
use super::io::{Halt, wait};

/// Most look-ups of this process at a time, also those that nobody waits for any more.
pub(crate) const MOST: usize = 16;
/// Most addresses of a name that are looked at.
const MOST_ADDRESSES: usize = 32;

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// The place of a look-up, given back at its end.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let below = |taken| (taken < MOST).then_some(taken + 1);
        UNDER_WAY.fetch_update(Ordering::AcqRel, Ordering::Acquire, below).ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why there are no addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// The run ends.
    Stopped,
    /// In words.
    Because(String),
}

/// The addresses of a name, at least one, as the machine's configuration has it.
///
/// The C library's look-up can't be interrupted, so that it gets a thread of its own, which is left behind when the
/// time is over or the run ends.
pub(super) fn addresses(name: &str, until: Instant, stop: &Cancel) -> Result<Vec<IpAddr>, Unknown> {
    let because = |why: &str| Unknown::Because(why.to_owned());
    let place = Place::take().ok_or_else(|| because("too many names are being looked up"))?;
    let done = Cancel::new().map_err(|error| Unknown::Because(error.to_string()))?;
    let found = Arc::new(Mutex::new(None));
    let (theirs, ready, asked) = (Arc::clone(&found), done.clone(), name.to_owned());
    let look_up = move || {
        let addresses = (asked.as_str(), 0).to_socket_addrs();
        let addresses = addresses.map(|all| all.take(MOST_ADDRESSES).map(|one| one.ip()).collect::<Vec<_>>());
        *theirs.lock().unwrap_or_else(PoisonError::into_inner) = Some(addresses);
        ready.cancel();
        drop(place);
    };
    let thread = std::thread::Builder::new().name("jail-lookup".to_owned()).stack_size(512 * 1024);
    thread.spawn(look_up).map_err(|error| Unknown::Because(error.to_string()))?;
    let mut fds = [PollFd::new(&done, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
    match wait(&mut fds, until) {
        Ok(()) if fds[1].revents().is_empty() => {}
        Ok(()) | Err(Halt::Stopped) => return Err(Unknown::Stopped),
        Err(Halt::Late | Halt::Failed(_)) => return Err(because("the look-up took too long")),
    }
    let found = found.lock().unwrap_or_else(PoisonError::into_inner).take();
    match found {
        Some(Ok(mut addresses)) if !addresses.is_empty() => {
            let mut seen = std::collections::BTreeSet::new();
            addresses.retain(|address| seen.insert(*address));
            Ok(addresses)
        }
        Some(Err(error)) => Err(Unknown::Because(error.to_string())),
        _ => Err(because("the name has no address")),
    }
}
