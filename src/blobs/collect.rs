//! Collection: what nobody refers to goes, a page a call, while pushes and pulls go on.
//!
//! A blob goes in two steps. One write transaction asks again whether anybody refers to the digest and since when
//! nobody does, removes its record and notes the digest as *condemned*; once that is durable its file is removed, and
//! then the note. A crash in between leaves a file and a note, with which the next run begins.
//!
//! From before the transaction until after the file is gone the digest is seized (see [`super::pins`]): a writer that
//! brings the same bytes waits at the moment when it would find the old file and keep it. A reader that has the file
//! open reads on; one that found the record but not the file asks the records again.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::files::{Access, Kind, Listed};
use super::handle::{Inner, blocking};
use super::pins::Seized;
use super::references::{BLOBS, BlobRecord, DAMAGED, INLINE, REFERENCES};
use super::{BlobError, Blobs, uploads};
use crate::names::{Digest, Millis};
use crate::state::{MAX_SCAN_ROWS, Read, Scan, StateError, Table, Tx, record};

/// Blobs whose record is gone and whose file may still be there.
const CONDEMNED: Table<Digest, CondemnedRecord> = Table::new("blob_condemned");

#[derive(Clone, Debug, Serialize, Deserialize)]
struct CondemnedRecord {
    size: u64,
    at: Millis,
}
record!(CondemnedRecord, 1);

/// Files in the folder of uploads that were written to more lately are left alone: they may be a probe of the disk.
const YOUNGEST_UPLOAD: Duration = Duration::from_mins(1);
/// Digests of one condemning transaction.
const TOGETHER: usize = 100;

/// What a run of collection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sweep {
    /// How long nobody must have referred to a blob, and how old a file without a record must be, in milliseconds.
    pub grace_ms: u64,
    /// Only count what would go.
    pub dry_run: bool,
}

impl Sweep {
    pub(super) fn grace(self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }
}

/// Where a run of collection stands; begins at `Cursor::default()`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cursor {
    /// What earlier runs condemned.
    #[default]
    Condemned,
    /// The records after this digest.
    Records(Option<Digest>),
    /// The folder of the digests that begin with this byte.
    Files(u8),
    /// Unfinished uploads.
    Uploads,
    /// There is nothing left to do.
    End,
}

/// What a call, or a run, took away; in a dry run what it would have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Records looked at.
    pub seen: u64,
    /// Blobs that nobody referred to for longer than the grace.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Files that no record named: left by a crash, or by a push that never got its manifest.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Uploads that nobody goes on with.
    pub uploads: u64,
    /// Bytes of those that had no record either.
    pub upload_bytes: u64,
    /// Blobs that somebody is about to refer to, and that therefore stay for now.
    pub spared: u64,
    /// Files in the folders of blobs that are none of ours; they are left alone.
    pub strangers: u64,
}

impl Collected {
    /// Adds what another call took away.
    #[cfg(test)]
    pub(super) fn add(&mut self, other: Self) {
        self.seen += other.seen;
        self.blobs += other.blobs;
        self.blob_bytes += other.blob_bytes;
        self.files += other.files;
        self.file_bytes += other.file_bytes;
        self.uploads += other.uploads;
        self.upload_bytes += other.upload_bytes;
        self.spared += other.spared;
        self.strangers += other.strangers;
    }

    /// Whether nothing went, nor would have.
    #[cfg(test)]
    pub(super) fn is_nothing(&self) -> bool {
        self.blobs == 0 && self.files == 0 && self.uploads == 0
    }
}

impl Blobs {
    /// Does the next part of a run: a page of records, or a folder. Gives where the run stands then.
    ///
    /// # Errors
    /// [`BlobError::Io`], [`BlobError::State`]; what was done stays done, and the call may be repeated.
    pub async fn collect(&self, from: Cursor, sweep: Sweep) -> Result<(Cursor, Collected), BlobError> {
        let store = std::sync::Arc::clone(self.inner());
        blocking(move || match from {
            Cursor::Condemned => leftovers(&store, sweep),
            Cursor::Records(after) => records(&store, after.as_ref(), sweep),
            Cursor::Files(first) => files(&store, first, sweep),
            Cursor::Uploads => abandoned(&store, sweep),
            Cursor::End => Ok((Cursor::End, Collected::default())),
        })
        .await
    }
}

/// How long ago the file was written to; a time in the future is no age at all.
pub(super) fn age(store: &Inner, found: &Listed) -> Duration {
    let written = found.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Duration::from_millis(store.clock.now().0);
    now.saturating_sub(written)
}

/// Removes the files that a run before this one condemned and did not come to remove.
fn leftovers(store: &Inner, sweep: Sweep) -> Result<(Cursor, Collected), BlobError> {
    let mut total = Collected::default();
    let mut scan = Scan::all();
    loop {
        let page = store.state.read_blocking(|view| view.scan(&CONDEMNED, &scan, MAX_SCAN_ROWS))?;
        let Some((last, _)) = page.last() else { return Ok((Cursor::Records(None), total)) };
        scan = scan.after(last);
        for some in page.chunks(TOGETHER) {
            if sweep.dry_run {
                for (_, record) in some {
                    total.files += 1;
                    total.file_bytes += record.size;
                }
                continue;
            }
            let seized: Vec<Seized> =
                some.iter().filter_map(|(digest, _)| store.pins.seize(digest)).collect();
            total.spared += (some.len() - seized.len()) as u64;
            let gone = remove_unnamed(store, &seized)?;
            total.files += gone.files;
            total.file_bytes += gone.bytes;
        }
    }
}

/// Condemns and removes the blobs of one page of records.
fn records(store: &Inner, after: Option<&Digest>, sweep: Sweep) -> Result<(Cursor, Collected), BlobError> {
    let scan = after.map_or_else(Scan::all, |digest| Scan::all().after(digest));
    let page = store.state.read_blocking(|view| view.scan(&BLOBS, &scan, MAX_SCAN_ROWS))?;
    let next = match page.last() {
        Some((last, _)) if page.len() == MAX_SCAN_ROWS => Cursor::Records(Some(last.clone())),
        _ => Cursor::Files(0),
    };
    let now = store.clock.now();
    let mut total = Collected { seen: page.len() as u64, ..Collected::default() };
    let due: Vec<(Digest, BlobRecord)> =
        page.into_iter().filter(|(_, record)| is_due(record, now, sweep.grace())).collect();
    if sweep.dry_run {
        for (_, record) in &due {
            total.blobs += 1;
            total.blob_bytes += record.size;
        }
        return Ok((next, total));
    }
    for some in due.chunks(TOGETHER) {
        let seized: Vec<Seized> = some.iter().filter_map(|(digest, _)| store.pins.seize(digest)).collect();
        total.spared += (some.len() - seized.len()) as u64;
        let digests: Vec<Digest> = seized.iter().map(|seized| seized.digest().clone()).collect();
        let grace = sweep.grace();
        store.faults.pass("blobs.collect.before_condemn");
        let condemned = store.state.write_blocking(move |tx| {
            let mut condemned = Vec::new();
            for digest in &digests {
                if let Some(record) = condemn(tx, digest, now, grace)? {
                    condemned.push((digest.clone(), record));
                }
            }
            Ok::<_, StateError>(condemned)
        })?;
        store.faults.pass("blobs.collect.after_condemn");
        for (_, record) in &condemned {
            total.blobs += 1;
            total.blob_bytes += record.size;
        }
        let with_file: Vec<Seized> = seized
            .into_iter()
            .filter(|seized| {
                condemned.iter().any(|(digest, record)| digest == seized.digest() && !record.inline)
            })
            .collect();
        remove_unnamed(store, &with_file)?;
    }
    Ok((next, total))
}

fn is_due(record: &BlobRecord, now: Millis, grace: Duration) -> bool {
    record.unreferenced_since.is_some_and(|since| now.since(since) >= grace)
}

/// Removes the record of a blob that nobody refers to and nobody referred to for the grace; `None` when it stays.
pub(super) fn condemn(
    tx: &mut Tx<'_>,
    digest: &Digest,
    now: Millis,
    grace: Duration,
) -> Result<Option<BlobRecord>, StateError> {
    let Some(record) = tx.get(&BLOBS, digest)?.filter(|record| is_due(record, now, grace)) else {
        return Ok(None);
    };
    if !tx.scan(&REFERENCES, &Scan::prefix(digest), 1)?.is_empty() {
        return Ok(None);
    }
    tx.delete(&BLOBS, digest)?;
    super::totals::went(tx, record.size)?;
    if record.inline {
        tx.delete(&INLINE, digest)?;
    } else {
        tx.put(&CONDEMNED, digest, &CondemnedRecord { size: record.size, at: now })?;
    }
    if record.damage.is_some() {
        tx.delete(&DAMAGED, digest)?;
    }
    Ok(Some(record))
}

/// What was removed.
#[derive(Default)]
pub(super) struct Gone {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Removes the files of those seized digests that no record names, and then the notes that condemned them.
///
/// Whether a record names a digest is asked in the writer, behind every transaction that may have named it while the
/// digest was not seized yet.
pub(super) fn remove_unnamed(store: &Inner, seized: &[Seized]) -> Result<Gone, BlobError> {
    let mut gone = Gone::default();
    if seized.is_empty() {
        return Ok(gone);
    }
    let digests: Vec<Digest> = seized.iter().map(|seized| seized.digest().clone()).collect();
    let asked = digests.clone();
    let named = store.state.write_blocking(move |tx| {
        asked
            .iter()
            .map(|digest| Ok(tx.get(&BLOBS, digest)?.is_some()))
            .collect::<Result<Vec<bool>, StateError>>()
    })?;
    let io = BlobError::io("remove a collected blob");
    for (digest, named) in digests.iter().zip(named) {
        let Some(path) = store.layout.blob(digest).filter(|_| !named) else { continue };
        store.faults.pass("blobs.collect.before_unlink");
        let size = store.files.open(&path, Access::Read).and_then(|file| file.status());
        match store.files.remove(&path) {
            Ok(()) => {
                gone.files += 1;
                gone.bytes += size.map_or(0, |found| found.length);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        store.faults.pass("blobs.collect.after_unlink");
    }
    store.state.write_blocking(move |tx| {
        for digest in &digests {
            if tx.get(&CONDEMNED, digest)?.is_some() {
                tx.delete(&CONDEMNED, digest)?;
            }
        }
        Ok::<_, StateError>(())
    })?;
    store.faults.pass("blobs.collect.after_forget");
    Ok(gone)
}

/// Removes the files of one folder that no record names and that are older than the grace.
fn files(store: &Inner, first: u8, sweep: Sweep) -> Result<(Cursor, Collected), BlobError> {
    let mut total = Collected::default();
    let io = BlobError::io("look through the files of blobs");
    let mut ours = Vec::new();
    for found in store.files.list(&store.layout.folder(first)).map_err(&io)? {
        let digest = found.name.to_str().and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok());
        match digest
            .filter(|digest| found.kind == Kind::File && digest.hex().starts_with(&format!("{first:02x}")))
        {
            Some(digest) => ours.push((digest, found.length, age(store, &found))),
            None => total.strangers += 1,
        }
    }
    for some in ours.chunks(TOGETHER) {
        let unnamed = store.state.read_blocking(|view| {
            let mut unnamed = Vec::new();
            for (digest, size, age) in some {
                let known = view.get(&BLOBS, digest)?.is_some() || view.get(&CONDEMNED, digest)?.is_some();
                if !known && *age >= sweep.grace() {
                    unnamed.push((digest.clone(), *size));
                }
            }
            Ok::<_, StateError>(unnamed)
        })?;
        if sweep.dry_run {
            total.files += unnamed.len() as u64;
            total.file_bytes += unnamed.iter().map(|(_, size)| size).sum::<u64>();
            continue;
        }
        let seized: Vec<Seized> = unnamed.iter().filter_map(|(digest, _)| store.pins.seize(digest)).collect();
        total.spared += (unnamed.len() - seized.len()) as u64;
        let gone = remove_unnamed(store, &seized)?;
        total.files += gone.files;
        total.file_bytes += gone.bytes;
    }
    let next = first.checked_add(1).map_or(Cursor::Uploads, Cursor::Files);
    Ok((next, total))
}

/// Removes the uploads that ran out, and files in their folder that nothing names.
fn abandoned(store: &Inner, sweep: Sweep) -> Result<(Cursor, Collected), BlobError> {
    let expired = if sweep.dry_run { uploads::expired(store)? } else { uploads::sweep_expired(store)? };
    let age = sweep.grace().max(YOUNGEST_UPLOAD);
    let (unnamed, bytes) = uploads::sweep_leftovers(store, age, !sweep.dry_run)?;
    let total = Collected { uploads: expired + unnamed, upload_bytes: bytes, ..Collected::default() };
    Ok((Cursor::End, total))
}
