//! The passes, a file each, and what several of them do alike.

mod bytes;
mod contents;
mod holdings;
mod records;
mod references;
mod replays;
mod retention;
mod rows;

pub(super) use bytes::Bytes;
pub(super) use contents::Contents;
pub(super) use holdings::Holdings;
pub(super) use records::Records;
pub(super) use references::References;
pub(super) use replays::Replays;
pub(super) use retention::Retention;
pub(super) use rows::Rows;

use super::order::{Account, Order};
use crate::blobs::{BlobError, Mended};
use crate::changes::TaskFailure;

/// Counts and tells what was mended, and gives where the page ended.
fn told(mended: Mended, order: &Order, account: &mut Account) -> Option<String> {
    account.seen += mended.seen;
    for flaw in mended.flaws {
        account.count(&flaw.class, 1);
        let mode = if order.dry_run { "would be mended" } else { "mended" };
        account.tell(format!("{}: {} ({mode}: {})", flaw.class, flaw.subject, flaw.remedy));
    }
    mended.next
}

/// The failure of a pass that met this error: a disk may recover, so it is tried again.
fn failure(error: &BlobError) -> TaskFailure {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(next) = source {
        text.push_str(": ");
        text.push_str(&next.to_string());
        source = next.source();
    }
    let failure = TaskFailure::new(error.code(), text).retryable();
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}
