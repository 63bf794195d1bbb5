//! Passwords that were found to fit a short while ago, so that not each request costs a computation of argon2.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::names::{Millis, Random};

/// So long a password is taken for right without another look.
const LIFETIME: Duration = Duration::from_mins(5);
/// So many are remembered.
const CAP: usize = 10_000;

/// What stands for a login: nothing of the password can be got back from it without the key, which is in memory alone.
pub(super) type Mark = [u8; 32];

/// What was found to fit, and until when that counts.
pub(super) struct Remembered {
    key: [u8; 32],
    marks: Mutex<HashMap<Mark, Millis>>,
}

impl Remembered {
    pub(super) fn new(random: &dyn Random) -> Self {
        let mut key = [0; 32];
        random.fill(&mut key);
        Self { key, marks: Mutex::default() }
    }

    /// The mark of a login. The generation is another after a change of the password, which makes the mark useless.
    pub(super) fn mark(&self, name: &str, generation: u64, password: &str) -> Mark {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("invariant: HMAC takes a key of any length");
        mac.update(&generation.to_be_bytes());
        mac.update(&(name.len() as u64).to_be_bytes());
        mac.update(name.as_bytes());
        mac.update(password.as_bytes());
        mac.finalize().into_bytes().into()
    }

    pub(super) fn knows(&self, mark: &Mark, now: Millis) -> bool {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).get(mark).is_some_and(|until| now < *until)
    }

    pub(super) fn remember(&self, mark: Mark, now: Millis) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() >= CAP {
            marks.retain(|_, until| now < *until);
        }
        if marks.len() >= CAP {
            marks.clear();
        }
        marks.insert(mark, now.after(LIFETIME));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::SeededRandom;

    #[test]
    fn a_mark_counts_for_minutes_and_for_one_login() {
        let remembered = Remembered::new(&SeededRandom::new(1));
        let mark = remembered.mark("ann", 1, "secret");
        remembered.remember(mark, Millis(1000));
        assert!(remembered.knows(&mark, Millis(1000)) && remembered.knows(&mark, Millis(300_999)));
        assert!(!remembered.knows(&mark, Millis(301_000)));
        for other in [
            remembered.mark("ann", 2, "secret"),
            remembered.mark("an", 1, "nsecret"),
            remembered.mark("ann", 1, "secre"),
            Remembered::new(&SeededRandom::new(2)).mark("ann", 1, "secret"),
        ] {
            assert!(other != mark && !remembered.knows(&other, Millis(1000)));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let remembered = Remembered::new(&SeededRandom::new(1));
        for one in 0..(CAP as u64 + 5) {
            remembered.remember(remembered.mark("ann", one, ""), Millis(0));
        }
        assert!(remembered.marks.lock().is_ok_and(|marks| marks.len() <= CAP));
    }
}
