//! What repositories hold, row against row.

use super::told;
use crate::daemon::upkeep::keeper::KeeperParts;
use crate::daemon::upkeep::order::{Account, Order};
use crate::daemon::upkeep::pass::{Next, Pass};
use crate::repos;
use crate::state::State;

/// Brings the rows of repositories together.
pub(in crate::daemon::upkeep) struct Rows {
    state: State,
}

impl Rows {
    pub(in crate::daemon::upkeep) fn new(parts: &KeeperParts) -> Self {
        Self { state: parts.state.clone() }
    }
}

impl Pass for Rows {
    const NAME: &'static str = "rows";

    async fn step(&self, from: Option<String>, order: &Order, account: &mut Account) -> Next {
        let act = !order.dry_run;
        let mended = self.state.write(move |tx| repos::mend(tx, from.as_deref(), act)).await?;
        Ok(told(mended, order, account))
    }
}
