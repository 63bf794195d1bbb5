//! Blobs that a repository holds and none of its manifests keeps.

use std::sync::Arc;
use std::time::Duration;

use crate::daemon::upkeep::keeper::KeeperParts;
use crate::daemon::upkeep::order::{Account, Order};
use crate::daemon::upkeep::pass::{Next, Pass};
use crate::names::{Clock, Digest, RepoName};
use crate::repos;
use crate::state::State;

/// Lets repositories go of blobs that none of their manifests keeps.
pub(in crate::daemon::upkeep) struct Holdings {
    state: State,
    clock: Arc<dyn Clock>,
}

impl Holdings {
    pub(in crate::daemon::upkeep) fn new(parts: &KeeperParts) -> Self {
        Self { state: parts.state.clone(), clock: Arc::clone(&parts.clock) }
    }
}

impl Pass for Holdings {
    const NAME: &'static str = "holdings";

    async fn step(&self, from: Option<String>, order: &Order, account: &mut Account) -> Next {
        let after = from.as_deref().and_then(parse_holding);
        let (now, grace, act) = (self.clock.now(), Duration::from_millis(order.grace_ms), !order.dry_run);
        let idle = self.state.write(move |tx| repos::let_go(tx, now, after.as_ref(), grace, act)).await?;
        account.seen += idle.seen;
        account.count("holdings", idle.let_go.len() as u64);
        for (repo, name) in idle.let_go {
            account.tell(format!("{repo} lets go of {name}: no manifest there keeps it"));
        }
        Ok(idle.next.map(|(repo, name)| format!("{repo} {name}")))
    }
}

fn parse_holding(text: &str) -> Option<(RepoName, Digest)> {
    let (repo, name) = text.split_once(' ')?;
    Some((RepoName::parse(repo).ok()?, Digest::parse(name).ok()?))
}
