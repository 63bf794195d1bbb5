//! The words of the system as types: parsed once at the edge, right from there on.
//!
//! Also here, because every part needs them and they are passed in from the first day: the [`Clock`], the
//! [`Random`] source and the [`Faults`] at which crash tests stop the process.
//!
//! This part must never touch the disk, the network or another part.
//!
//! Invariant: a value of one of these types was accepted by its parser; its inside cannot be changed.

mod clock;
mod digest;
mod fault;
mod ids;
mod oci;
mod package;
mod random;
mod text;

pub use clock::{Clock, ManualClock, Millis, SystemClock};
pub use digest::{Algorithm, Digest, Sha256Stream, hex};
pub use fault::Faults;
pub use ids::{ChangeId, Nonce, SubmissionId, UploadId};
pub use oci::{Reference, RepoName, Tag};
pub use package::{CommandName, PackId, PackageName, PublisherName, Version};
pub use random::{Random, SeededRandom, SystemRandom};
pub use text::NameError;
