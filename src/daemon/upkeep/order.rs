//! What is ordered, what a pass is, and how it accounts for what it did.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::changes::TaskFailure;

/// So many lines tell what was done and why; the others are counted.
const LINES: usize = 100;

/// What a change of this kind is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::daemon) struct Order {
    /// Only look, and tell what would be done.
    pub(in crate::daemon) dry_run: bool,
    /// How long nobody must have wanted something, in milliseconds.
    pub(in crate::daemon) grace_ms: u64,
    /// The pace of reading.
    pub(in crate::daemon) bytes_per_second: Option<u64>,
}

/// What was counted, and what there is to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::daemon) struct Account {
    /// Figures by name.
    pub(in crate::daemon) counts: BTreeMap<String, u64>,
    /// What was done, or would be, and why; the first ones.
    pub(in crate::daemon) lines: Vec<String>,
    /// How many more there were.
    pub(in crate::daemon) omitted: u64,
    /// How many things were done, or would be.
    pub(in crate::daemon) done: u64,
    /// How many rows, files or bytes were looked at, for the progress.
    pub(in crate::daemon) seen: u64,
}

impl Account {
    /// Counts something that was looked at or left alone.
    pub(in crate::daemon) fn note(&mut self, name: &str, number: u64) {
        if number > 0 {
            *self.counts.entry(name.to_owned()).or_default() += number;
        }
    }

    /// Counts something that was done.
    pub(in crate::daemon) fn count(&mut self, name: &str, number: u64) {
        self.note(name, number);
        self.done += number;
    }

    /// Tells what was done, or would be.
    pub(in crate::daemon) fn tell(&mut self, line: String) {
        if self.lines.len() < LINES {
            self.lines.push(line);
        } else {
            self.omitted += 1;
        }
    }
}

/// One kind of upkeep: goes through some rows or files, a page a call.
pub(in crate::daemon) trait Pass: Send + Sync {
    /// Its name, which a saved place is found by; stays the same over upgrades.
    fn name(&self) -> &'static str;

    /// Does the next page from where the last call ended, and gives where that is; `None` at the end. May run twice for
    /// the same page.
    fn step<'a>(
        &'a self,
        from: Option<String>,
        order: &'a Order,
        account: &'a mut Account,
    ) -> BoxFuture<'a, Result<Option<String>, TaskFailure>>;
}
