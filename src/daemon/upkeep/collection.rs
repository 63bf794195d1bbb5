//! The passes of a collection, in their order: what makes references go comes before what asks for them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::keeper::KeeperParts;
use super::order::{Account, Order, Pass};
use crate::blobs::{BlobError, Blobs, Cursor, Sweep};
use crate::changes::TaskFailure;
use crate::names::{Clock, Digest, RepoName};
use crate::registry::Registry;
use crate::state::State;
use crate::{repos, store};

/// Every pass, in order. Retention of repositories stands first: what it lets go of is idle from then on.
pub(super) fn passes(parts: &KeeperParts) -> Vec<Arc<dyn Pass>> {
    let mut passes: Vec<Arc<dyn Pass>> = parts.before_collection.clone();
    passes.push(Arc::new(Replays { state: parts.state.clone(), clock: Arc::clone(&parts.clock) }));
    passes.push(Arc::new(Holdings { state: parts.state.clone(), clock: Arc::clone(&parts.clock) }));
    passes.push(Arc::new(Bytes { blobs: parts.blobs.clone() }));
    passes
}

/// The retention rules of repositories.
pub(in crate::daemon) struct Retention(pub(in crate::daemon) Registry);

impl Pass for Retention {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn step<'a>(
        &'a self,
        from: Option<String>,
        order: &'a Order,
        account: &'a mut Account,
    ) -> BoxFuture<'a, Result<Option<String>, TaskFailure>> {
        Box::pin(async move {
            if order.dry_run {
                if from.is_none() {
                    account.count("removals_unfinished", self.0.unfinished_removals().await?);
                }
                let (found, lines, next) = self.0.retention_survey(from).await?;
                account.note("images_judged", found.images);
                account.count("tags", found.tags);
                account.count("manifests", found.manifests);
                account.omitted += (found.tags + found.manifests).saturating_sub(lines.len() as u64);
                for line in lines {
                    account.tell(line);
                }
                return Ok(next);
            }
            let (found, next) = self.0.retention_page(from).await?;
            account.note("images_judged", found.images);
            account.count("tags", found.tags);
            account.count("manifests", found.manifests);
            Ok(next)
        })
    }
}

/// Idempotency keys that ran out.
struct Replays {
    state: State,
    clock: Arc<dyn Clock>,
}

impl Pass for Replays {
    fn name(&self) -> &'static str {
        "replays"
    }

    fn step<'a>(
        &'a self,
        from: Option<String>,
        order: &'a Order,
        account: &'a mut Account,
    ) -> BoxFuture<'a, Result<Option<String>, TaskFailure>> {
        Box::pin(async move {
            let (now, act) = (self.clock.now(), !order.dry_run);
            let after: Option<(String, String)> = from.and_then(|text| serde_json::from_str(&text).ok());
            let (next, expired) =
                self.state.write(move |tx| store::expire_replays(tx, now, after.as_ref(), act)).await?;
            account.count("idempotency_keys", expired);
            Ok(next.and_then(|key| serde_json::to_string(&key).ok()))
        })
    }
}

/// Blobs that a repository holds and none of its manifests keeps.
struct Holdings {
    state: State,
    clock: Arc<dyn Clock>,
}

impl Pass for Holdings {
    fn name(&self) -> &'static str {
        "holdings"
    }

    fn step<'a>(
        &'a self,
        from: Option<String>,
        order: &'a Order,
        account: &'a mut Account,
    ) -> BoxFuture<'a, Result<Option<String>, TaskFailure>> {
        Box::pin(async move {
            let after = from.as_deref().and_then(parse_holding);
            let (now, grace, act) = (self.clock.now(), Duration::from_millis(order.grace_ms), !order.dry_run);
            let idle = self.state.write(move |tx| repos::let_go(tx, now, after.as_ref(), grace, act)).await?;
            account.seen += idle.seen;
            account.count("holdings", idle.let_go.len() as u64);
            for (repo, name) in idle.let_go {
                account.tell(format!("{repo} lets go of {name}: no manifest there keeps it"));
            }
            Ok(idle.next.map(|(repo, name)| format!("{repo} {name}")))
        })
    }
}

fn parse_holding(text: &str) -> Option<(RepoName, Digest)> {
    let (repo, name) = text.split_once(' ')?;
    Some((RepoName::parse(repo).ok()?, Digest::parse(name).ok()?))
}

/// Bytes that nobody refers to, files that no record names, and uploads that nobody goes on with.
struct Bytes {
    blobs: Blobs,
}

impl Pass for Bytes {
    fn name(&self) -> &'static str {
        "bytes"
    }

    fn step<'a>(
        &'a self,
        from: Option<String>,
        order: &'a Order,
        account: &'a mut Account,
    ) -> BoxFuture<'a, Result<Option<String>, TaskFailure>> {
        Box::pin(async move {
            let cursor = from.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            let sweep = Sweep { grace_ms: order.grace_ms, dry_run: order.dry_run };
            let (next, found) = self.blobs.collect(cursor, sweep).await.map_err(|error| failure(&error))?;
            account.seen += found.seen;
            account.count("blobs", found.blobs);
            account.note("blob_bytes", found.blob_bytes);
            account.count("files", found.files);
            account.note("file_bytes", found.file_bytes);
            account.count("uploads", found.uploads);
            account.note("upload_bytes", found.upload_bytes);
            account.note("spared", found.spared);
            account.note("strangers", found.strangers);
            Ok((next != Cursor::End).then(|| serde_json::to_string(&next).unwrap_or_default()))
        })
    }
}

/// The failure of a pass that met this error: a disk may recover, so it is tried again.
pub(super) fn failure(error: &BlobError) -> TaskFailure {
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
