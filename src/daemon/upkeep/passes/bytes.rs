//! Bytes that nobody refers to, files that no record names, and uploads that nobody goes on with.

use super::failure;
use crate::blobs::{Blobs, Cursor, Sweep};
use crate::daemon::upkeep::keeper::KeeperParts;
use crate::daemon::upkeep::order::{Account, Order};
use crate::daemon::upkeep::pass::{Next, Pass};

/// Removes bytes that nobody refers to.
pub(in crate::daemon::upkeep) struct Bytes {
    blobs: Blobs,
}

impl Bytes {
    pub(in crate::daemon::upkeep) fn new(parts: &KeeperParts) -> Self {
        Self { blobs: parts.blobs.clone() }
    }
}

impl Pass for Bytes {
    const NAME: &'static str = "bytes";

    async fn step(&self, from: Option<String>, order: &Order, account: &mut Account) -> Next {
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
    }
}
