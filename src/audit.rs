//! The append-only, hash-chained log of who did what, to what, with which outcome, and why.
//!
//! An act calls [`append`] in its own transaction, so there is never an act without its entry, nor an entry without
//! its act. [`verify`] reads the whole log, a bounded page at a time.
//!
//! This part must never change or remove an entry, and must never be given secrets: what is appended stays.
//!
//! Invariants:
//! - Sequences start at 1 and have no gaps.
//! - An entry's hash is SHA-256 over its sequence, instant, event and the hash of the entry before it.
//! - The head record names the last entry, so that a log whose end was cut off is found too.
//!
//! *Limits*: who can write the state file can also compute a new chain and a new head. The chain shows accidents and
//! edits by hand; against an owner of the machine it helps only who keeps a hash elsewhere.

mod chain;
mod log;
#[cfg(test)]
mod tests;

pub use chain::{Entry, Event};
pub use log::{Verdict, append, list, verify};
