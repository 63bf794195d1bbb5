//! Directories made from foreign archives: unpacked layers, shared by everything that runs, and unpacked sources.
//!
//! The archive is read by [`extract_entry`], which is this very program inside a jail: it sees the archive on its
//! standard input and one empty directory, nothing else. What it wrote is then taken over by a walk over file
//! descriptors before anybody may use it.
//!
//! What it must never do: follow a link while writing, walking or removing; write outside the directory it was
//! given; hand out a tree that is not complete; read an archive in the server's own process.
//!
//! Invariants:
//! - `trees/<chain id>` holds what one layer adds on top of the layers below it. Together with its stamp
//!   (`trees/<chain id>.json`) it is complete: the directory is renamed into place and the stamp, which names its
//!   inode, is written last, both under one lock. Whatever else lies there is an unfinished attempt.
//! - A tree is never changed after that. It can be made again from the blobs at any time, so nothing is synced.
//! - Only regular files, directories and symbolic links get in; no setuid bit, no owner but ours, times are 0.
//! - What a foreign image's layer removes of those below it stands in `trees/<chain id>.mask`, a layer of deletion
//!   marks alone that goes right below its tree. Trees of our own layers have none.
//!
//! Why the diff id that the jailed extractor reports is believed: the compressed bytes are hashed by the server while
//! it feeds them, so the extractor is known to have read the very layer that the manifest names. Whoever could make
//! it lie about the diff id could as well make it write other files under the right one; inflating everything a second
//! time outside would cost time and prove nothing.

mod archive;
mod confined;
mod destination;
mod error;
mod extract;
#[cfg(test)]
pub(crate) mod handmade;
mod links;
mod listing;
mod mask;
mod path;
mod stamp;
mod store;
mod walk;

pub use confined::{extract_entry, extract_unconfined};
pub use error::{RefusalCode, TreeError};
pub use extract::SourceCaps;
pub use store::{LayerRef, Trees, Unpacked, chain_ids, present_below};

pub(crate) use links::{Target, leaves_root};
pub(crate) use walk::remove_tree;
