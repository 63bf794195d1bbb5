//! References whose owner is gone.

use std::sync::Arc;

use super::told;
use crate::blobs::{self, OwnerView};
use crate::daemon::upkeep::keeper::KeeperParts;
use crate::daemon::upkeep::order::{Account, Order};
use crate::daemon::upkeep::pass::{Next, Pass};
use crate::names::Clock;
use crate::state::State;
use crate::{changes, install, repos, store};

/// Who may refer to a blob, and how it is told whether they still do.
const OWNERS: [(&str, OwnerView); 5] = [
    ("manifest", repos::manifest_stands),
    ("repository", repos::repository_stands),
    ("change-log", changes::log_stands),
    ("submission", store::submission_stands),
    ("installed", install::installed_stands),
];

/// Takes back references whose owner is gone.
pub(in crate::daemon::upkeep) struct References {
    state: State,
    clock: Arc<dyn Clock>,
}

impl References {
    pub(in crate::daemon::upkeep) fn new(parts: &KeeperParts) -> Self {
        Self { state: parts.state.clone(), clock: Arc::clone(&parts.clock) }
    }
}

impl Pass for References {
    const NAME: &'static str = "references";

    async fn step(&self, from: Option<String>, order: &Order, account: &mut Account) -> Next {
        let (act, now) = (!order.dry_run, self.clock.now());
        let mended = self
            .state
            .write(move |tx| blobs::mend_references(tx, from.as_deref(), &OWNERS, act, now))
            .await?;
        Ok(told(mended, order, account))
    }
}
