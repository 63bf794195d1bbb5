//! Long work on what is stored: collection, verification, repair. Each is a change of one task that goes through its
//! *passes*, a page at a time, and saves where it stands; each leaves a report.
//!
//! A pass belongs to the part whose rows it reads; here they are put in order and given one way to count and to tell.
//! Another pass is a file below [`passes`], and a line in the table of [`work`].

mod keeper;
mod order;
mod pass;
mod passes;
mod report;
mod task;
mod work;

pub(super) use keeper::{Keeper, KeeperParts};
