//! The bundle: the read-only userland that Pantry carries, as an OCI image layout with one image of three layers.
//!
//! This part puts the bundle together from the host's programs ([`assemble`]), judges one ([`check_layout`],
//! [`check_directory`]), appends one to an executable and reads it back ([`embed`], [`Bundle`]), and owns the one way in
//! which Pantry writes a layer ([`LayerWriter`]).
//!
//! What it must never do: run anything taken from a bundle, unpack a layer (that is `trees`), read the host's own
//! certificates or settings into a bundle, reach a package index by any way other than the machine's own configured
//! installer, or follow a link outside the root it is looking at.
//!
//! Invariants:
//! - The same host files and the same specification give the same bytes: entries are sorted, owners are 0:0, times are
//!   0, compression is one implementation at one level, and no path of the build machine stands in a file.
//! - What leaves [`assemble`] has passed every rule of the check; a finding stops it.
//! - A payload is either whole or refused: its place, lengths and index are verified when a bundle is opened, every
//!   byte by [`Bundle::verify`], and each layer again while it is read.
//!
//! ## How a payload is kept in an executable
//! As an ELF section (`.pantry.bundle`, not loaded) behind a copy of the section table, at the end of the file. Its
//! content is a 256-byte header (magic, length, SHA-256 of the rest, digest of the manifest, what the file was before,
//! and a SHA-256 of the header itself) and a plain tar of the layout. The kernel ignores it, GNU `strip` and `objcopy`
//! carry it along as they do any section (a trailer behind the last section would be dropped without a word), and a cut
//! file has lost its section table, which is noticed. (LLVM's `strip` removes sections it doesn't know: what it leaves is
//! a program with nothing embedded, and is reported as one.) The ready-made `libsui` was weighed and left: it appends data with
//! a trailer, reads the whole of it into memory, and has neither a digest nor a way back to the original file.

mod assemble;
mod bundle;
mod check;
mod closure;
mod elf;
mod embed;
mod error;
mod gather;
mod layer;
mod layout;
mod python;
mod report;
mod scan;
mod section;
mod skeleton;
mod spec;
mod trace;
mod tree;
mod uv;

pub use assemble::{AssembleOptions, AssembleReport, LayerReport, assemble};
pub use bundle::{Bundle, BundleLayer, LayerRole};
pub use check::{CheckReport, Finding, FindingCode, check_bundle, check_directory, check_layout};
pub use embed::{EmbedReport, embed, write_without_payload};
pub use error::RootfsError;
pub use layer::{LayerDigests, LayerWriter};
pub use report::{EntryKind, ListedEntry, ShowReport, export, list, show};
pub use spec::{BundleSpec, WritableKind};
pub use trace::{TraceReport, trace_host};
