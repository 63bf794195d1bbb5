//! Packs: ordinary OCI images that also say what they are.
//!
//! A pack is built here from a base, dependencies and a source ([`build`]), put into a repository ([`place`]), and read
//! back from its manifest's blobs ([`load`]). The base of packs built here is the runtime layer of the bundle, which
//! [`import_bundle`] publishes as `pantry/base`.
//!
//! What it must never do: run anything, follow a link out of a directory that it packs, leave a file out in silence, or
//! let a time, an owner, a mask or the order of a directory into a digest.
//!
//! Invariants:
//! - The same info, base, and directories give the same manifest digest.
//! - A [`Pack`] was checked: its annotation parses, names are names, paths are absolute and plain, every layer has a
//!   diff id. Whoever holds one may build paths from it.

mod bases;
mod build;
mod canonical;
mod contents;
mod error;
mod image;
mod info;
mod load;

pub use bases::{Base, base_repository, import_bundle};
pub use build::{BuildInput, BuiltPack, build, place};
pub use error::PackError;
pub use info::{Artifact, PackCommand, PackInfo, PackType};
pub use load::{Pack, load};

pub(crate) use canonical::canonical_json;

use std::collections::BTreeMap;

/// The annotation on a manifest that makes an image a pack.
pub const ANNOTATION: &str = "dev.pantry.pack.v1";
/// Where the application lies in a pack's root, and where its programs start.
pub const APP_DIR: &str = "/opt/app";
/// Where its dependencies lie.
pub const DEPS_DIR: &str = "/opt/deps";
/// The user and group of a pack's programs, in the jail as under any other engine.
pub const USER_ID: u32 = 65532;

/// The environment of a pack's programs: in its image config, in tests, and when installed.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    [
        ("HOME", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("PATH", "/usr/bin:/bin"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONPATH", "/opt/app:/opt/deps"),
        ("PYTHONUNBUFFERED", "1"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}
