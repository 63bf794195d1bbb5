//! Idempotency keys that ran out.

use std::sync::Arc;

use crate::daemon::upkeep::keeper::KeeperParts;
use crate::daemon::upkeep::order::{Account, Order};
use crate::daemon::upkeep::pass::{Next, Pass};
use crate::names::Clock;
use crate::state::State;
use crate::store;

/// Forgets idempotency keys that ran out.
pub(in crate::daemon::upkeep) struct Replays {
    state: State,
    clock: Arc<dyn Clock>,
}

impl Replays {
    pub(in crate::daemon::upkeep) fn new(parts: &KeeperParts) -> Self {
        Self { state: parts.state.clone(), clock: Arc::clone(&parts.clock) }
    }
}

impl Pass for Replays {
    const NAME: &'static str = "replays";

    async fn step(&self, from: Option<String>, order: &Order, account: &mut Account) -> Next {
        let (now, act) = (self.clock.now(), !order.dry_run);
        let after: Option<(String, String)> = from.and_then(|text| serde_json::from_str(&text).ok());
        let (next, expired) =
            self.state.write(move |tx| store::expire_replays(tx, now, after.as_ref(), act)).await?;
        account.count("idempotency_keys", expired);
        Ok(next.and_then(|key| serde_json::to_string(&key).ok()))
    }
}
