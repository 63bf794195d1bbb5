//! Blobs and their bytes, record against file.

use super::{failure, told};
use crate::blobs::Blobs;
use crate::daemon::upkeep::keeper::KeeperParts;
use crate::daemon::upkeep::order::{Account, Order};
use crate::daemon::upkeep::pass::{Next, Pass};
use crate::names::Digest;

/// Brings the records of blobs and their files together.
pub(in crate::daemon::upkeep) struct Records {
    blobs: Blobs,
}

impl Records {
    pub(in crate::daemon::upkeep) fn new(parts: &KeeperParts) -> Self {
        Self { blobs: parts.blobs.clone() }
    }
}

impl Pass for Records {
    const NAME: &'static str = "records";

    async fn step(&self, from: Option<String>, order: &Order, account: &mut Account) -> Next {
        let after = from.and_then(|text| Digest::parse(&text).ok());
        let mended = self.blobs.mend(after, !order.dry_run).await.map_err(|error| failure(&error))?;
        Ok(told(mended, order, account))
    }
}
