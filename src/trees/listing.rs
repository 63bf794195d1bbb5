//! What a tree holds, as one digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{Digest, Sha256Stream};

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    Directory { mode: u32 },
    File { mode: u32, size: u64, content: Digest },
    Link { target: String },
}

/// Every entry of a tree by its path, without the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing(pub(crate) BTreeMap<String, Listed>);

/// The figures of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figures {
    pub(crate) entries: u64,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// SHA-256 over the sorted listing: kinds, modes, sizes, contents, targets.
    pub(crate) listing: Digest,
}

impl Listing {
    pub(crate) fn figures(&self) -> Figures {
        let mut hash = Sha256Stream::default();
        let (mut files, mut bytes) = (0, 0);
        for (path, listed) in &self.0 {
            // Paths and targets hold no control characters, so that a line can't be made to look like two.
            let line = match listed {
                Listed::Directory { mode } => format!("d {mode:04o} {path}\n"),
                Listed::File { mode, size, content } => {
                    files += 1;
                    bytes += size;
                    format!("f {mode:04o} {size} {} {path}\n", content.hex())
                }
                Listed::Link { target } => format!("l {path}\t{target}\n"),
            };
            hash.update(line.as_bytes());
        }
        Figures { entries: self.0.len() as u64, files, bytes, listing: hash.finish() }
    }
}
