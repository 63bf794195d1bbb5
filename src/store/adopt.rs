//! Submissions of schema 17 that were dispatched already: they have no change, and nobody would wait for their result.
//!
//! Each gets a change that waits for the result and publishes it. Whoever dispatched it may sign with the nonce that
//! the row kept. A row that lacks what publishing needs is waited for all the same, as its result is owed an answer;
//! it ends with a finding that names what it lacks, and is not tested again.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::blobs::{self, BlobError, Stored};
use crate::changes::{self, NewChange};
use crate::names::{ChangeId, Digest, Millis, SubmissionId};
use crate::packs::{self, Pack, PackError};
use crate::state::{Read, Scan, StateError, Tx, Value as _};

use super::claims;
use super::manifest::{self, Manifest};
use super::record::{
    self, AttemptRow, AttemptState, BlobRow, PackRow, SUBMISSION_BYTES, SUBMISSIONS, SubmissionRecord,
    SubmissionState, VERSIONS,
};
use super::refusal::StoreRefusal;
use super::service::{Inner, Store};
use super::tasks;

/// Rows of one reading transaction.
const PAGE: usize = 20;

impl Store {
    /// Makes a change for each submission that awaits a result and has none; gives how many there were. To be called
    /// before the engine starts; calling it again changes nothing.
    ///
    /// A row that can't be read, or not be written, is left as it is and said in the log.
    ///
    /// # Errors
    /// [`StoreRefusal`] when the rows can't be listed.
    pub async fn adopt(&self) -> Result<usize, StoreRefusal> {
        let mut scan = Scan::all();
        let mut adopted = 0;
        loop {
            let page = scan.clone();
            let rows = self.0.parts.state.read(move |view| view.scan(&SUBMISSION_BYTES, &page, PAGE)).await?;
            for (id, bytes) in &rows {
                match SubmissionRecord::from_bytes(&bytes.0) {
                    Ok(row) if is_orphan(&row) => match self.0.adopt(id, &row).await {
                        Ok(done) => adopted += usize::from(done),
                        Err(error) => {
                            tracing::error!(submission = %id, %error, code = error.code, "it can't be waited for");
                        }
                    },
                    Ok(_) => {}
                    Err(error) => tracing::warn!(submission = %id, %error, "a row can't be read"),
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => scan = Scan::all().after(last),
                _ => break,
            }
        }
        if adopted > 0 {
            self.0.parts.changes.wake();
        }
        Ok(adopted)
    }
}

fn is_orphan(row: &SubmissionRecord) -> bool {
    row.state == SubmissionState::AwaitingResult && row.change.is_none()
}

/// What publishing needs, as far as it is found outside the transaction.
struct Whole {
    manifest: Manifest,
    stored: Stored,
    pack: Pack,
}

impl Inner {
    async fn adopt(&self, id: &SubmissionId, row: &SubmissionRecord) -> Result<bool, StoreRefusal> {
        let whole = self.whole(row).await?;
        let adoption = Adoption {
            id: id.clone(),
            change: ChangeId::new(self.parts.clock.as_ref(), self.parts.random.as_ref()),
            now: self.now(),
            whole,
        };
        self.parts.faults.pass("store.adopt");
        let adopted = self.parts.state.write(move |tx| adoption.write(tx)).await?;
        self.parts.faults.pass("store.adopted");
        if let Adopted::Lacking(lacks) = &adopted {
            tracing::warn!(submission = %id, lacks, "a submission of an older Pantry can't be published");
        }
        Ok(adopted != Adopted::NotNeeded)
    }

    /// The manifest and the pack of a row, or what it lacks of them.
    async fn whole(&self, row: &SubmissionRecord) -> Result<Result<Whole, String>, StoreRefusal> {
        let context =
            row.rest.get("context").and_then(Value::as_object).filter(|context| !context.is_empty());
        let Some(context) = context else { return Ok(Err("its context is empty".to_owned())) };
        let Some(declared) = context.get("manifest") else {
            return Ok(Err("its context has no manifest".to_owned()));
        };
        let manifest = match manifest::parse_json(declared) {
            Ok(manifest) => manifest,
            Err(findings) => {
                let first = findings.into_iter().next().and_then(|finding| finding.message);
                return Ok(Err(format!("its manifest is not valid: {}", first.unwrap_or_default())));
            }
        };
        let Some(digest) = dispatched(row) else { return Ok(Err("no pack digest is kept".to_owned())) };
        let pack = match packs::load(&self.parts.blobs, &digest).await {
            Ok(pack) => pack,
            Err(PackError::State(error) | PackError::Blob(BlobError::State(error))) => {
                return Err(error.into());
            }
            Err(error) => return Ok(Err(format!("its pack {digest} can't be read: {error}"))),
        };
        let info = &pack.info;
        if info.name != manifest.name || info.version != manifest.version {
            let (named, found) = (format!("{} {}", manifest.name, manifest.version), &info.version);
            return Ok(Err(format!("its pack is {} {found}, and its manifest says {named}", info.name)));
        }
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|error| StoreRefusal::internal("manifest_not_written", &error))?;
        let stored = self.parts.blobs.put(Bytes::from(bytes)).await?;
        Ok(Ok(Whole { manifest, stored, pack }))
    }
}

/// The digest that was dispatched.
fn dispatched(row: &SubmissionRecord) -> Option<Digest> {
    let kept = || row.rest.get("context")?.get("pack_digest")?.as_str();
    row.pack_digest.clone().or_else(|| Digest::parse(kept()?).ok())
}

/// What came of a row.
#[derive(Debug, PartialEq, Eq)]
enum Adopted {
    /// It has a change, or has ended, already.
    NotNeeded,
    /// It can be published.
    Whole,
    /// It can't, for this reason.
    Lacking(String),
}

/// Everything that the transaction of one row writes.
struct Adoption {
    id: SubmissionId,
    change: ChangeId,
    now: Millis,
    whole: Result<Whole, String>,
}

impl Adoption {
    fn write(&self, tx: &mut Tx<'_>) -> Result<Adopted, StateError> {
        let Some(mut row) = tx.get(&SUBMISSIONS, &self.id)?.filter(is_orphan) else {
            return Ok(Adopted::NotNeeded);
        };
        row.lacks = match &self.whole {
            Ok(whole) => self.complete(tx, &mut row, whole)?.err(),
            Err(lacks) => Some(lacks.clone()),
        };
        take_over(&mut row, self.now);
        let change = NewChange {
            id: self.change.clone(),
            kind: tasks::CHANGE_KIND.to_owned(),
            summary: "Publish a package that an older Pantry dispatched".to_owned(),
            subject: self.id.to_string(),
            tasks: tasks::ADOPTED_KINDS.to_vec(),
            conflicts: Vec::new(),
            data: json!({ "submission": self.id, "adopted": true }),
            by: if row.by.is_empty() { "pantry".to_owned() } else { row.by.clone() },
        };
        if changes::create(tx, self.now, &change)?.is_err() {
            return Ok(Adopted::NotNeeded);
        }
        row.change = Some(self.change.to_string());
        tx.put(&SUBMISSIONS, &self.id, &row)?;
        Ok(row.lacks.map_or(Adopted::Whole, Adopted::Lacking))
    }

    /// Makes the row one as it is written today. Nothing is written where something is lacking.
    fn complete(
        &self,
        tx: &mut Tx<'_>,
        row: &mut SubmissionRecord,
        whole: &Whole,
    ) -> Result<Result<(), String>, StateError> {
        let (manifest, pack) = (&whole.manifest, &whole.pack);
        let publisher = &pack.info.publisher;
        if row.publisher.as_ref().is_some_and(|known| known != publisher) {
            return Ok(Err(format!(
                "its pack is published by `{publisher}`, and it was submitted by another"
            )));
        }
        let size_of = |tx: &Tx<'_>, digest: &Digest| blobs::is_known(tx, digest);
        let mut sizes = Vec::with_capacity(pack.layers.len() + 2);
        for digest in
            [&pack.digest, &pack.config].into_iter().chain(pack.layers.iter().map(|layer| &layer.digest))
        {
            match size_of(tx, digest)? {
                Some(size) => sizes.push(BlobRow { digest: digest.clone(), size }),
                None => return Ok(Err(format!("{digest} of its pack is not stored here"))),
            }
        }
        let released = tx.get(&VERSIONS, &(manifest.name.canonical(), manifest.version.clone()))?;
        if released.is_some_and(|known| known.digest != pack.digest) {
            let what = format!("`{}` {}", manifest.name, manifest.version);
            return Ok(Err(format!("{what} is published with other content")));
        }
        if let Err(finding) = claims::claim(tx, &self.id, publisher, &manifest.name, &manifest.version)? {
            return Ok(Err(finding.message.unwrap_or(finding.reason_code)));
        }
        for blob in &sizes {
            blobs::link_known(tx, &blob.digest, &record::owner(&self.id))?;
        }
        let [pack_manifest, config, layers @ ..] = sizes.as_slice() else { return Ok(Ok(())) };
        row.manifest = Some(record::link(tx, &self.id, &whole.stored)?);
        row.publisher = Some(publisher.clone());
        row.name = Some(manifest.name.clone());
        row.version = Some(manifest.version.clone());
        row.pack_digest = Some(pack.digest.clone());
        row.pack = Some(PackRow {
            manifest: pack_manifest.clone(),
            config: config.clone(),
            layers: layers
                .iter()
                .zip(&pack.layers)
                .map(|(blob, layer)| (blob.digest.clone(), layer.diff_id.clone(), blob.size))
                .collect(),
        });
        Ok(Ok(()))
    }
}

/// The attempts as they are watched today. Their time begins now: nobody could deliver a result before.
fn take_over(row: &mut SubmissionRecord, now: Millis) {
    if row.attempts.is_empty()
        && let Some(nonce) = row.nonces().pop()
    {
        let nonce = nonce.as_str().to_owned();
        row.attempts.push(AttemptRow {
            callback_nonce: nonce.clone(),
            callback_token: nonce,
            state: if row.accepted.is_some() { AttemptState::Accepted } else { AttemptState::Live },
            at: now,
            embedded: false,
        });
    }
    for attempt in &mut row.attempts {
        if matches!(attempt.state, AttemptState::Live | AttemptState::Dispatching) {
            attempt.at = now;
        }
    }
    if row.created_at == Millis(0) {
        row.created_at = now;
    }
    row.updated_at = row.updated_at.max(now);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::names::Nonce;

    fn row(d: &Value) -> SubmissionRecord {
        let bytes = json!({"v": 1, "d": d}).to_string().into_bytes();
        SubmissionRecord::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn only_what_awaits_a_result_and_has_no_change_is_adopted() {
        assert!(is_orphan(&row(&json!({"state": "awaiting_result"}))));
        assert!(!is_orphan(&row(&json!({"state": "awaiting_result", "change": "c"}))));
        for state in ["published", "received", "checking"] {
            assert!(!is_orphan(&row(&json!({"state": state}))), "{state}");
        }
    }

    #[test]
    fn the_nonces_of_every_form_stay_valid_and_their_time_begins_now() {
        for d in [
            json!({"callback_token": "n1", "callback_nonce": "n1"}),
            json!({"context": {"callback_token": "n1", "callback_nonce": "n1"}}),
            json!({"attempts": [{"callback_token": "n1", "callback_nonce": "n1", "state": "dispatched"}]}),
            json!({"attempts": [{"callback_token": "n1", "callback_nonce": "n1", "at": 5}], "created_at": "old"}),
        ] {
            let mut row = row(&d);
            take_over(&mut row, Millis(1_000));
            assert_eq!(row.nonces(), [Nonce::parse("n1").unwrap()]);
            assert_eq!((row.attempts[0].at, row.attempts[0].embedded), (Millis(1_000), false));
            assert_eq!((row.created_at, row.updated_at), (Millis(1_000), Millis(1_000)));
        }
        let mut silent = row(&json!({}));
        take_over(&mut silent, Millis(1));
        assert!(silent.attempts.is_empty(), "nobody can sign its result");
    }

    #[test]
    fn the_dispatched_digest_is_found_in_the_row_or_in_its_context() {
        let digest = Digest::of(b"pack");
        assert_eq!(dispatched(&row(&json!({"pack_digest": digest}))), Some(digest.clone()));
        assert_eq!(dispatched(&row(&json!({"context": {"pack_digest": digest}}))), Some(digest));
        assert_eq!(dispatched(&row(&json!({"context": {"pack_digest": "x"}}))), None);
    }
}
