//! What is ordered, and how a pass accounts for what it did.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// So many lines tell what was done and why; the others are counted.
const LINES: usize = 100;

/// What a change of this kind is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// Only look, and tell what would be done.
    pub(super) dry_run: bool,
    /// How long nobody must have wanted something, in milliseconds.
    pub(super) grace_ms: u64,
    /// The pace of reading.
    pub(super) bytes_per_second: Option<u64>,
}

/// What was counted, and what there is to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    /// Figures by name.
    pub(super) counts: BTreeMap<String, u64>,
    /// What was done, or would be, and why; the first ones.
    pub(super) lines: Vec<String>,
    /// How many more there were.
    pub(super) omitted: u64,
    /// How many things were done, or would be.
    pub(super) done: u64,
    /// How many rows, files or bytes were looked at, for the progress.
    pub(super) seen: u64,
}

impl Account {
    /// Counts something that was looked at or left alone.
    pub(super) fn note(&mut self, name: &str, number: u64) {
        if number > 0 {
            *self.counts.entry(name.to_owned()).or_default() += number;
        }
    }

    /// Counts something that was done.
    pub(super) fn count(&mut self, name: &str, number: u64) {
        self.note(name, number);
        self.done += number;
    }

    /// Tells what was done, or would be.
    pub(super) fn tell(&mut self, line: String) {
        if self.lines.len() < LINES {
            self.lines.push(line);
        } else {
            self.omitted += 1;
        }
    }
}
