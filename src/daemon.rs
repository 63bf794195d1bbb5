//! The composition root: opens every part in order, binds, proves, recovers, serves, and stops cleanly.
//!
//! It must never hold logic of a domain: whatever could be asked of one part alone belongs to that part.
//!
//! Invariants: nothing foreign runs before the run-time proof of the bundle has passed on this kernel; recovery
//! starts after the port is bound, because the callback's address is known only then.

mod bundle;
mod certificate;
mod compose;
mod error;
mod proof;
mod root;
mod upkeep;

pub use bundle::{Posture, Provenance};
pub use compose::{Ready, serve};
pub use error::DaemonError;
