//! The kinds of work: what each is as a change, and which passes it goes through.

use std::sync::Arc;

use super::keeper::KeeperParts;
use super::order::Order;
use super::pass::AnyPass;
use super::passes::{Bytes, Contents, Holdings, Records, References, Replays, Retention, Rows};
use crate::server::UpkeepWork;

/// A kind of work.
pub(super) struct Kind {
    /// The kind of the change.
    pub(super) change: &'static str,
    /// The kind of its one task.
    pub(super) task: &'static str,
    /// What it goes through, in order.
    pub(super) passes: fn(&KeeperParts) -> Passes,
}

type Passes = Vec<Arc<dyn AnyPass>>;

/// Takes away what nobody refers to.
pub(super) const COLLECTION: Kind =
    Kind { change: "collection", task: "collection.run", passes: of_collection };
const VERIFICATION: Kind = Kind {
    change: "verification",
    task: "verification.run",
    passes: |parts| vec![Arc::new(Contents::new(parts))],
};
const REPAIR: Kind = Kind { change: "repair", task: "repair.run", passes: of_repair };

/// Every kind.
pub(super) const KINDS: [Kind; 3] = [COLLECTION, VERIFICATION, REPAIR];

/// What makes references go comes before what asks for them. Retention stands first: what it lets go of is idle from
/// then on.
fn of_collection(parts: &KeeperParts) -> Passes {
    vec![
        Arc::new(Retention::new(parts)),
        Arc::new(Replays::new(parts)),
        Arc::new(Holdings::new(parts)),
        Arc::new(Bytes::new(parts)),
    ]
}

/// Rows against rows, references against owners, records against files: references are written before they are looked
/// at from the other side.
fn of_repair(parts: &KeeperParts) -> Passes {
    vec![Arc::new(Rows::new(parts)), Arc::new(References::new(parts)), Arc::new(Records::new(parts))]
}

/// What is asked for: its kind, what people are told of it, and the order; `grace_ms` counts where nothing else is said.
pub(super) fn asked(work: UpkeepWork, grace_ms: u64) -> (Kind, &'static str, Order) {
    let order = Order { dry_run: false, grace_ms, bytes_per_second: None };
    match work {
        UpkeepWork::Collection { dry_run, grace_ms: own } => {
            let summary =
                if dry_run { "Look for what could be collected" } else { "Collect what nobody refers to" };
            (COLLECTION, summary, Order { dry_run, grace_ms: own.unwrap_or(grace_ms), ..order })
        }
        UpkeepWork::Verification { bytes_per_second } => {
            (VERIFICATION, "Verify every blob", Order { bytes_per_second, ..order })
        }
        UpkeepWork::Repair { dry_run } => {
            let summary = if dry_run { "Look for what does not fit together" } else { "Repair the records" };
            (REPAIR, summary, Order { dry_run, ..order })
        }
    }
}
