//! Whether the bytes are still those of their names, and what becomes of those that are not.
//!
//! Damage is found by [`Blobs::verify`] and acted on by [`Blobs::quarantine`], which looks once more while nobody else
//! can touch the file, moves it to `<root>/quarantine/` and then flags the record. From then on the blob counts as not
//! there: it is not answered, cannot be mounted or named by a manifest, and a push of the same bytes heals it. Who
//! refers to it stays recorded, so that what is affected can be told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256, Sha512};
use tokio::task::spawn_blocking;

use super::files::{Access, OpenFile};
use super::handle::{Inner, blocking};
use super::references::{BLOBS, BlobRecord, DAMAGED, DamageRecord, INLINE, REFERENCES};
use super::{BlobError, Blobs, Damage};
use crate::names::{Algorithm, Digest, Millis};
use crate::state::{Raw, Read, Scan, StateError};

/// So much is read between two looks at the pace, and at whether anybody still wants to know.
const STRETCH_BYTES: usize = 8 * 1_024 * 1_024;
const READ_BYTES: usize = 256 * 1_024;
/// What was read more slowly than allowed is made up for by so much at most.
const CREDIT: Duration = Duration::from_millis(50);
/// How long a damaged blob is waited for that somebody is just pushing again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A blob as the records know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownBlob {
    /// Its digest.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Since when nothing refers to it.
    pub unreferenced_since: Option<Millis>,
    /// What was found wrong with it.
    pub damage: Option<Damage>,
}

/// A blob whose bytes are damaged or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBlob {
    /// Its digest.
    pub digest: Digest,
    /// What is wrong with it.
    pub damage: Damage,
    /// When that was found; zero when it was never there.
    pub found_at: Millis,
    /// In bytes, as it was stored.
    pub size: u64,
}

/// What was found about the bytes of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are those of its digest.
    Intact {
        /// Names by another algorithm that are not names of these bytes.
        false_names: Vec<Digest>,
    },
    /// They are others.
    Damaged,
    /// They are not there.
    Missing,
    /// It was found damaged before, and was not pushed again since.
    Known(Damage),
    /// It was collected since it was listed.
    Gone,
}

/// The known blobs after `after`, in order of their digests, `limit` (≤ 1,000) at most.
///
/// # Errors
/// [`StateError`] when the records cannot be read.
pub fn known(view: &impl Read, after: Option<&Digest>, limit: usize) -> Result<Vec<KnownBlob>, StateError> {
    let scan = after.map_or_else(Scan::all, |digest| Scan::all().after(digest));
    let rows = view.scan(&BLOBS, &scan, limit)?;
    Ok(rows
        .into_iter()
        .map(|(digest, record)| KnownBlob {
            digest,
            size: record.size,
            unreferenced_since: record.unreferenced_since,
            damage: record.damage,
        })
        .collect())
}

/// The blobs that are damaged or gone, after `after`, `limit` (≤ 1,000) at most.
///
/// # Errors
/// [`StateError`] when the records cannot be read.
pub fn damaged(
    view: &impl Read,
    after: Option<&Digest>,
    limit: usize,
) -> Result<Vec<DamagedBlob>, StateError> {
    let scan = after.map_or_else(Scan::all, |digest| Scan::all().after(digest));
    let rows = view.scan(&DAMAGED, &scan, limit)?;
    Ok(rows
        .into_iter()
        .map(|(digest, row)| DamagedBlob {
            digest,
            damage: row.damage,
            found_at: row.found_at,
            size: row.size,
        })
        .collect())
}

/// Who refers to a blob, as (kind, key), `limit` (≤ 1,000) at most.
///
/// # Errors
/// [`StateError`] when the records cannot be read.
pub fn owners(view: &impl Read, digest: &Digest, limit: usize) -> Result<Vec<(String, String)>, StateError> {
    let rows = view.scan(&REFERENCES, &Scan::prefix(digest), limit)?;
    Ok(rows.into_iter().map(|((_, kind, key), ())| (kind, key)).collect())
}

/// Hashes a file, or bytes, piece by piece.
struct Hashing {
    sha256: Sha256,
    sha512: Option<Sha512>,
}

impl Hashing {
    fn new(names: &[Digest]) -> Self {
        let wanted = names.iter().any(|name| name.algorithm() == Algorithm::Sha512);
        Self { sha256: Sha256::new(), sha512: wanted.then(Sha512::new) }
    }

    fn update(&mut self, piece: &[u8]) {
        self.sha256.update(piece);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(piece);
        }
    }

    fn verdict(self, digest: &Digest, names: &[Digest]) -> Verdict {
        if Digest::from_sha256(self.sha256.finalize().into()) != *digest {
            return Verdict::Damaged;
        }
        let sha512 = self.sha512.map(|hash| Digest::from_sha512(hash.finalize().into()));
        let is_false = |name: &&Digest| match name.algorithm() {
            Algorithm::Sha256 => *name != digest,
            Algorithm::Sha512 => Some(*name) != sha512.as_ref(),
        };
        Verdict::Intact { false_names: names.iter().filter(is_false).cloned().collect() }
    }
}

/// How fast is read. One for everything that is read in turn, so that many small blobs come no faster than a large one.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: Option<u64>,
    /// When what was read so far may have been read.
    due: Instant,
}

impl Default for Pace {
    /// As fast as it goes.
    fn default() -> Self {
        Self { bytes_per_second: None, due: Instant::now() }
    }
}

impl Pace {
    /// Reads at most so many bytes in a second from now on; as fast as it goes where that is none or zero.
    pub fn limit(&mut self, bytes_per_second: Option<u64>) {
        self.bytes_per_second = bytes_per_second.filter(|rate| *rate > 0);
    }

    /// Waits until these bytes may have been read.
    async fn spend(&mut self, bytes: u64) {
        let Some(rate) = self.bytes_per_second else { return };
        let now = Instant::now();
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        // Due in the future is what nobody waited for to the end.
        let took = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
        self.due = self.due.clamp(earliest, now) + took;
        tokio::time::sleep(self.due.saturating_duration_since(now)).await;
    }
}

/// A file that is read in turn, to whatever end it has.
struct Reading {
    file: Box<dyn OpenFile>,
    at: u64,
}

enum Source {
    Bytes(Vec<u8>),
    File(Reading),
    None(Verdict),
}

impl Blobs {
    /// Hashes the bytes of a blob again, as they are on the disk, and compares them with its digest and with its other
    /// `names`. Keeps to the `pace`, and tells `progress` how many bytes it has read. Changes nothing.
    ///
    /// # Errors
    /// [`BlobError::Io`] when they cannot be read, [`BlobError::State`].
    pub async fn verify(
        &self,
        digest: &Digest,
        names: &[Digest],
        pace: &mut Pace,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<Verdict, BlobError> {
        let (store, key) = (Arc::clone(self.inner()), digest.clone());
        let mut file = match blocking(move || source(&store, &key)).await? {
            Source::None(verdict) => return Ok(verdict),
            Source::Bytes(bytes) => {
                progress(bytes.len() as u64);
                pace.spend(bytes.len() as u64).await;
                let mut hashing = Hashing::new(names);
                hashing.update(&bytes);
                return Ok(hashing.verdict(digest, names));
            }
            Source::File(file) => file,
        };
        let mut hashing = Hashing::new(names);
        loop {
            let stretch = spawn_blocking(move || {
                let count = stretch(&mut file, &mut hashing)?;
                Ok::<_, std::io::Error>((file, hashing, count))
            });
            let (back, hash, count) = stretch
                .await
                .map_err(|_| BlobError::Stopping)?
                .map_err(BlobError::io("read a blob to verify it"))?;
            (file, hashing) = (back, hash);
            progress(count as u64);
            pace.spend(count as u64).await;
            if count < STRETCH_BYTES {
                return Ok(hashing.verdict(digest, names));
            }
        }
    }

    /// Looks once more at a blob that was found damaged or missing, with nobody else at it; if it is, its bytes are set
    /// aside in `<root>/quarantine` and its record is flagged. `None` when it is intact after all, was flagged before,
    /// or is gone, and nothing is done.
    ///
    /// # Errors
    /// [`BlobError::InUse`] while somebody is storing the same bytes; [`BlobError::Io`], [`BlobError::State`].
    pub async fn quarantine(&self, digest: &Digest) -> Result<Option<Damage>, BlobError> {
        let (store, digest) = (Arc::clone(self.inner()), digest.clone());
        blocking(move || quarantine(&store, &digest)).await
    }
}

/// Opens what is to be hashed.
fn source(store: &Inner, digest: &Digest) -> Result<Source, BlobError> {
    let key = digest.clone();
    let found = store.state.read_blocking(|view| {
        let Some(record) = view.get(&BLOBS, &key)? else { return Ok(None) };
        let bytes = if record.inline { view.get(&INLINE, &key)? } else { None };
        Ok::<_, StateError>(Some((record, bytes)))
    })?;
    let Some((record, bytes)) = found else { return Ok(Source::None(Verdict::Gone)) };
    if let Some(damage) = record.damage {
        return Ok(Source::None(Verdict::Known(damage)));
    }
    if record.inline {
        return Ok(bytes.map_or(Source::None(Verdict::Missing), |Raw(bytes)| Source::Bytes(bytes)));
    }
    let Some(path) = store.layout.blob(digest) else { return Ok(Source::None(Verdict::Missing)) };
    let io = BlobError::io("open a blob to verify it");
    let file = match store.files.open(&path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Collected meanwhile, or really missing.
            let still = store.state.read_blocking(|view| view.get(&BLOBS, digest))?.is_some();
            return Ok(Source::None(if still { Verdict::Missing } else { Verdict::Gone }));
        }
        Err(error) => return Err(io(error)),
    };
    if file.status().map_err(&io)?.length != record.size {
        return Ok(Source::None(Verdict::Damaged));
    }
    file.read_anew();
    Ok(Source::File(Reading { file, at: 0 }))
}

/// Hashes up to [`STRETCH_BYTES`]; fewer only at the end of the file.
fn stretch(reading: &mut Reading, hashing: &mut Hashing) -> std::io::Result<usize> {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    let mut total = 0;
    while total < STRETCH_BYTES {
        buffer.clear();
        match reading.file.read_at(&mut buffer, reading.at) {
            Ok(0) => break,
            Ok(count) => {
                hashing.update(&buffer);
                reading.at += count as u64;
                total += count;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

fn quarantine(store: &Inner, digest: &Digest) -> Result<Option<Damage>, BlobError> {
    let Some(_seized) = store.pins.seize_within(digest, PATIENCE) else {
        return Err(BlobError::InUse(digest.clone()));
    };
    let verdict = match source(store, digest)? {
        Source::None(verdict) => verdict,
        Source::Bytes(bytes) => {
            let verdict = whole(digest, |hashing| {
                hashing.update(&bytes);
                Ok(())
            })?;
            if verdict == Verdict::Damaged {
                let kept = store.layout.keep_aside(&*store.files, digest, &bytes);
                kept.map_err(BlobError::io("set damaged bytes aside"))?;
            }
            verdict
        }
        Source::File(mut file) => whole(digest, |hashing| {
            while stretch(&mut file, hashing)? == STRETCH_BYTES {}
            Ok(())
        })?,
    };
    let damage = match verdict {
        Verdict::Damaged => Damage::Damaged,
        Verdict::Missing => Damage::Missing,
        Verdict::Intact { .. } | Verdict::Known(_) | Verdict::Gone => return Ok(None),
    };
    if damage == Damage::Damaged {
        store.faults.pass("blobs.quarantine.before_move");
        // First the file: flagged but in its place, it would be taken for good by the next push of the same size.
        let moved = store
            .layout
            .set_aside(&*store.files, digest)
            .map_err(BlobError::io("set a damaged blob aside"))?;
        store.faults.pass("blobs.quarantine.after_move");
        tracing::error!(%digest, to = ?moved, "a blob is damaged and was set aside; push it again to heal it");
    } else {
        tracing::error!(%digest, "the bytes of a blob are missing; push it again to heal it");
    }
    let (key, now) = (digest.clone(), store.clock.now());
    store.state.write_blocking(move |tx| {
        let Some(record) = tx.get(&BLOBS, &key)? else { return Ok(()) };
        let size = record.size;
        tx.put(&BLOBS, &key, &BlobRecord { damage: Some(damage), ..record })?;
        tx.put(&DAMAGED, &key, &DamageRecord { found_at: now, damage, size })
    })?;
    store.faults.pass("blobs.quarantine.after_flag");
    Ok(Some(damage))
}

fn whole(
    digest: &Digest,
    feed: impl FnOnce(&mut Hashing) -> std::io::Result<()>,
) -> Result<Verdict, BlobError> {
    let mut hashing = Hashing::new(&[]);
    feed(&mut hashing).map_err(BlobError::io("read a blob to verify it"))?;
    Ok(hashing.verdict(digest, &[]))
}
