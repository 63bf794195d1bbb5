//! Long work on what is stored, as the API begins and shows it. The daemon does it.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::changes::Conflict;
use crate::names::ChangeId;
use crate::state::StateError;

/// What is to be done with what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpkeepWork {
    /// Take away what nobody refers to.
    Collection {
        /// Only tell what would go.
        dry_run: bool,
        /// How long nobody must have wanted it, in milliseconds; that of the configuration where it is left out.
        grace_ms: Option<u64>,
    },
    /// Hash every blob again, and set aside what is damaged.
    Verification {
        /// The pace of reading.
        bytes_per_second: Option<u64>,
    },
    /// Bring records, references and files together.
    Repair {
        /// Only tell what would be done.
        dry_run: bool,
    },
}

/// What came of a run.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct UpkeepReport {
    /// The change that ran.
    pub change: String,
    /// `collection`, `verification` or `repair`.
    pub kind: String,
    /// Who asked for it; `schedule` for what came by itself.
    pub by: String,
    /// Whether it only looked.
    pub dry_run: bool,
    /// When it was complete, RFC 3339.
    pub ended_at: String,
    /// How many things were done, or would be.
    pub found: u64,
    /// Figures by name.
    pub counts: BTreeMap<String, u64>,
    /// What was found and why, the first hundred lines.
    pub lines: Vec<String>,
    /// How many more lines there were.
    pub omitted: u64,
}

/// What was collected since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpkeepFigures {
    /// Runs.
    pub collections: u64,
    /// Blobs and files that went.
    pub collected_blobs: u64,
    /// Their bytes.
    pub collected_bytes: u64,
}

/// Begins such work and tells what came of it.
pub trait Upkeep: Send + Sync {
    /// Makes the change that does it; the inner error names the one that is under way.
    ///
    /// # Errors
    /// Those of the state.
    fn begin<'a>(
        &'a self,
        work: UpkeepWork,
        by: &'a str,
    ) -> BoxFuture<'a, Result<Result<ChangeId, Conflict>, StateError>>;

    /// The report of a run that is complete; only the last ones are kept.
    ///
    /// # Errors
    /// Those of the state.
    fn report<'a>(&'a self, change: &'a ChangeId) -> BoxFuture<'a, Result<Option<UpkeepReport>, StateError>>;

    /// What was collected since the start.
    fn figures(&self) -> UpkeepFigures;
}
