//! The file: making it, opening it, its schema row, and the copy kept from before a migration.

use std::ffi::OsString;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err::os::unix::fs::OpenOptionsExt as _;
use redb::{Database, ReadableDatabase, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::damage::{contained, damaged};
use super::keys::key_bytes;
use super::table::RawTable;
use super::{State, StateError, Value, migrations, record};

/// Pages that redb may keep in memory: enough for the hot ones, within the 30 MB that Pantry may use when idle.
const CACHE_BYTES: usize = 8 * 1_024 * 1_024;
/// What a redb file begins with.
const MAGIC: &[u8] = b"redb";
/// The table of what is said about the file itself.
const META: &str = "meta";
/// The oldest binary that can read what this one writes: since schema 17, migrations have only added.
const MIN_READER: u32 = 17;

/// The schema of a file, and the oldest schema whose binary can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// What the file's records look like.
    pub schema: u32,
    /// The oldest binary that can still work with it.
    pub min_reader: u32,
}
record!(Schema, 1);

/// The key of the schema row.
fn schema_key() -> Result<Vec<u8>, StateError> {
    key_bytes(&"schema".to_owned())
}

/// The builder that every opening goes through.
pub(super) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Opens the file, makes it when there is none, migrates it when it is older.
pub(super) fn open(path: &Path) -> Result<(Database, Schema), StateError> {
    contained(path, "open the file", || open_or_make(path))
}

/// Opens the file again after its storage failed; gives no file that was not there before.
pub(super) fn reopen(path: &Path) -> Result<Database, StateError> {
    // After a failed sync the pages in memory may say what the disk does not: what is read from here on is read
    // from the disk, where the system can be asked for that.
    let cached = fs_err::File::open(path).map_err(StateError::io("open the state file again"))?;
    _ = rustix::fs::fadvise(cached.file(), 0, None, rustix::fs::Advice::DontNeed);
    drop(cached);
    contained(path, "open the file again", || {
        let database = open_existing(path)?;
        read_schema(&database, path)?;
        Ok(database)
    })
}

fn open_or_make(path: &Path) -> Result<(Database, Schema), StateError> {
    if !path.exists() {
        create(path)?;
    }
    let mut database = open_existing(path)?;
    let mut schema = read_schema(&database, path)?;
    if schema.schema < State::SCHEMA {
        migrations::check(path, schema)?;
        // The copy is made of a closed file, so that it opens without repair; the second opening takes the lock
        // again and reads the schema again, in case somebody came in between.
        drop(database);
        keep_copy(path)?;
        database = open_existing(path)?;
        schema = read_schema(&database, path)?;
        schema = migrations::run(&database, path, schema)?;
    }
    sweep_unfinished(path)?;
    Ok((database, schema))
}

fn open_existing(path: &Path) -> Result<Database, StateError> {
    use redb::{DatabaseError, StorageError};

    builder().open(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StateError::InUse { path: path.to_owned() },
        DatabaseError::Storage(StorageError::Io(io))
            if matches!(io.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            unreadable(path, &io)
        }
        error @ (DatabaseError::UpgradeRequired(_) | DatabaseError::Storage(StorageError::Corrupted(_))) => {
            damaged(path, error.to_string())
        }
        error => StateError::Open { path: path.to_owned(), source: Arc::new(error.into()) },
    })
}

/// Tells a file that something happened to from one that never was a state file.
fn unreadable(path: &Path, says: &std::io::Error) -> StateError {
    let mut start = Vec::new();
    let read =
        fs_err::File::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut start));
    match read {
        Err(source) => StateError::io("read the start of the state file")(source),
        Ok(_) if start.is_empty() => damaged(path, "it is empty".to_owned()),
        Ok(_) if start.iter().all(|&byte| byte == 0) => {
            damaged(path, format!("it begins with zeros ({says})"))
        }
        Ok(_) if MAGIC.starts_with(&start) => damaged(path, says.to_string()),
        Ok(_) => StateError::NotOurs { path: path.to_owned(), reason: "it is no redb database" },
    }
}

/// Makes the file whole under another name and then gives it its own, as a process that ends within redb's first
/// writes leaves a file that cannot be opened. Whoever comes second uses the file of the first.
fn create(path: &Path) -> Result<(), StateError> {
    let unfinished = beside(path, &format!(".new-{}", std::process::id()));
    let io = StateError::io("make the state file");
    let file = fs_err::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(&io)?;
    let open_error = |error: redb::DatabaseError| StateError::Open {
        path: unfinished.clone(),
        source: Arc::new(error.into()),
    };
    let database = builder().create_file(file.into_parts().0).map_err(open_error)?;
    initialise(&database)?;
    drop(database);
    let named = fs_err::hard_link(&unfinished, path);
    _ = fs_err::remove_file(&unfinished);
    match named {
        Err(error) if !path.exists() => return Err(io(error)),
        _ => {}
    }
    sync_folder(path)
}

/// Writes the schema row of a new file.
pub(super) fn initialise(database: &Database) -> Result<Schema, StateError> {
    let schema = Schema { schema: State::SCHEMA, min_reader: MIN_READER };
    let transaction = begin(database)?;
    write_schema(&transaction, schema)?;
    transaction.commit().map_err(StateError::commit)?;
    Ok(schema)
}

/// A write transaction as durable as those of the writer.
pub(super) fn begin(database: &Database) -> Result<WriteTransaction, StateError> {
    let mut transaction =
        database.begin_write().map_err(|error| StateError::storage("begin a transaction", error))?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    Ok(transaction)
}

pub(super) fn read_schema(database: &Database, path: &Path) -> Result<Schema, StateError> {
    let not_ours = || StateError::NotOurs { path: path.to_owned(), reason: "it has no schema row" };
    let snapshot = database.begin_read().map_err(|error| StateError::storage("begin a snapshot", error))?;
    let table = match snapshot.open_table(RawTable::new(META)) {
        Ok(table) => table,
        Err(redb::TableError::Storage(error)) => return Err(StateError::storage("open a table", error)),
        Err(_) => return Err(not_ours()),
    };
    let row = table
        .get(schema_key()?.as_slice())
        .map_err(|error| StateError::storage("read the schema", error))?
        .ok_or_else(not_ours)?;
    let schema = Schema::from_bytes(row.value())
        .map_err(|error| damaged(path, format!("its schema row is not readable: {error}")))?;
    if schema.min_reader > State::SCHEMA {
        return Err(StateError::SchemaNewer {
            path: path.to_owned(),
            schema: schema.schema,
            min_reader: schema.min_reader,
            ours: State::SCHEMA,
        });
    }
    Ok(schema)
}

pub(super) fn write_schema(transaction: &WriteTransaction, schema: Schema) -> Result<(), StateError> {
    let mut table = transaction
        .open_table(RawTable::new(META))
        .map_err(|error| StateError::storage("open a table", error).in_table(META))?;
    table
        .insert(schema_key()?.as_slice(), schema.to_bytes()?.as_slice())
        .map_err(|error| StateError::storage("write the schema", error))?;
    Ok(())
}

/// `<path><suffix>`
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// The copy that is kept from before the migration to our schema.
pub(super) fn copy_path(path: &Path) -> PathBuf {
    beside(path, &format!(".before-{}", State::SCHEMA))
}

fn keep_copy(path: &Path) -> Result<(), StateError> {
    let io = StateError::io("keep a copy of the state file");
    let unfinished = beside(path, &format!(".new-{}", std::process::id()));
    fs_err::copy(path, &unfinished).map_err(&io)?;
    fs_err::File::open(&unfinished).and_then(|file| file.sync_all()).map_err(&io)?;
    fs_err::rename(&unfinished, copy_path(path)).map_err(&io)?;
    sync_folder(path)
}

/// Removes the copies from before migrations.
pub(super) fn settle(path: &Path) -> Result<(), StateError> {
    remove_beside(path, ".before-").map_err(StateError::io("remove the copy from before the migration"))
}

/// Removes what a process left that ended while it made the file or its copy.
fn sweep_unfinished(path: &Path) -> Result<(), StateError> {
    remove_beside(path, ".new-").map_err(StateError::io("remove an unfinished state file"))
}

fn remove_beside(path: &Path, suffix: &str) -> std::io::Result<()> {
    let (folder, Some(name)) = (folder_of(path), path.file_name()) else { return Ok(()) };
    let mut start = name.to_owned();
    start.push(suffix);
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(start.as_encoded_bytes()) {
            fs_err::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn sync_folder(path: &Path) -> Result<(), StateError> {
    fs_err::File::open(folder_of(path))
        .and_then(|folder| folder.sync_all())
        .map_err(StateError::io("sync the folder of the state file"))
}
