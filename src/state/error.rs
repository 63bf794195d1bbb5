//! What can go wrong with the state.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

/// Says which step of which table or file failed; cheap to clone, as all closures of a batch share its error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The state was closed, or its process is stopping.
    #[error("the state is closed")]
    Closed,
    /// Another process, or another handle of this one, has the file open.
    #[error("the state file {path} is in use by another process")]
    InUse {
        /// The state file.
        path: PathBuf,
    },
    /// The file was written by a newer Pantry and this one is too old to read it.
    #[error(
        "the state file {path} has schema {schema}, which needs a Pantry of schema {min_reader} or newer; this one has {ours}"
    )]
    SchemaNewer {
        /// The state file.
        path: PathBuf,
        /// The schema of the file.
        schema: u32,
        /// The oldest schema that can read the file.
        min_reader: u32,
        /// The schema of this binary.
        ours: u32,
    },
    /// The file's schema is older than the first one that can be migrated.
    #[error("the state file {path} has schema {schema}; the oldest that can be migrated is {oldest}")]
    SchemaTooOld {
        /// The state file.
        path: PathBuf,
        /// The schema of the file.
        schema: u32,
        /// The oldest schema with a migration.
        oldest: u32,
    },
    /// The file is no state file of Pantry.
    #[error("{path} is no state file of Pantry: {reason}")]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What is missing in it.
        reason: &'static str,
    },
    /// The file, or a page of it, is not as it was written.
    #[error("the state file {path} is damaged: {cause}")]
    Damaged {
        /// The state file.
        path: PathBuf,
        /// What was found, in the words of whoever found it.
        cause: String,
        /// The copy from before the last migration, where there still is one.
        copy: Option<PathBuf>,
    },
    /// The file could not be opened.
    #[error("the state file {path} cannot be opened{}", full(source))]
    Open {
        /// The state file.
        path: PathBuf,
        /// What redb says.
        #[source]
        source: Arc<redb::Error>,
    },
    /// A file operation beside the database failed; the source names the path.
    #[error("cannot {step}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// What the system says.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The database reported an error in a step other than the commit.
    #[error("the state cannot {step}{}", full(source))]
    Storage {
        /// What was being done.
        step: &'static str,
        /// What redb says.
        #[source]
        source: Arc<redb::Error>,
    },
    /// The commit failed: none of the batch may be taken as written.
    #[error("the commit of the state failed{}", full(source))]
    Commit {
        /// What redb says.
        #[source]
        source: Arc<redb::Error>,
    },
    /// A storage error stopped the state; it opens its file again by itself and goes on.
    #[error("the state stopped after a storage error and is not open again yet")]
    Failed,
    /// The closure panicked; nothing of it was kept.
    #[error("a closure of the state panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// A write was started from inside a write.
    #[error("a write cannot be started inside the closure of a write")]
    Nested,
    /// A row of a table is at fault.
    #[error("in table `{table}`: {source}")]
    Row {
        /// The table.
        table: &'static str,
        /// What is wrong with the row.
        #[source]
        source: Box<StateError>,
    },
    /// A value is larger than its kind may be.
    #[error("a value of {size} bytes is larger than the {cap} bytes allowed")]
    ValueTooLarge {
        /// Its size.
        size: usize,
        /// The cap of its kind.
        cap: usize,
    },
    /// A key is larger than a key may be.
    #[error("a key of {size} bytes is larger than the {cap} bytes allowed")]
    KeyTooLarge {
        /// Its size.
        size: usize,
        /// The cap.
        cap: usize,
    },
    /// A stored key is not of the shape that its table has.
    #[error("a stored key is not a {expected}")]
    KeyInvalid {
        /// What was expected.
        expected: &'static str,
    },
    /// A stored record has a newer version than this binary knows.
    #[error("a stored record has version {found}, this Pantry knows up to {known}")]
    RecordVersion {
        /// The version in the record.
        found: u16,
        /// The newest known one.
        known: u16,
    },
    /// A record is not the JSON that its type needs.
    #[error("a record cannot be {step}")]
    Record {
        /// `encoded` or `decoded`.
        step: &'static str,
        /// What the JSON library says.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// A stored value that must be empty is not.
    #[error("a stored value of {size} bytes should be empty")]
    NotEmpty {
        /// Its size.
        size: usize,
    },
    /// A scan asked for more rows than one may give.
    #[error("a scan of {limit} rows was asked for; {max} is the most")]
    ScanLimit {
        /// The rows asked for.
        limit: usize,
        /// The cap.
        max: usize,
    },
}

impl StateError {
    /// The stable code of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        if self.disk_full() {
            return "disk_full";
        }
        match self {
            Self::Closed => "state_closed",
            Self::InUse { .. } => "state_in_use",
            Self::SchemaNewer { .. } => "state_schema_newer",
            Self::SchemaTooOld { .. } => "state_schema_too_old",
            Self::NotOurs { .. } => "state_not_ours",
            Self::Damaged { .. } => "state_damaged",
            Self::Open { .. } => "state_open_failed",
            Self::Io { .. } => "state_io_failed",
            Self::Storage { .. } => "state_storage_failed",
            Self::Commit { .. } => "state_commit_failed",
            Self::Failed => "state_failed",
            Self::Panicked { .. } => "state_closure_panicked",
            Self::Nested => "state_write_nested",
            Self::Row { source, .. } => source.code(),
            Self::ValueTooLarge { .. } => "state_value_too_large",
            Self::KeyTooLarge { .. } => "state_key_too_large",
            Self::KeyInvalid { .. } => "state_key_invalid",
            Self::RecordVersion { .. } => "state_record_newer",
            Self::Record { .. } => "state_record_invalid",
            Self::NotEmpty { .. } => "state_value_not_empty",
            Self::ScanLimit { .. } => "state_scan_limit",
        }
    }

    /// What a person can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        if self.disk_full() {
            let text = "free space on the disk of the state file; Pantry then goes on by itself";
            return Some(text.to_owned());
        }
        if let Self::Damaged { path, copy, .. } = self {
            let copy = copy.as_ref().map_or_else(String::new, |copy| {
                format!(", or the copy from before the last migration, {}", copy.display())
            });
            return Some(format!("stop Pantry and put a backup in the place of {}{copy}", path.display()));
        }
        let text = match self {
            Self::InUse { .. } => "stop the other `pantry serve`, or give another folder with --root",
            Self::SchemaNewer { .. } => {
                "start the newer Pantry that wrote this file, or restore the copy it kept"
            }
            Self::SchemaTooOld { .. } => "start a Pantry in between once, so that it migrates the file",
            Self::NotOurs { .. } => {
                "give the folder of a Pantry with --root, or an empty one; if this was a Pantry's, restore a backup"
            }
            Self::Open { .. } | Self::Io { .. } => "check the permissions and the free space of the folder",
            Self::Commit { .. } | Self::Failed => {
                "check the disk and its free space; Pantry tries again by itself, nothing acknowledged is lost"
            }
            Self::RecordVersion { .. } => "start the newer Pantry that wrote this record",
            Self::Row { source, .. } => return source.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Names the table in which the error happened.
    pub(super) fn in_table(self, table: &'static str) -> Self {
        match self {
            row @ Self::Row { .. } => row,
            source => Self::Row { table, source: Box::new(source) },
        }
    }

    /// Whether the disk, or what one may use of it, is full.
    fn disk_full(&self) -> bool {
        match self {
            Self::Open { source, .. } | Self::Storage { source, .. } | Self::Commit { source } => {
                matches!(&**source, redb::Error::Io(error) if is_full(error))
            }
            Self::Io { source, .. } => is_full(source),
            Self::Row { source, .. } => source.disk_full(),
            _ => false,
        }
    }

    /// Whether redb answers nothing more until the file is opened again.
    pub(super) fn needs_reopening(&self) -> bool {
        match self {
            Self::Failed => true,
            Self::Storage { source, .. } | Self::Commit { source } => matches!(
                **source,
                redb::Error::Io(_) | redb::Error::LockPoisoned(_) | redb::Error::DatabaseClosed
            ),
            Self::Damaged { cause, .. } => cause.contains("PoisonError"),
            Self::Row { source, .. } => source.needs_reopening(),
            _ => false,
        }
    }

    pub(super) fn storage(step: &'static str, source: impl Into<redb::Error>) -> Self {
        match source.into() {
            redb::Error::PreviousIo => Self::Failed,
            source => Self::Storage { step, source: Arc::new(source) },
        }
    }

    pub(super) fn commit(source: impl Into<redb::Error>) -> Self {
        match source.into() {
            redb::Error::PreviousIo => Self::Failed,
            source => Self::Commit { source: Arc::new(source) },
        }
    }

    pub(super) fn io(step: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io { step, source: Arc::new(source) }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Says in the message itself that the disk is full, as that is what there is to be done something about.
fn full(source: &redb::Error) -> &'static str {
    match source {
        redb::Error::Io(error) if is_full(error) => ": the disk is full",
        _ => "",
    }
}
