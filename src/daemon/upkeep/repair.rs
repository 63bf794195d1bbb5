//! The passes of a repair: rows against rows, references against owners, records against files.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::collection::failure;
use super::keeper::KeeperParts;
use super::order::{Account, Order, Pass};
use crate::blobs::{self, Blobs, Mended, OwnerView};
use crate::changes::TaskFailure;
use crate::names::{Clock, Digest};
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

/// Every pass, in order: references are written before they are looked at from the other side.
pub(super) fn passes(parts: &KeeperParts) -> Vec<Arc<dyn Pass>> {
    vec![
        Arc::new(Rows { state: parts.state.clone() }),
        Arc::new(References { state: parts.state.clone(), clock: Arc::clone(&parts.clock) }),
        Arc::new(Records { blobs: parts.blobs.clone() }),
    ]
}

fn told(mended: Mended, order: &Order, account: &mut Account) -> Option<String> {
    account.seen += mended.seen;
    for flaw in mended.flaws {
        account.count(&flaw.class, 1);
        let mode = if order.dry_run { "would be mended" } else { "mended" };
        account.tell(format!("{}: {} ({mode}: {})", flaw.class, flaw.subject, flaw.remedy));
    }
    mended.next
}

/// What repositories hold.
struct Rows {
    state: State,
}

impl Pass for Rows {
    fn name(&self) -> &'static str {
        "rows"
    }

    fn step<'a>(
        &'a self,
        from: Option<String>,
        order: &'a Order,
        account: &'a mut Account,
    ) -> BoxFuture<'a, Result<Option<String>, TaskFailure>> {
        Box::pin(async move {
            let act = !order.dry_run;
            let mended = self.state.write(move |tx| repos::mend(tx, from.as_deref(), act)).await?;
            Ok(told(mended, order, account))
        })
    }
}

/// References whose owner is gone.
struct References {
    state: State,
    clock: Arc<dyn Clock>,
}

impl Pass for References {
    fn name(&self) -> &'static str {
        "references"
    }

    fn step<'a>(
        &'a self,
        from: Option<String>,
        order: &'a Order,
        account: &'a mut Account,
    ) -> BoxFuture<'a, Result<Option<String>, TaskFailure>> {
        Box::pin(async move {
            let (act, now) = (!order.dry_run, self.clock.now());
            let mended = self
                .state
                .write(move |tx| blobs::mend_references(tx, from.as_deref(), &OWNERS, act, now))
                .await?;
            Ok(told(mended, order, account))
        })
    }
}

/// Blobs and their bytes.
struct Records {
    blobs: Blobs,
}

impl Pass for Records {
    fn name(&self) -> &'static str {
        "records"
    }

    fn step<'a>(
        &'a self,
        from: Option<String>,
        order: &'a Order,
        account: &'a mut Account,
    ) -> BoxFuture<'a, Result<Option<String>, TaskFailure>> {
        Box::pin(async move {
            let after = from.and_then(|text| Digest::parse(&text).ok());
            let mended = self.blobs.mend(after, !order.dry_run).await.map_err(|error| failure(&error))?;
            Ok(told(mended, order, account))
        })
    }
}
