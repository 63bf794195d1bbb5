//! Events, entries, and the bytes over which an entry's hash is taken.

use serde::{Deserialize, Serialize};

use crate::names::{Digest, Millis};
use crate::state::record;

/// The longest text in an event, in bytes: a text from outside must not make the act itself too large to record,
/// even if all of it has to be escaped.
const LONGEST_TEXT: usize = 1024;

/// Begins the bytes that are hashed, so that they can be mistaken for nothing else; changes with their form.
const DOMAIN: &[u8] = b"pantry audit entry 1\n";

/// Who did what to what, with which outcome, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The principal that acted.
    pub who: String,
    /// What was done, e.g. `store.publish`.
    pub action: String,
    /// What it was done to.
    pub subject: String,
    /// How it ended, e.g. `ok` or a stable error code.
    pub outcome: String,
    /// The reason that was given or found.
    pub why: String,
}

impl Event {
    /// The same event with every text cut to the limit; a cut text ends in `…`.
    pub(super) fn bounded(&self) -> Self {
        Self {
            who: cut(&self.who),
            action: cut(&self.action),
            subject: cut(&self.subject),
            outcome: cut(&self.outcome),
            why: cut(&self.why),
        }
    }
}

fn cut(text: &str) -> String {
    if text.len() <= LONGEST_TEXT {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(LONGEST_TEXT)])
}

/// One event of the log, with its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, from 1, without gaps.
    pub sequence: u64,
    /// When it was appended.
    pub at: Millis,
    /// What happened.
    pub event: Event,
    /// The hash of the entry before it; for the first one [`genesis`].
    pub previous: String,
    /// Its own hash.
    pub hash: String,
}
record!(Entry, 1);

impl Entry {
    pub(super) fn chained(sequence: u64, at: Millis, event: Event, previous: String) -> Self {
        let hash = hash(sequence, at, &event, &previous);
        Self { sequence, at, event, previous, hash }
    }

    /// Whether the entry is what was appended as number `sequence` after an entry with the hash `previous`.
    pub(super) fn follows(&self, sequence: u64, previous: &str) -> bool {
        self.sequence == sequence
            && self.previous == previous
            && self.hash == hash(sequence, self.at, &self.event, previous)
    }
}

/// The end of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) sequence: u64,
    pub(super) hash: String,
}
record!(Head, 1);

/// What the first entry has in place of the hash of an entry before it.
pub(super) fn genesis() -> String {
    Digest::of(DOMAIN).to_string()
}

/// The hash over the canonical bytes: numbers as 8 bytes big-endian, texts with their length in front, so that no
/// two different entries have the same bytes.
fn hash(sequence: u64, at: Millis, event: &Event, previous: &str) -> String {
    let mut bytes = DOMAIN.to_vec();
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(at.0.to_be_bytes());
    for text in [&event.who, &event.action, &event.subject, &event.outcome, &event.why, previous] {
        bytes.extend((text.len() as u64).to_be_bytes());
        bytes.extend(text.as_bytes());
    }
    Digest::of(&bytes).to_string()
}
