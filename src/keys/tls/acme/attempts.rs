//! When an authority is asked: what has failed so far, kept over restarts so that it is never asked in a hurry.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::AcmeConfig;
use crate::keys::KeyError;
use crate::keys::tls::files;
use crate::names::{Digest, Millis, Random};

const FILE: &str = "acme-attempts.json";

/// The wait after a first failure; each further one doubles it.
const FIRST: Duration = Duration::from_mins(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_hours(24);
/// The least wait where the authority says that it is asked too often.
const LIMITED: Duration = Duration::from_hours(1);

/// What was tried since the last certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempts {
    /// The settings that it was tried with; with others it may go better.
    settings: String,
    /// Attempts that failed, or that nobody saw the end of.
    pub(super) failures: u32,
    /// The authority is not asked before.
    pub(super) not_before: Millis,
    /// Why the last one failed.
    pub(super) last_error: Option<String>,
    #[serde(skip)]
    path: PathBuf,
}

impl Attempts {
    /// Reads what is kept; nothing where it is of other settings or can't be read.
    pub(super) fn open(keys_dir: &Path, asked: &AcmeConfig) -> Self {
        let path = keys_dir.join(FILE);
        let settings = Digest::of(format!("{asked:?}").as_bytes()).hex().to_owned();
        let kept = files::read(&path).ok().and_then(|text| serde_json::from_slice::<Self>(&text).ok());
        let kept = kept.filter(|kept| kept.settings == settings).unwrap_or_default();
        Self { settings, path, ..kept }
    }

    /// Counts an attempt as failed before it begins, so that one that is cut off is not begun again at once.
    pub(super) fn begin(&mut self, now: Millis, random: &dyn Random) -> Result<(), KeyError> {
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.after(wait(self.failures, random));
        self.keep()
    }

    /// Tells why it failed.
    pub(super) fn failed(&mut self, now: Millis, why: String, rate_limited: bool) -> Result<(), KeyError> {
        self.last_error = Some(why);
        if rate_limited {
            self.not_before = self.not_before.max(now.after(LIMITED));
        }
        self.keep()
    }

    /// Forgets all failures.
    pub(super) fn succeeded(&mut self) -> Result<(), KeyError> {
        (self.failures, self.not_before, self.last_error) = (0, Millis(0), None);
        self.keep()
    }

    /// Lets the next attempt begin at once.
    pub(super) fn hurry(&mut self) {
        self.not_before = Millis(0);
    }

    fn keep(&self) -> Result<(), KeyError> {
        let text = serde_json::to_vec(self).expect("invariant: numbers and texts can be written as JSON");
        files::put(&self.path, &text, 0o600)
    }
}

/// So long after so many failures: up to a quarter longer than the doubled time, so that servers that failed together
/// do not come back together.
fn wait(failures: u32, random: &dyn Random) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let doubled = doubled.min(LONGEST);
    let mut byte = [0_u8; 1];
    random.fill(&mut byte);
    (doubled + doubled / 4 * u32::from(byte[0]) / 255).min(LONGEST)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::names::SeededRandom;

    fn asked(name: &str) -> AcmeConfig {
        AcmeConfig { names: vec![name.to_owned()], ..AcmeConfig::default() }
    }

    #[test]
    fn waits_double_from_a_minute_to_a_day_and_are_never_the_same_for_all() {
        let waits: Vec<Duration> = (1..40).map(|failures| wait(failures, &SeededRandom::new(1))).collect();
        for (index, wait) in waits.iter().enumerate() {
            let least = FIRST.saturating_mul(1 << index.min(20)).min(LONGEST);
            assert!(*wait >= least && *wait <= (least + least / 4).min(LONGEST), "{index}: {wait:?}");
        }
        assert_eq!(waits.last(), Some(&LONGEST));
        assert_eq!(wait(u32::MAX, &SeededRandom::new(1)), LONGEST);
        let random = SeededRandom::new(2);
        assert_ne!(wait(3, &random), wait(3, &random));
    }

    #[test]
    fn what_failed_is_known_after_a_restart_and_forgotten_with_other_settings() {
        let folder = tempfile::tempdir().unwrap();
        let (now, random) = (Millis(1_000_000), SeededRandom::new(1));
        let mut attempts = Attempts::open(folder.path(), &asked("a.example"));
        assert_eq!((attempts.failures, attempts.not_before), (0, Millis(0)));
        attempts.begin(now, &random).unwrap();
        let cut_off = Attempts::open(folder.path(), &asked("a.example"));
        assert_eq!(cut_off, attempts, "one that is cut off counts");
        assert!(cut_off.not_before >= now.after(FIRST));
        attempts.failed(now, "no".to_owned(), true).unwrap();
        let again = Attempts::open(folder.path(), &asked("a.example"));
        assert_eq!((again.last_error.as_deref(), again.not_before), (Some("no"), now.after(LIMITED)));
        assert_eq!(Attempts::open(folder.path(), &asked("b.example")).failures, 0);
        attempts.succeeded().unwrap();
        assert_eq!(Attempts::open(folder.path(), &asked("a.example")).failures, 0);
        fs_err::write(folder.path().join(FILE), "{").unwrap();
        assert_eq!(Attempts::open(folder.path(), &asked("a.example")).failures, 0);
    }
}
