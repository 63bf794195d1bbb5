//! Installing packs: changes that lead to wrappers, sealed launch files and a record, or to nothing at all; and running
//! what was installed.
//!
//! - [`Installer`] makes the changes `install` and `remove` and owns their tasks.
//! - [`exec`] is what a wrapper starts: it reads the sealed launch file beside it, and no daemon, state or socket.
//!
//! What it must never do: run a pack while installing it, overwrite another pack's command, write a file outside
//! `bin/`, follow a link to a launch file, or trust one that others could have written.
//!
//! Invariants:
//! - The record is the truth, files follow it. Files are written before the record's transaction; whatever the crash,
//!   [`Installer::recover`] makes `bin/` agree with the records again, both ways.
//! - A command belongs to one pack. A pack has one unfinished change at a time, and so has a command.
//! - The blobs of what is installed, and of the revision before it, are referred to by the record, so that its trees
//!   can be made again.
//! - A wrapper never stands without its launch file: launch files are written first and removed last.

mod error;
mod exec;
mod folder;
mod installer;
mod launch;
mod record;
mod tasks;
mod wrapper;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use error::{InstallError, InstallRefusal};
pub use exec::{ExecError, exec};
pub use folder::Mended;
pub use installer::{InstallParts, InstalledView, Installer};
pub use record::installed_stands;
