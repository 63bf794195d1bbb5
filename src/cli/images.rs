//! Images between files and registries: what `pantry push`, `pantry pull` and `pantry login` stand on.
//!
//! Files are an OCI image layout (a folder, or a tar of one) or what `docker save` writes. A registry is any that
//! speaks the OCI distribution API. Nothing here knows the daemon.
//!
//! It must never hold a blob in memory, guess a registry that nobody named, show credentials to another host than
//! the one they are for, or leave a half-written file.
//!
//! Names are read by the registry crate. Transfers are our own: that crate neither bounds what a registry sends as a
//! manifest or a token, nor resumes, nor goes on with the upload that an unanswered mount begins.

mod archive;
mod challenge;
mod content;
mod credentials;
mod destination;
mod docker_archive;
mod failure;
mod graph;
mod name;
mod patience;
mod platform;
mod progress;
mod registry;
mod source;
mod transfer;

pub(super) use archive::Piece;
pub(super) use content::{Descriptor, Document, REF_NAME, SOURCE_PREFIX, type_of};
pub(super) use credentials::{Credentials, auth_file_for_login, find, remove, store};
pub(super) use destination::Destination;
pub(super) use graph::{Reads, walk};
pub(super) use name::Name;
pub(super) use platform::{Platform, choose};
pub(super) use progress::{Progress, amount};
pub(super) use registry::{Connection, Registry};
pub(super) use source::{Source, missing};
pub(super) use transfer::{copy_in, copy_out};
