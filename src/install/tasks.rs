//! The tasks of installing and removing.

mod link;
mod prepare;
mod unlink;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::blobs::Owner;
use crate::changes::{Step, Task, TaskContext, TaskFailure, TaskSet};
use crate::names::{ChangeId, Digest, PackId, Version};
use crate::packs::Pack;

use super::error::InstallError;
use super::installer::Inner;

/// The tasks of an installation, in order.
pub(super) const INSTALL: [&str; 6] = [
    "install.acquire",
    "install.verify",
    "install.conflicts",
    "install.unpack",
    "install.link",
    "install.clean",
];
/// The task of an installation that finds nothing to do.
pub(super) const ALREADY_INSTALLED: [&str; 1] = ["install.present"];
/// The tasks of a removal, in order.
pub(super) const REMOVE: [&str; 2] = ["remove.unlink", "remove.clean"];

/// What an installation needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InstallData {
    pub(super) id: PackId,
    pub(super) version: Version,
    pub(super) digest: Digest,
    pub(super) by: String,
}

/// What a removal needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveData {
    pub(super) id: PackId,
    pub(super) purge: bool,
    pub(super) by: String,
}

/// As which an unfinished installation keeps the blobs that it works on.
fn hold(change: &ChangeId) -> Owner {
    Owner::new("install", change.as_str())
}

/// Whether a pack is the one that was asked for.
pub(super) fn check_identity(pack: &Pack, id: &PackId, version: &Version) -> Result<(), InstallError> {
    let info = &pack.info;
    if info.publisher == id.publisher && info.name == id.name && info.version == *version {
        return Ok(());
    }
    Err(InstallError::OtherPack {
        digest: pack.digest.clone(),
        found: format!("{}/{} {}", info.publisher, info.name, info.version),
        wanted: format!("{id} {version}"),
    })
}

/// Runs something that blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InstallError> + Send + 'static,
) -> Result<T, InstallError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| InstallError::Interrupted)?
}

/// Makes a kind of task out of two functions over the installer's parts.
macro_rules! task {
    ($type:ident, $kind:literal, $pivot:literal, $run:path, $undo:path) => {
        struct $type(Arc<Inner>);

        impl Task for $type {
            fn kind(&self) -> &'static str {
                $kind
            }

            fn pivot(&self) -> bool {
                $pivot
            }

            fn run<'a>(&'a self, ctx: &'a TaskContext) -> BoxFuture<'a, Result<Step, TaskFailure>> {
                Box::pin(async move {
                    $run(&self.0, ctx).await?;
                    self.0.parts.faults.pass(concat!($kind, ".done"));
                    Ok(Step::Done)
                })
            }

            fn undo<'a>(&'a self, ctx: &'a TaskContext) -> BoxFuture<'a, Result<(), TaskFailure>> {
                Box::pin(async move {
                    $undo(&self.0, ctx).await?;
                    self.0.parts.faults.pass(concat!($kind, ".undone"));
                    Ok(())
                })
            }
        }
    };
}

/// There is nothing to take back: the task only looks, or what it made is found again or swept.
#[allow(clippy::unused_async, reason = "stands where tasks have an asynchronous undo")]
async fn nothing(_: &Inner, _: &TaskContext) -> Result<(), TaskFailure> {
    Ok(())
}

task!(Acquire, "install.acquire", false, prepare::acquire, prepare::release);
task!(Verify, "install.verify", false, prepare::verify, nothing);
task!(Conflicts, "install.conflicts", false, prepare::conflicts, nothing);
// A tree may serve others by now; those that nobody needs are swept.
task!(Unpack, "install.unpack", false, prepare::unpack, nothing);
task!(Link, "install.link", true, link::link, link::undo);
task!(Clean, "install.clean", false, prepare::release, nothing);
task!(Present, "install.present", false, prepare::present, nothing);
task!(Unlink, "remove.unlink", true, unlink::unlink, unlink::undo);
task!(RemoveClean, "remove.clean", false, unlink::clean, nothing);

#[cfg(test)]
pub(super) use prepare::platform;

/// Adds all kinds.
pub(super) fn register(inner: &Arc<Inner>, tasks: &mut TaskSet) {
    tasks.add(Arc::new(Acquire(inner.clone())));
    tasks.add(Arc::new(Verify(inner.clone())));
    tasks.add(Arc::new(Conflicts(inner.clone())));
    tasks.add(Arc::new(Unpack(inner.clone())));
    tasks.add(Arc::new(Link(inner.clone())));
    tasks.add(Arc::new(Clean(inner.clone())));
    tasks.add(Arc::new(Present(inner.clone())));
    tasks.add(Arc::new(Unlink(inner.clone())));
    tasks.add(Arc::new(RemoveClean(inner.clone())));
}
