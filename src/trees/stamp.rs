//! The mark beside a tree that says: this one is whole.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::names::Digest;

use super::listing::Figures;

/// What stands in `trees/<chain id>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stamp {
    pub(crate) version: u32,
    pub(crate) chain: Digest,
    pub(crate) layer: Digest,
    pub(crate) diff_id: Digest,
    /// Of the tree's directory: another directory under the same name was not unpacked by us.
    pub(crate) inode: u64,
    pub(crate) figures: Figures,
}

impl Stamp {
    /// The version of this form; others are unpacked anew.
    pub(crate) const VERSION: u32 = 1;

    /// The stamp of a tree, when there is one that fits the directory as it is now.
    ///
    /// Cheap on purpose, as it is asked before each use; what was altered deep inside is found by `verify`.
    pub(crate) fn of(file: &Path, tree: &Path, chain: &Digest) -> Option<Self> {
        let bytes = fs_err::read(file).ok()?;
        let stamp: Self = serde_json::from_slice(&bytes).ok()?;
        let found = fs_err::symlink_metadata(tree).ok()?;
        let ours = found.is_dir()
            && found.ino() == stamp.inode
            && found.uid() == rustix::process::geteuid().as_raw()
            && found.mode() & 0o022 == 0;
        (stamp.version == Self::VERSION && stamp.chain == *chain && ours).then_some(stamp)
    }
}
