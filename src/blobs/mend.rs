//! Records, references and files brought together again, after something that should not have happened: a restored
//! backup, a disk that lied, a hand that tidied up.
//!
//! Each flaw has a class, what it is about, and what is or would be done. Nothing is mended by guessing, and no bytes
//! are removed: what nobody names is left to collection, which knows how to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::files::Access;
use super::handle::{Inner, blocking};
use super::references::{BLOBS, BlobRecord, DAMAGED, INLINE, REFERENCES};
use super::{BlobError, Blobs};
use crate::names::{Digest, Millis};
use crate::state::{Read, Scan, StateError, Tx};

/// Rows of one transaction: each of them asks some more.
const PAGE: usize = 200;

/// Something that does not fit together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flaw {
    /// Its class, e.g. `reference_dangling`.
    pub class: String,
    /// What it is about.
    pub subject: String,
    /// What is done about it, as a sentence.
    pub remedy: String,
}

impl Flaw {
    /// A flaw of this class about `subject`.
    #[must_use]
    #[allow(clippy::needless_pass_by_value)] // callers give names and texts made for it alike
    pub fn new(class: &str, subject: impl ToString, remedy: &str) -> Self {
        Self { class: class.to_owned(), subject: subject.to_string(), remedy: remedy.to_owned() }
    }
}

/// Tells whether the owner with this key still names the digest.
pub type OwnerView = fn(&Tx<'_>, &str, &Digest) -> Result<bool, StateError>;

/// Where a run of mending stands, and what the last call saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// From where the next call goes on; `None` at the end.
    pub next: Option<String>,
    /// How many rows were looked at.
    pub seen: u64,
    /// What was found.
    pub flaws: Vec<Flaw>,
}

/// Looks at a page of references: those whose owner is gone, or no longer names the digest, are removed when `act`.
/// Owners of a kind that is not listed are left alone.
///
/// # Errors
/// Those of the state.
pub fn mend_references(
    tx: &mut Tx<'_>,
    after: Option<&str>,
    owners: &[(&'static str, OwnerView)],
    act: bool,
    now: Millis,
) -> Result<Mended, StateError> {
    let from = after.and_then(parse_row);
    let scan = from.map_or_else(Scan::all, |row| Scan::all().after(&row));
    let page = tx.scan(&REFERENCES, &scan, PAGE)?;
    let mut flaws = Vec::new();
    for ((digest, kind, key), ()) in &page {
        let Some((kind, stands)) = owners.iter().find(|(known, _)| known == kind) else { continue };
        if !stands(tx, key, digest)? {
            flaws.push(Flaw::new(
                "reference_dangling",
                format!("{digest} for {kind} {key}"),
                "the owner is gone: the reference is removed",
            ));
            if act {
                super::unlink(tx, digest, &super::Owner::new(kind, key.clone()), now)?;
            }
        }
        if tx.get(&BLOBS, digest)?.is_none() {
            flaws.push(Flaw::new(
                "reference_without_blob",
                format!("{digest} for {kind} {key}"),
                "the blob is recorded as missing, so that a push heals it",
            ));
            if act {
                let lost = super::Stored::known(digest.clone(), 0);
                super::link(tx, &lost, &super::Owner::new(kind, key.clone()))?;
            }
        }
    }
    let next = page.last().filter(|_| page.len() == PAGE);
    let next = next.map(|((digest, kind, key), ())| format!("{digest} {kind} {key}"));
    Ok(Mended { next, seen: page.len() as u64, flaws })
}

fn parse_row(text: &str) -> Option<(Digest, String, String)> {
    let mut parts = text.splitn(3, ' ');
    let digest = Digest::parse(parts.next()?).ok()?;
    Some((digest, parts.next()?.to_owned(), parts.next()?.to_owned()))
}

impl Blobs {
    /// Looks at a page of blobs: whether the time since when nobody refers to one is there exactly when nobody does, and
    /// whether its bytes are where the record says, with the size it says. Mends when `act`.
    ///
    /// # Errors
    /// [`BlobError::Io`], [`BlobError::State`].
    pub async fn mend(&self, after: Option<Digest>, act: bool) -> Result<Mended, BlobError> {
        let store = Arc::clone(self.inner());
        let (mut mended, suspects) = blocking(move || page(&store, after.as_ref(), act)).await?;
        for digest in suspects {
            let what = if act { self.quarantine(&digest).await? } else { None };
            if !act || what.is_some() {
                mended.flaws.push(Flaw::new(
                    "bytes_missing",
                    &digest,
                    "its bytes are gone or of another size: set aside and recorded, so that a push heals it",
                ));
            }
        }
        Ok(mended)
    }
}

/// One page, and the blobs whose bytes are not as recorded.
fn page(store: &Inner, after: Option<&Digest>, act: bool) -> Result<(Mended, Vec<Digest>), BlobError> {
    let (after, now) = (after.cloned(), store.clock.now());
    let (mended, files) = store.state.write_blocking(move |tx| {
        let scan = after.as_ref().map_or_else(Scan::all, |digest| Scan::all().after(digest));
        let page = tx.scan(&BLOBS, &scan, PAGE)?;
        let mut flaws = Vec::new();
        for (digest, record) in &page {
            flaws.extend(mend_record(tx, digest, record, act, now)?);
        }
        let next = page.last().filter(|_| page.len() == PAGE).map(|(digest, _)| digest.to_string());
        let mended = Mended { next, seen: page.len() as u64, flaws };
        Ok::<_, StateError>((mended, page))
    })?;
    let mut suspects = Vec::new();
    for (digest, record) in files.into_iter().filter(|(_, record)| record.damage.is_none()) {
        let there = if record.inline {
            store.state.read_blocking(|view| view.get(&INLINE, &digest))?.map(|bytes| bytes.0.len() as u64)
        } else {
            let path = store.layout.blob(&digest);
            let opened =
                path.map(|path| store.files.open(&path, Access::Read).and_then(|file| file.status()));
            opened.and_then(Result::ok).map(|found| found.length)
        };
        if there != Some(record.size) {
            // It may have been collected since.
            if store.state.read_blocking(|view| view.get(&BLOBS, &digest))?.is_some() {
                suspects.push(digest);
            }
        }
    }
    Ok((mended, suspects))
}

fn mend_record(
    tx: &mut Tx<'_>,
    digest: &Digest,
    record: &BlobRecord,
    act: bool,
    now: Millis,
) -> Result<Vec<Flaw>, StateError> {
    let mut flaws = Vec::new();
    let mut mended = record.clone();
    let referenced = !tx.scan(&REFERENCES, &Scan::prefix(digest), 1)?.is_empty();
    if referenced && record.unreferenced_since.is_some() {
        flaws.push(Flaw::new("marked_though_referenced", digest, "the mark is removed"));
        mended.unreferenced_since = None;
    }
    if !referenced && record.unreferenced_since.is_none() {
        flaws.push(Flaw::new("unmarked_though_unreferenced", digest, "its grace begins now"));
        mended.unreferenced_since = Some(now);
    }
    if record.damage.is_some() != tx.get(&DAMAGED, digest)?.is_some() {
        flaws.push(Flaw::new("damage_not_listed", digest, "the list of damage follows the blob's record"));
        if act {
            match record.damage {
                Some(damage) => {
                    let row = super::references::DamageRecord { found_at: now, damage, size: record.size };
                    tx.put(&DAMAGED, digest, &row)?;
                }
                None => tx.delete(&DAMAGED, digest)?,
            }
        }
    }
    if act && mended != *record {
        tx.put(&BLOBS, digest, &mended)?;
    }
    Ok(flaws)
}
