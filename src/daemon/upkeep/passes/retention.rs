//! The retention rules of repositories.

use crate::daemon::upkeep::keeper::KeeperParts;
use crate::daemon::upkeep::order::{Account, Order};
use crate::daemon::upkeep::pass::{Next, Pass};
use crate::registry::Registry;

/// Lets go of what the rules of the repositories do not keep.
pub(in crate::daemon::upkeep) struct Retention {
    registry: Registry,
}

impl Retention {
    pub(in crate::daemon::upkeep) fn new(parts: &KeeperParts) -> Self {
        Self { registry: parts.registry.clone() }
    }
}

impl Pass for Retention {
    const NAME: &'static str = "retention";

    async fn step(&self, from: Option<String>, order: &Order, account: &mut Account) -> Next {
        if order.dry_run {
            if from.is_none() {
                account.count("removals_unfinished", self.registry.unfinished_removals().await?);
            }
            let (found, lines, next) = self.registry.retention_survey(from).await?;
            account.note("images_judged", found.images);
            account.count("tags", found.tags);
            account.count("manifests", found.manifests);
            account.omitted += (found.tags + found.manifests).saturating_sub(lines.len() as u64);
            for line in lines {
                account.tell(line);
            }
            return Ok(next);
        }
        let (found, next) = self.registry.retention_page(from).await?;
        account.note("images_judged", found.images);
        account.count("tags", found.tags);
        account.count("manifests", found.manifests);
        Ok(next)
    }
}
