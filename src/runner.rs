//! Where a submission is tested: the embedded runner.
//!
//! Two jobs, linked by the serializable [`TestReport`] alone. The *test* job runs foreign code in jails and holds no
//! secret; the *callback* job never sees that code: it takes the report, signs the bytes it sends, and posts them to
//! the same endpoint that anybody would use.
//!
//! This part must never take a verdict from what a package prints, run foreign code outside a jail, test anything
//! but the blobs that the pack's manifest names, or let the callback job near them.
//!
//! Invariants:
//! - a test passed when the jail's own account of it says that its program exited with 0, and for an import also that
//!   it reached the line after the import;
//! - nothing to run is a failure;
//! - a jail that can't be set up is an error of this machine, never a verdict on the package;
//! - what is sent is byte for byte what was signed, at every attempt.

mod callback_job;
mod embedded;
mod error;
mod jail;
mod job;
mod judge;
mod plan;
mod report;
mod test_job;

pub use embedded::Embedded;
pub use error::RunnerError;
pub use job::{Job, TestCommand, TestComponent};
pub use report::{ReasonCode, TestReport, TestResult};
