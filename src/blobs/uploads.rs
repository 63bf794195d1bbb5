//! The records of suspended uploads, and the sweep of what was left behind.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::files::Kind;
use super::handle::Inner;
use super::layout::{Layout, Part};
use super::sink::{Footing, Recorded, Sink};
use super::{BlobError, Writer};
use crate::names::{Millis, UploadId};
use crate::state::{MAX_SCAN_ROWS, Read, Scan, State, StateError, Table, record};

pub(super) const UPLOADS: Table<UploadId, UploadRecord> = Table::new("uploads");

/// How long a suspended upload is kept after its last request.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// A suspended upload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UploadRecord {
    /// How many bytes of the file count.
    offset: u64,
    /// The state of the hash at that offset, in base64.
    hash: String,
    /// The same of the hash by sha512, where the upload began with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha512: Option<String>,
    /// Whether the bytes up to there were synced before this was written.
    #[serde(default = "synced")]
    synced: bool,
    /// Who is working on it; nobody between two requests.
    #[serde(default)]
    owner: Option<String>,
    /// Until when it is kept.
    lease_until: Millis,
}
record!(UploadRecord, 1);

/// So was every upload whose record does not say it.
fn synced() -> bool {
    true
}

/// How many bytes of a suspended upload have come; `None` when there is no such upload.
///
/// # Errors
/// [`StateError`] when the record cannot be read.
#[cfg(test)]
pub fn upload_offset(view: &impl Read, id: &UploadId) -> Result<Option<u64>, StateError> {
    Ok(view.get(&UPLOADS, id)?.map(|record| record.offset))
}

/// Records how far the upload has come, after its bytes up to there were made durable ([`Sink::sync`]), or only written.
///
/// After a sync the state of the hash is not made from the file again when the upload goes on. So such a record must
/// not count bytes that a loss of power can still take: the blob would get the digest of what came, without its bytes.
pub(super) async fn record(store: &Inner, id: &UploadId, row: UploadRecord) -> Result<(), BlobError> {
    let id = id.clone();
    store.faults.pass("blobs.suspend.before_record");
    store.state.write(move |tx| tx.put(&UPLOADS, &id, &row)).await?;
    store.faults.pass("blobs.suspend.after_record");
    Ok(())
}

/// The record of the upload as it stands.
pub(super) fn row(store: &Inner, sink: &Sink, footing: Footing) -> UploadRecord {
    UploadRecord {
        offset: sink.written(),
        hash: STANDARD.encode(sink.hash_state()),
        sha512: sink.long_hash_state().map(|state| STANDARD.encode(state)),
        synced: footing == Footing::Synced,
        owner: None,
        lease_until: store.clock.now().after(KEPT_FOR),
    }
}

/// Removes the record of an upload.
pub(super) async fn forget(state: &State, id: UploadId) -> Result<(), BlobError> {
    Ok(state.write(move |tx| tx.delete(&UPLOADS, &id)).await?)
}

/// Goes on with a suspended upload.
pub(super) fn resume(store: &Arc<Inner>, id: &UploadId) -> Result<Option<Writer>, BlobError> {
    let Some(mut sink) = Sink::new(store, id) else { return Err(BlobError::UploadBusy(id.clone())) };
    let Some(record) = store.state.read_blocking(|view| view.get(&UPLOADS, id))? else { return Ok(None) };
    if record.lease_until < store.clock.now() {
        return Ok(None);
    }
    let marks = super::marks::read(store, id)?;
    if marks.is_some() {
        sink.marks().found();
    }
    // The one that says most comes first; what is not there as it says makes the next one count.
    let mut rows = marks.unwrap_or_default();
    rows.push(record);
    rows.sort_by_key(|row| std::cmp::Reverse(row.offset));
    for row in rows {
        if sink.restore(&recorded(id, &row)?)? {
            return Ok(Some(Writer::new(store, id.clone(), sink)));
        }
    }
    Ok(None)
}

fn recorded(id: &UploadId, row: &UploadRecord) -> Result<Recorded, BlobError> {
    let decode = |text: &String| STANDARD.decode(text).map_err(|_| BlobError::UploadDamaged(id.clone()));
    let (hash, long) = (decode(&row.hash)?, row.sha512.as_ref().map(decode).transpose()?);
    let footing = if row.synced { Footing::Synced } else { Footing::Written };
    Ok(Recorded { offset: row.offset, hash, long, footing })
}

/// Removes the records that ran out, with their files; gives how many. What is being written to stays.
pub(super) fn sweep_expired(store: &Inner) -> Result<u64, BlobError> {
    let (mut scan, mut swept) = (Scan::all(), 0);
    loop {
        let page = store.state.read_blocking(|view| view.scan(&UPLOADS, &scan, MAX_SCAN_ROWS))?;
        let Some((last, _)) = page.last() else { return Ok(swept) };
        scan = scan.after(last);
        let now = store.clock.now();
        let expired: Vec<UploadId> = page
            .into_iter()
            .filter(|(id, record)| record.lease_until < now && !store.active.holds(id))
            .map(|(id, _)| id)
            .collect();
        if !expired.is_empty() {
            swept += remove_expired(store, expired, now)?;
        }
    }
}

/// Removes those of these uploads whose record has run out as the transaction itself sees it: a request may have ended
/// and renewed one since it was read.
fn remove_expired(store: &Inner, suspects: Vec<UploadId>, now: Millis) -> Result<u64, BlobError> {
    // The records first: a crash in between leaves files that nothing names, for the sweep at the start.
    let removed = store.state.write_blocking(move |tx| {
        let mut removed = Vec::new();
        for id in &suspects {
            if tx.get(&UPLOADS, id)?.is_some_and(|record| record.lease_until < now) {
                tx.delete(&UPLOADS, id)?;
                removed.push(id.clone());
            }
        }
        Ok::<_, StateError>(removed)
    })?;
    for id in &removed {
        remove_if_there(store, &store.layout.mark(id))?;
        remove_if_there(store, &store.layout.upload(id))?;
    }
    Ok(removed.len() as u64)
}

/// How many records ran out.
pub(super) fn expired(store: &Inner) -> Result<u64, BlobError> {
    let (mut scan, mut count) = (Scan::all(), 0);
    loop {
        let page = store.state.read_blocking(|view| view.scan(&UPLOADS, &scan, MAX_SCAN_ROWS))?;
        let Some((last, _)) = page.last() else { return Ok(count) };
        scan = scan.after(last);
        let now = store.clock.now();
        count +=
            page.iter().filter(|(id, row)| row.lease_until < now && !store.active.holds(id)).count() as u64;
    }
}

/// Removes the files in `uploads/` that no record names, and marks of what is no file any more. Only at the start, before
/// anybody writes.
pub(super) fn sweep_unnamed(store: &Inner) -> Result<u64, BlobError> {
    let io = BlobError::io("sweep unfinished uploads");
    let found = store.files.list(store.layout.uploads()).map_err(&io)?;
    let names: Vec<_> =
        found.into_iter().filter(|found| found.kind != Kind::Folder).map(|found| found.name).collect();
    let all: HashSet<_> = names.iter().collect();
    let mut swept = 0;
    for name in &names {
        let of = Layout::upload_of(name);
        let stays = match &of {
            Some((id, Part::Marks)) if !all.contains(&OsString::from(id.as_str())) => false,
            Some((id, _)) => store.state.read_blocking(|view| view.get(&UPLOADS, id))?.is_some(),
            None => false,
        };
        if !stays {
            remove_if_there(store, &store.layout.uploads().join(name))?;
            swept += u64::from(!matches!(of, Some((_, Part::Marks))));
        }
    }
    Ok(swept)
}

/// Removes the files in `uploads/` that nobody writes to, that no record names and that nobody touched for `age`; gives
/// how many, and how many bytes they had. Safe at any time.
pub(super) fn sweep_leftovers(store: &Inner, age: Duration, act: bool) -> Result<(u64, u64), BlobError> {
    let io = BlobError::io("sweep unfinished uploads");
    let (mut files, mut bytes) = (0, 0);
    for found in store.files.list(store.layout.uploads()).map_err(&io)? {
        let Some((id, part)) = Layout::upload_of(&found.name) else { continue };
        // It may end or be put aside while this looks. Who puts it aside writes the record before it lets go, so the
        // order of these two questions matters.
        if store.active.holds(&id) || store.state.read_blocking(|view| view.get(&UPLOADS, &id))?.is_some() {
            continue;
        }
        if found.kind != Kind::File || super::collect::age(store, &found) < age {
            continue;
        }
        if act {
            remove_if_there(store, &store.layout.uploads().join(&found.name))?;
        }
        files += u64::from(part == Part::Bytes);
        bytes += found.length;
    }
    Ok((files, bytes))
}

pub(super) fn remove_if_there(store: &Inner, path: &Path) -> Result<(), BlobError> {
    match store.files.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(BlobError::Io { step: "remove an unfinished upload", source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::blobs::Blobs;
    use crate::names::{Clock as _, Faults, ManualClock, SystemRandom};

    #[tokio::test]
    async fn an_upload_that_was_renewed_while_the_sweep_looked_keeps_its_record_and_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Millis(1_000)));
        let state = State::open(&folder.path().join("state.redb"), Faults::none()).unwrap();
        let random = Arc::new(SystemRandom);
        let blobs =
            Blobs::open(folder.path(), state, Arc::clone(&clock) as _, random, Faults::none()).await.unwrap();
        let mut suspended = Vec::new();
        for _ in 0..2 {
            let mut writer = blobs.begin().await.unwrap();
            writer.write(vec![7; 300_000].into()).await.unwrap();
            suspended.push(writer.suspend().await.unwrap());
        }
        clock.advance(KEPT_FOR);
        let mut writer = blobs.resume(&suspended[0]).await.unwrap().unwrap();
        clock.advance(Duration::from_secs(1));
        // The sweep read both rows; now the request on the first one ends.
        writer.write(vec![8; 300_000].into()).await.unwrap();
        writer.suspend().await.unwrap();
        let (store, suspects, now) = (Arc::clone(blobs.inner()), suspended.clone(), clock.now());
        let sweep = tokio::task::spawn_blocking(move || remove_expired(&store, suspects, now));
        assert_eq!(sweep.await.unwrap().unwrap(), 1);
        let writer = blobs.resume(&suspended[0]).await.unwrap().expect("it was renewed");
        assert_eq!(writer.written(), 600_000);
        assert!(blobs.resume(&suspended[1]).await.unwrap().is_none());
    }
}
