//! Keeps what a damaged file does to redb from going further: its panics and its complaints become
//! [`StateError::Damaged`].

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use super::table::Visit;
use super::writer::panic_message;
use super::{StateError, file};

/// The file that a transaction reads, and whether the storage failed under it.
pub(super) struct Source<'a> {
    path: &'a Path,
    failed: Cell<bool>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        Self { path, failed: Cell::new(false) }
    }

    /// Whether the storage failed in such a way that only opening the file again can help.
    pub(super) fn failed(&self) -> bool {
        self.failed.get()
    }

    /// Runs one step of redb. A panic in it is damage: redb takes the pages of its file for well formed.
    pub(super) fn ask<T>(
        &self,
        step: &'static str,
        act: impl FnOnce() -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        contained(self.path, step, act).inspect_err(|error| {
            if error.needs_reopening() {
                self.failed.set(true);
            }
        })
    }

    /// As [`Source::ask`], where a panic of `visit` is not redb's and goes through.
    pub(super) fn ask_rows(
        &self,
        visit: &mut Visit<'_>,
        act: impl FnOnce(&mut Visit<'_>) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let foreign: RefCell<Option<Box<dyn Any + Send>>> = RefCell::new(None);
        let outcome = self.ask("scan a table", || {
            act(&mut |key, value| {
                catch_unwind(AssertUnwindSafe(|| visit(key, value))).unwrap_or_else(|panic| {
                    foreign.replace(Some(panic));
                    false
                })
            })
        });
        match foreign.into_inner() {
            Some(panic) => resume_unwind(panic),
            None => outcome,
        }
    }
}

/// Runs what only redb does, and gives its panics and its complaints about the file as [`StateError::Damaged`].
pub(super) fn contained<T>(
    path: &Path,
    step: &'static str,
    act: impl FnOnce() -> Result<T, StateError>,
) -> Result<T, StateError> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(outcome) => outcome.map_err(|error| named(error, path)),
        Err(panic) => Err(damaged(path, format!("redb could not {step}: {}", panic_message(&*panic)))),
    }
}

/// The error of a damaged file, with the copy that may stand in for it.
pub(super) fn damaged(path: &Path, cause: String) -> StateError {
    let copy = Some(file::copy_path(path)).filter(|copy| copy.exists());
    StateError::Damaged { path: path.to_owned(), cause, copy }
}

/// What redb says of a damaged file, with the file named.
fn named(error: StateError, path: &Path) -> StateError {
    match error {
        StateError::Row { table, source } => named(*source, path).in_table(table),
        StateError::Storage { step, source } if matches!(*source, redb::Error::Corrupted(_)) => {
            damaged(path, format!("cannot {step}: {source}"))
        }
        StateError::Commit { source } if matches!(*source, redb::Error::Corrupted(_)) => {
            damaged(path, format!("cannot commit: {source}"))
        }
        error => error,
    }
}

/// Lets go of what redb owns; closing a damaged file may panic too.
pub(super) fn let_go(owned: impl Sized) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(owned))) {
        tracing::error!(message = panic_message(&*panic), "the state file could not be closed cleanly");
    }
}
