//! Who relies on the file of a digest at this moment, and who is about to take it away.
//!
//! A writer that finds the file of its digest already there keeps that file and names it later, in a transaction of its
//! own. Between the two nothing in the records says that the file is wanted; a pin does. Whoever takes a file away
//! seizes its digest first, which fails while there is a pin, and makes new pins wait until the file is gone.
//!
//! One process has the root to itself, so memory is enough: a crash ends every pin together with what was not yet
//! named.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::names::Digest;

/// The digests that somebody relies on or has seized.
#[derive(Debug, Default)]
pub(super) struct Pins {
    uses: Mutex<HashMap<Digest, Use>>,
    changed: Condvar,
}

#[derive(Debug)]
enum Use {
    Pinned(usize),
    Seized,
}

impl Pins {
    fn uses(&self) -> MutexGuard<'_, HashMap<Digest, Use>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Relies on the file of the digest until the pin is dropped; waits while it is being taken away. Blocking.
    pub(super) fn pin(self: &Arc<Self>, digest: &Digest) -> Pin {
        let mut uses = self.uses();
        loop {
            match uses.get_mut(digest) {
                None => {
                    uses.insert(digest.clone(), Use::Pinned(1));
                    break;
                }
                Some(Use::Pinned(count)) => {
                    *count += 1;
                    break;
                }
                Some(Use::Seized) => {
                    uses = self.changed.wait(uses).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        Pin { pins: Arc::clone(self), digest: digest.clone() }
    }

    /// Takes the digest for itself; `None` while anybody relies on it.
    pub(super) fn seize(self: &Arc<Self>, digest: &Digest) -> Option<Seized> {
        let mut uses = self.uses();
        if uses.contains_key(digest) {
            return None;
        }
        uses.insert(digest.clone(), Use::Seized);
        Some(Seized { pins: Arc::clone(self), digest: digest.clone() })
    }

    /// As [`Pins::seize`], waiting for so long. Blocking.
    pub(super) fn seize_within(self: &Arc<Self>, digest: &Digest, patience: Duration) -> Option<Seized> {
        let until = Instant::now() + patience;
        loop {
            if let Some(seized) = self.seize(digest) {
                return Some(seized);
            }
            let left = until.checked_duration_since(Instant::now())?;
            let uses = self.uses();
            if uses.contains_key(digest) {
                drop(self.changed.wait_timeout(uses, left).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    fn end(&self, digest: &Digest) {
        let mut uses = self.uses();
        match uses.get_mut(digest) {
            Some(Use::Pinned(count)) if *count > 1 => *count -= 1,
            _ => {
                uses.remove(digest);
                drop(uses);
                self.changed.notify_all();
            }
        }
    }
}

/// Somebody relies on the file of a digest.
#[derive(Debug)]
pub(super) struct Pin {
    pins: Arc<Pins>,
    digest: Digest,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.end(&self.digest);
    }
}

/// A digest whose file may be taken away: nobody relies on it, and nobody begins to.
#[derive(Debug)]
pub(super) struct Seized {
    pins: Arc<Pins>,
    digest: Digest,
}

impl Seized {
    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl Drop for Seized {
    fn drop(&mut self) {
        self.pins.end(&self.digest);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_keeps_others_from_seizing_and_a_seizure_makes_pins_wait() {
        let pins = Arc::new(Pins::default());
        let digest = Digest::of(b"x");
        let (first, second) = (pins.pin(&digest), pins.pin(&digest));
        assert!(pins.seize(&digest).is_none());
        drop(first);
        assert!(pins.seize(&digest).is_none(), "the second one still relies on it");
        assert!(pins.seize(&Digest::of(b"y")).is_some(), "others are free");
        drop(second);
        let seized = pins.seize(&digest).unwrap();
        assert!(pins.seize(&digest).is_none());
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn({
            let (pins, digest) = (Arc::clone(&pins), digest.clone());
            move || {
                sender.send("waits").unwrap();
                let pin = pins.pin(&digest);
                sender.send("has it").unwrap();
                pin
            }
        });
        assert_eq!(receiver.recv().unwrap(), "waits");
        assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err(), "it waits for the seizure's end");
        drop(seized);
        assert_eq!(receiver.recv().unwrap(), "has it");
        let pin = waiter.join().unwrap();
        assert!(pins.seize_within(&digest, Duration::from_millis(5)).is_none());
        let ending = std::thread::spawn(move || drop(pin));
        assert!(pins.seize_within(&digest, Duration::from_secs(20)).is_some());
        ending.join().unwrap();
        assert!(pins.uses().is_empty(), "nothing stays behind");
    }
}
