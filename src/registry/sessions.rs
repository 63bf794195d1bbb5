//! Uploads that are under way: in memory while they are used, put aside as records when they are not, and recorded or
//! marked after each chunk of a client that says where its chunks stand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};

use super::RegistryError;
use crate::blobs::{BlobError, Blobs, Writer};
use crate::names::{Algorithm, Clock, Millis, RepoName, UploadId};
use crate::state::{Read, Scan, State, StateError, Table, Tx, record};

/// An upload that nobody used for so long is put aside, which frees its open file.
const IDLE: Duration = Duration::from_secs(30);
/// An upload that nobody came back to for so long is removed.
const LIFETIME: Duration = Duration::from_hours(24);
/// An upload in chunks is recorded with its first one, and with later ones so often that its record does not run out;
/// after the others a mark beside its file is enough.
const RECORDED_EVERY: Duration = Duration::from_hours(1);
/// How often removed ones are looked for.
const SWEEP_EVERY: Duration = Duration::from_hours(1);
/// So many uploads are kept open; the one idle longest makes room.
const OPEN_CAP: usize = 256;

/// So many of them are one principal's, or where nobody known pushes one address's; others find room whatever these do.
const SHARE: usize = OPEN_CAP / 4;

/// A request that gets no byte for so long leaves its upload to the next one that wants to write to it.
const GRACE: Duration = Duration::from_secs(1);
/// At the end of the process uploads that are in use are waited for so long, all together.
const PATIENCE: Duration = Duration::from_secs(5);

/// Uploads that were put aside, by id; the bytes and the hash state are with `blobs`.
const UPLOADS: Table<UploadId, UploadRecord> = Table::new("registry.uploads");

#[derive(Clone, Debug, Serialize, Deserialize)]
struct UploadRecord {
    /// The repository that the upload was begun in; no other may use it.
    repo: RepoName,
    /// Which part works on the row.
    owner: String,
    /// After this the upload may be removed.
    lease_until: Millis,
    /// Whose share it counts in.
    #[serde(default)]
    holder: String,
}
record!(UploadRecord, 1);

/// The uploads of one process.
pub(super) struct Sessions {
    state: State,
    blobs: Blobs,
    clock: Arc<dyn Clock>,
    open: Mutex<HashMap<UploadId, Entry>>,
    /// Held while a record is turned back into a session, so that one file never gets two writers.
    resuming: AsyncMutex<()>,
    swept_at: Mutex<Millis>,
}

struct Entry {
    repo: RepoName,
    /// Whose share it counts in.
    holder: Arc<str>,
    slot: Arc<AsyncMutex<Slot>>,
    standing: Arc<Standing>,
    touched: Millis,
}

/// What can be known and asked of an upload while a request uses it.
#[derive(Default)]
struct Standing {
    /// How many bytes are in.
    received: AtomicU64,
    wanted: watch::Sender<Wanted>,
}

/// How many requests wait for an upload.
#[derive(Clone, Copy, Debug, Default)]
struct Wanted {
    to_write: usize,
    to_end: usize,
}

/// What a request wants an upload for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To write to it: whoever uses it may go on while its bytes come.
    Write,
    /// To end it: whoever uses it stops.
    End,
}

/// Counts as waiting for as long as it lives.
struct Waiting<'a>(&'a Standing, Purpose);

impl<'a> Waiting<'a> {
    fn new(standing: &'a Standing, purpose: Purpose) -> Self {
        standing.wanted.send_modify(|wanted| *wanted.of(purpose) += 1);
        Self(standing, purpose)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.wanted.send_modify(|wanted| *wanted.of(self.1) -= 1);
    }
}

impl Wanted {
    fn of(&mut self, purpose: Purpose) -> &mut usize {
        match purpose {
            Purpose::Write => &mut self.to_write,
            Purpose::End => &mut self.to_end,
        }
    }
}

/// An upload in the hand of one request.
pub(super) struct Held {
    slot: OwnedMutexGuard<Slot>,
    standing: Arc<Standing>,
}

impl Held {
    /// The writer, which is there for as long as the slot is held.
    pub(super) fn writer(&mut self) -> Result<&mut Writer, RegistryError> {
        self.slot.writer()
    }

    /// Takes the next piece, and lets others know.
    pub(super) async fn write(&mut self, piece: Bytes) -> Result<(), RegistryError> {
        let Self { slot, standing } = self;
        let writer = slot.writer()?;
        // Told beforehand: the writer takes it at once, also when this request ends before the call does.
        standing.received.store(writer.written() + piece.len() as u64, Ordering::Release);
        Ok(writer.write(piece).await?)
    }

    /// Resolves when this request should leave the upload to another, no byte having come since it was called.
    pub(super) async fn called_off(&self) {
        let mut wanted = self.standing.wanted.subscribe();
        loop {
            // The sender is in `standing`, which lives.
            let now = wanted.wait_for(|wanted| wanted.to_end + wanted.to_write > 0).await;
            if now.is_ok_and(|now| now.to_end > 0) {
                return;
            }
            let ending =
                tokio::time::timeout(GRACE, wanted.wait_for(|wanted| wanted.to_end > 0)).await.is_ok();
            if ending || wanted.borrow().to_write > 0 {
                return;
            }
        }
    }
}

/// What one request at a time works on.
struct Slot {
    writer: Option<Writer>,
    /// A record of it exists, which its end must remove.
    recorded: bool,
    /// When it was last recorded how far it has come, by this process.
    recorded_at: Option<Millis>,
    holder: Arc<str>,
}

impl Slot {
    fn writer(&mut self) -> Result<&mut Writer, RegistryError> {
        self.writer.as_mut().ok_or(RegistryError::UploadUnknown)
    }
}

impl Sessions {
    pub(super) fn new(state: State, blobs: Blobs, clock: Arc<dyn Clock>) -> Self {
        Self {
            state,
            blobs,
            clock,
            open: Mutex::default(),
            resuming: AsyncMutex::new(()),
            swept_at: Mutex::default(),
        }
    }

    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<UploadId, Entry>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an upload of a blob that will be named by this algorithm, as far as known; it counts in the share of its
    /// holder.
    pub(super) async fn begin(
        &self,
        repo: &RepoName,
        algorithm: Algorithm,
        holder: &str,
    ) -> Result<UploadId, RegistryError> {
        self.make_room(holder).await?;
        let writer = self.blobs.begin_named(algorithm).await?;
        let id = writer.id().clone();
        self.insert(id.clone(), repo.clone(), holder.into(), writer, false);
        Ok(id)
    }

    fn insert(&self, id: UploadId, repo: RepoName, holder: Arc<str>, writer: Writer, recorded: bool) {
        let standing = Arc::new(Standing::default());
        standing.received.store(writer.written(), Ordering::Release);
        let slot = Slot { writer: Some(writer), recorded, recorded_at: None, holder: holder.clone() };
        let slot = Arc::new(AsyncMutex::new(slot));
        let entry = Entry { repo, holder, slot, standing, touched: self.clock.now() };
        self.map().insert(id, entry);
    }

    /// Takes hold of an upload of this repository; a request that uses it is called off, or waited for.
    pub(super) async fn hold(
        &self,
        repo: &RepoName,
        id: &UploadId,
        purpose: Purpose,
    ) -> Result<Held, RegistryError> {
        // A slot can be put aside while one waits for it; the next round finds it again.
        for _ in 0..8 {
            let Some((slot, standing)) = self.find(repo, id)? else {
                self.resume(repo, id).await?;
                continue;
            };
            let waiting = Waiting::new(&standing, purpose);
            let slot = slot.lock_owned().await;
            drop(waiting);
            if slot.writer.is_some() {
                return Ok(Held { slot, standing });
            }
        }
        Err(RegistryError::UploadUnknown)
    }

    /// How many bytes are in an upload of this repository; waits for nobody.
    pub(super) async fn received(&self, repo: &RepoName, id: &UploadId) -> Result<u64, RegistryError> {
        if self.find(repo, id)?.is_none() {
            self.resume(repo, id).await?;
        }
        let (_, standing) = self.find(repo, id)?.ok_or(RegistryError::UploadUnknown)?;
        Ok(standing.received.load(Ordering::Acquire))
    }

    #[allow(clippy::type_complexity, reason = "both are shared with the entry; a name would say no more")]
    fn find(
        &self,
        repo: &RepoName,
        id: &UploadId,
    ) -> Result<Option<(Arc<AsyncMutex<Slot>>, Arc<Standing>)>, RegistryError> {
        let now = self.clock.now();
        let mut map = self.map();
        let Some(entry) = map.get_mut(id) else { return Ok(None) };
        if entry.repo != *repo {
            return Err(RegistryError::UploadUnknown);
        }
        entry.touched = now;
        Ok(Some((entry.slot.clone(), entry.standing.clone())))
    }

    /// Makes a session of a record again.
    async fn resume(&self, repo: &RepoName, id: &UploadId) -> Result<(), RegistryError> {
        let _one_at_a_time = self.resuming.lock().await;
        if self.map().contains_key(id) {
            return Ok(());
        }
        let key = id.clone();
        let record = self.state.read(move |view| view.get(&UPLOADS, &key)).await?;
        let record = record.filter(|record| record.repo == *repo).ok_or(RegistryError::UploadUnknown)?;
        self.make_room(&record.holder).await?;
        let writer = self.blobs.resume(id).await?.ok_or(RegistryError::UploadUnknown)?;
        self.insert(id.clone(), repo.clone(), record.holder.into(), writer, true);
        Ok(())
    }

    /// Records how far an upload has come, which goes on.
    pub(super) async fn checkpoint(
        &self,
        repo: &RepoName,
        id: &UploadId,
        held: &mut Held,
    ) -> Result<(), RegistryError> {
        let now = self.clock.now();
        if held.slot.recorded_at.is_some_and(|at| now.since(at) < RECORDED_EVERY) {
            return Ok(held.writer()?.mark().await?);
        }
        held.writer()?.flush().await?;
        held.slot.recorded = true;
        let record = self.record_of(repo, &held.slot);
        let key = id.clone();
        // Both at once, so that they share a commit.
        let put = self.state.write(move |tx| tx.put(&UPLOADS, &key, &record));
        let (kept, put) = tokio::join!(held.writer()?.checkpoint(), put);
        kept?;
        put?;
        held.slot.recorded_at = Some(now);
        Ok(())
    }

    fn record_of(&self, repo: &RepoName, slot: &Slot) -> UploadRecord {
        let (lease_until, holder) = (self.clock.now().after(LIFETIME), slot.holder.to_string());
        UploadRecord { repo: repo.clone(), owner: "registry".to_owned(), lease_until, holder }
    }

    /// Takes the writer out for good; the session is gone whatever comes of it.
    pub(super) fn take(&self, id: &UploadId, mut held: Held) -> Result<Taken, RegistryError> {
        self.map().remove(id);
        let writer = held.slot.writer.take().ok_or(RegistryError::UploadUnknown)?;
        Ok(Taken { writer, recorded: held.slot.recorded })
    }

    /// Ends an upload without a blob.
    pub(super) async fn cancel(&self, id: &UploadId, held: Held) -> Result<(), RegistryError> {
        let taken = self.take(id, held)?;
        taken.writer.discard().await?;
        if taken.recorded {
            let id = id.clone();
            self.state.write(move |tx| forget(tx, &id)).await?;
        }
        Ok(())
    }

    /// Sees that one more of this holder may be opened: one that is idle makes room, the holder's own when its share is
    /// used up.
    async fn make_room(&self, holder: &str) -> Result<(), RegistryError> {
        let oldest = {
            let map = self.map();
            let own = map.values().filter(|entry| *entry.holder == *holder).count();
            if own < SHARE && map.len() < OPEN_CAP {
                return Ok(());
            }
            let within = map.iter().filter(|(_, entry)| own < SHARE || *entry.holder == *holder);
            let idle = within.filter(|(_, entry)| entry.slot.try_lock().is_ok());
            idle.min_by_key(|(_, entry)| entry.touched).map(|(id, _)| id.clone())
        };
        let oldest = oldest.ok_or(RegistryError::TooManyUploads)?;
        self.suspend(&oldest).await;
        Ok(())
    }

    /// Puts one upload aside, unless a request uses it.
    pub(super) async fn suspend(&self, id: &UploadId) {
        let Some((repo, slot)) = self.map().get(id).map(|entry| (entry.repo.clone(), entry.slot.clone()))
        else {
            return;
        };
        if let Ok(held) = slot.try_lock_owned() {
            self.put_aside(id, repo, held).await;
        }
    }

    async fn put_aside(&self, id: &UploadId, repo: RepoName, mut held: OwnedMutexGuard<Slot>) {
        // The lock is held until the record is there, so that who waits for the slot finds the record afterwards.
        let Some(writer) = held.writer.take() else { return };
        let record = self.record_of(&repo, &held);
        // Both at once, so that they share a commit. One without the other is swept when its lease has passed.
        let key = id.clone();
        let put = self.state.write(move |tx| tx.put(&UPLOADS, &key, &record));
        let (suspended, put) = tokio::join!(writer.suspend(), put);
        let kept = suspended.map_err(RegistryError::Blobs).and(put.map_err(RegistryError::State));
        self.map().remove(id);
        if let Err(error) = kept {
            tracing::warn!(upload.id = %id, %error, "an upload could not be put aside and is lost");
        }
    }

    /// Puts every upload aside. One that a request uses is waited for, which calls that request off; so is one that is
    /// being put aside at this moment, as its record must be there before the process ends.
    pub(super) async fn suspend_all(&self) {
        let all: Vec<_> = {
            let map = self.map();
            let entry = |(id, entry): (&UploadId, &Entry)| {
                (id.clone(), entry.repo.clone(), entry.slot.clone(), entry.standing.clone())
            };
            map.iter().map(entry).collect()
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        for (id, repo, slot, standing) in all {
            let waiting = Waiting::new(&standing, Purpose::End);
            let held = tokio::time::timeout_at(deadline, slot.lock_owned()).await;
            drop(waiting);
            if let Ok(held) = held {
                self.put_aside(&id, repo, held).await;
            } else {
                tracing::warn!(upload.id = %id, "an upload is in use to the end and is lost");
            }
        }
    }

    /// How many uploads are in memory at this moment.
    pub(super) fn count(&self) -> usize {
        self.map().len()
    }

    pub(super) async fn tend(&self) {
        let now = self.clock.now();
        let idle: Vec<UploadId> = {
            let map = self.map();
            map.iter()
                .filter(|(_, entry)| now.since(entry.touched) >= IDLE)
                .map(|(id, _)| id.clone())
                .collect()
        };
        for id in idle {
            self.suspend(&id).await;
        }
        {
            let mut swept_at = self.swept_at.lock().unwrap_or_else(PoisonError::into_inner);
            if now.since(*swept_at) < SWEEP_EVERY {
                return;
            }
            *swept_at = now;
        }
        if let Err(error) = self.sweep(now).await {
            tracing::warn!(%error, "abandoned uploads could not be swept");
        }
    }

    /// Removes uploads whose lease has passed; a page a call, the oldest first, as ids grow with time.
    async fn sweep(&self, now: Millis) -> Result<(), RegistryError> {
        self.blobs.sweep_uploads().await?;
        let rows = self.state.read(|view| view.scan(&UPLOADS, &Scan::all(), 200)).await?;
        for (id, _) in rows.into_iter().filter(|(_, record)| record.lease_until <= now) {
            self.abandon(id, now).await?;
        }
        Ok(())
    }

    /// Removes an upload whose lease has passed, unless a client went on with it since that was read.
    async fn abandon(&self, id: UploadId, now: Millis) -> Result<(), RegistryError> {
        let _one_at_a_time = self.resuming.lock().await;
        // First the sessions, then the record: who puts one aside writes the record before the session goes.
        if self.map().contains_key(&id) {
            return Ok(());
        }
        let key = id.clone();
        let record = self.state.read(move |view| view.get(&UPLOADS, &key)).await?;
        if record.is_none_or(|record| record.lease_until > now) {
            return Ok(());
        }
        match self.blobs.resume(&id).await {
            Ok(Some(writer)) => writer.discard().await?,
            Ok(None) => {}
            // Nobody can go on with it; its file is swept with its own record.
            Err(BlobError::UploadDamaged(_)) => {
                tracing::warn!(upload.id = %id, "the record of an abandoned upload is damaged");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(self.state.write(move |tx| forget(tx, &id)).await?)
    }
}

/// A writer that belongs to no session any more.
pub(super) struct Taken {
    pub(super) writer: Writer,
    pub(super) recorded: bool,
}

/// Removes the record of an upload.
pub(super) fn forget(tx: &mut Tx<'_>, id: &UploadId) -> Result<(), StateError> {
    tx.delete(&UPLOADS, id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::names::{Faults, ManualClock, SystemRandom};

    #[tokio::test]
    async fn an_upload_that_a_client_went_on_with_while_the_sweep_looked_stays() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state.redb"), Faults::none()).unwrap();
        let (clock, random) = (Arc::new(ManualClock::at(Millis(1_000))), Arc::new(SystemRandom));
        let opened = Blobs::open(folder.path(), state.clone(), clock.clone(), random, Faults::none()).await;
        let sessions = Sessions::new(state, opened.unwrap(), clock.clone());
        let repo = RepoName::parse("local/app").unwrap();
        let mut ids = Vec::new();
        for _ in 0..2 {
            let id = sessions.begin(&repo, Algorithm::Sha256, "somebody").await.unwrap();
            let mut held = sessions.hold(&repo, &id, Purpose::Write).await.unwrap();
            held.write(Bytes::from_static(b"half")).await.unwrap();
            drop(held);
            sessions.suspend(&id).await;
            ids.push(id);
        }
        clock.advance(LIFETIME.checked_sub(Duration::from_secs(1)).unwrap());
        // The sweep reads both rows a little later, when the client is back on the first one and leaves again.
        let mut held = sessions.hold(&repo, &ids[0], Purpose::Write).await.unwrap();
        held.write(Bytes::from_static(b" and half")).await.unwrap();
        drop(held);
        sessions.suspend(&ids[0]).await;
        clock.advance(Duration::from_secs(2));
        for id in &ids {
            sessions.abandon(id.clone(), clock.now()).await.unwrap();
        }
        assert_eq!(sessions.received(&repo, &ids[0]).await.unwrap(), 13);
        let gone = sessions.received(&repo, &ids[1]).await;
        assert!(matches!(gone, Err(RegistryError::UploadUnknown)), "{gone:?}");
    }
}
