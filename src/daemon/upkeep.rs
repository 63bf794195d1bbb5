//! Long work on what is stored: collection, verification, repair. Each is a change of one task that goes through its
//! *passes*, a page at a time, and saves where it stands; each leaves a report.
//!
//! A pass belongs to the part whose rows it reads; here they are put in order and given one way to count and to tell.
//! What else is to happen with every collection is another [`order::Pass`] in [`collection::passes`].

mod collection;
mod keeper;
pub(super) mod order;
mod repair;
mod report;
mod task;
mod verification;

pub(super) use collection::Retention;
pub(super) use keeper::{Keeper, KeeperParts};
