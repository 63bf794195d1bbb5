//! Submissions: from an uploaded source to a published pack.
//!
//! A submission is a row, claims on its name and version, and a change whose tasks fetch, check, resolve, build,
//! dispatch, wait for the result, and publish. A rejection is a result of that change, not a failure of it.
//!
//! This part must never run foreign code or parse foreign Python in this process (only in the jail), never publish a
//! digest other than the one stored before dispatch, never read a verdict out of what a package printed, and never
//! hold claims for a submission that has ended.
//!
//! Invariants:
//! - The snapshot that was uploaded is the one that is checked, built, tested and published.
//! - A submission's claims, row and change are written in one transaction; its end and the release of its claims too.
//! - A name belongs to the first publisher, `-` and `_` counting as the same; a version is immutable.
//! - Of all results for a submission exactly one is accepted, by compare-and-set, in the transaction that signals it.
//! - An attempt is written before its dispatch; an older one ends only when a newer one's dispatch was accepted.
//! - What needs a jail waits until it is known whether foreign code may run here, and fails when it may not.
//! - A verdict is shown of what has ended; before that, and of what was cancelled, there is none.
//! - Every rejection has at least one finding of severity `error`.

mod adopt;
mod builder;
mod catalogue;
mod checks;
mod claims;
mod codes;
mod ending;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod examples;
mod finding;
mod foreign;
mod index;
mod manifest;
mod pace;
mod reach;
mod record;
mod refusal;
mod replays;
mod resolver;
mod result;
mod service;
mod submit;
mod tasks;
mod views;
mod wheels;

pub use catalogue::{PackageView, VersionView, resolve_package};
pub use codes::{ReasonCode, Severity};
pub use finding::{Finding, VerdictView};
pub use manifest::{
    Command, Component, ComponentType, MANIFEST_FILE, Manifest, TestSection,
    parse_json as parse_manifest_json, parse_yaml as parse_manifest,
};
pub use record::{SubmissionState, submission_stands};
pub use refusal::{RefusalKind, StoreRefusal};
pub use replays::{KEPT_FOR, expire_replays};
pub use service::{Store, StoreParts};
pub use submit::{Submit, Submitted};
pub use views::{ContactView, SubmissionView};
