//! The durable engine for long work: changes, their tasks, waits, undo, conflicts and logs.
//!
//! A *change* is a persisted list of *tasks*. Owners write it with [`create`] in the transaction of what it is about,
//! and register how its tasks are done in a [`TaskSet`]. [`Changes`] runs what is ready, several changes side by side,
//! and goes on with it after a crash: there is no queue in memory whose loss loses work.
//!
//! This part must never know what a task does, never run a task of an ended change again, and never end a change in
//! silence: an end that is neither done nor undone is `needs_attention`, with a code.
//!
//! Invariants:
//! - A task's outcome is recorded in the same transaction as what follows from it. A crash in between runs the task
//!   again; so a task, and an undo, may run twice.
//! - Undo data is persisted by [`TaskContext::save`] before the act. When a task fails, every task that was started is
//!   undone, the last one first. After a task that is a `pivot` has completed a change only goes forward.
//! - An unfinished change is either in the table of ready changes or has a wait or a deadline, never neither.
//! - An event that is signalled before somebody waits for it is not lost: [`signal`] counts, and a wait compares.
//! - The conflict keys of a change are held from its creation to its end.
//! - The clock is the later one of the machine's and the last persisted instant.
//!
//! *Limits*: 4 changes run at once (waiting ones don't count), beside those of kinds that have places of their own
//! ([`TaskSet::limit`]); changes that ended in the last 24 hours and the 500 newest are kept; a log is cut after 4 MiB.

mod book;
mod context;
mod engine;
mod failure;
mod log;
mod plan;
mod record;
mod retention;
mod scheduler;
mod task;
#[cfg(test)]
mod tests;
mod view;
mod workspace;

pub use book::{Conflict, EventKey, NewChange, create, ended_event, signal};
pub use context::TaskContext;
pub use engine::Changes;
pub use failure::{ChangeError, TaskFailure};
pub use retention::{forget, log_stands};
pub use task::{Step, Task, TaskSet, Woken};
pub use view::{ChangeView, FailureView, TaskView};
