//! The rows of the store.
//!
//! Large texts (manifest, lockfile, wheel list, verdict, result) are blobs which the row names; every blob of a
//! submission is owned by it (`Owner("submission", id)`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::blobs::{self, Owner, Stored};
use crate::names::{Digest, Millis, Nonce, PackageName, PublisherName, SubmissionId, Version};
use crate::state::{
    Raw, Read, StateError, Table, Tx, Value as StateValue, decode_record, encode_record, record,
};

use super::reach::ContactRow;

/// All submissions. Rows of schema 17 are of this table too.
pub(crate) const SUBMISSIONS: Table<SubmissionId, SubmissionRecord> = Table::new("submissions");
/// The same rows as bytes: one that can't be read must not hide the others.
pub(crate) const SUBMISSION_BYTES: Table<SubmissionId, Raw> = Table::new("submissions");
/// Who a name belongs to, by its canonical form.
pub(crate) const NAMES: Table<String, NameRecord> = Table::new("store_names");
/// Which unfinished submission holds a version.
pub(crate) const CLAIMS: Table<(String, Version), ClaimRecord> = Table::new("store_claims");
/// What is published.
pub(crate) const VERSIONS: Table<(String, Version), VersionRecord> = Table::new("store_versions");
/// Answers to requests that carried an idempotency key, by who asked and the key.
pub(crate) const REPLAYS: Table<(String, String), ReplayRecord> = Table::new("store_replays");

/// Where a submission is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SubmissionState {
    /// Taken in; nothing of it was looked at yet.
    #[default]
    Submitted,
    /// Being checked.
    Checking,
    /// Its dependencies are being resolved.
    Resolving,
    /// Its pack is being built.
    Building,
    /// A runner has it.
    AwaitingResult,
    /// Its pack is in `packages/…`.
    Published,
    /// Refused, with reasons.
    Rejected,
    /// No result came.
    TimedOut,
    /// Its submitter stopped it.
    Cancelled,
    /// Written by a newer Pantry.
    #[serde(other)]
    Unknown,
}

impl SubmissionState {
    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Checking => "checking",
            Self::Resolving => "resolving",
            Self::Building => "building",
            Self::AwaitingResult => "awaiting_result",
            Self::Published => "published",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }

    /// Whether nothing changes any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Published | Self::Rejected | Self::TimedOut | Self::Cancelled)
    }
}

/// A blob that a row names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobRow {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl BlobRow {
    pub(crate) fn stored(&self) -> Stored {
        Stored::known(self.digest.clone(), self.size)
    }
}

impl From<&Stored> for BlobRow {
    fn from(stored: &Stored) -> Self {
        Self { digest: stored.digest.clone(), size: stored.size }
    }
}

/// A submission.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SubmissionRecord {
    pub(crate) state: SubmissionState,
    pub(crate) publisher: Option<PublisherName>,
    pub(crate) by: String,
    pub(crate) name: Option<PackageName>,
    pub(crate) version: Option<Version>,
    pub(crate) created_at: Millis,
    pub(crate) updated_at: Millis,
    pub(crate) change: Option<String>,
    pub(crate) source: Option<BlobRow>,
    /// The manifest that the request carried.
    pub(crate) declared: Option<BlobRow>,
    /// The manifest as checked, components filled in.
    pub(crate) manifest: Option<BlobRow>,
    pub(crate) lockfile: Option<BlobRow>,
    pub(crate) wheels: Option<BlobRow>,
    /// The digest that is tested and published; stays when the pack itself is let go.
    pub(crate) pack_digest: Option<Digest>,
    pub(crate) pack: Option<PackRow>,
    /// The newest attempt's nonce, under its present name and the one that schema 17 reads.
    pub(crate) callback_nonce: Option<String>,
    pub(crate) callback_token: Option<String>,
    pub(crate) attempts: Vec<AttemptRow>,
    pub(crate) accepted: Option<AcceptedRow>,
    pub(crate) result: Option<BlobRow>,
    /// Whom its resolution and its download asked for.
    pub(crate) network: Vec<ContactRow>,
    /// What the checks said, before any test.
    pub(crate) checks: Option<VerdictRow>,
    /// What was said in the end.
    pub(crate) verdict: Option<VerdictRow>,
    /// Why this row of schema 17 can't be published, whatever its result says.
    pub(crate) lacks: Option<String>,
    /// How often Pantry ended during the present task.
    pub(crate) restarts: Option<RestartsRow>,
    /// The last failure of Pantry itself, until a task succeeds.
    pub(crate) trouble: Option<TroubleRow>,
    /// What schema 17 kept beside: manifest, author, repository, commit.
    #[serde(flatten)]
    pub(crate) rest: BTreeMap<String, serde_json::Value>,
}

/// The version of the record.
const VERSION: u16 = 1;
/// Where a row keeps what it holds under a known name and in an unknown form.
const UNREADABLE: &str = "unreadable";

impl StateValue for SubmissionRecord {
    fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
        encode_record(self, VERSION)
    }

    /// A row of schema 17 may hold anything under a name that is ours now: such a field is set aside, and the rest
    /// of the row counts.
    fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        decode_record(bytes, VERSION).or_else(|strict| {
            let fields: Fields = decode_record(bytes, VERSION).map_err(|_| strict)?;
            Ok(leniently(fields))
        })
    }
}

type Fields = serde_json::Map<String, serde_json::Value>;

fn leniently(fields: Fields) -> SubmissionRecord {
    fn read<T: serde::de::DeserializeOwned>(name: &str, value: &serde_json::Value) -> Option<T> {
        let alone = Fields::from_iter([(name.to_owned(), value.clone())]);
        serde_json::from_value(alone.into()).ok()
    }
    let (mut readable, mut odd) = (Fields::new(), Fields::new());
    for (name, mut value) in fields {
        if name == "attempts"
            && let Some(attempts) = value.as_array_mut()
        {
            attempts.retain(|attempt| serde_json::from_value::<AttemptRow>(attempt.clone()).is_ok());
        }
        let fits = read::<SubmissionRecord>(&name, &value).is_some();
        if fits { &mut readable } else { &mut odd }.insert(name, value);
    }
    let mut row: SubmissionRecord = serde_json::from_value(readable.into()).unwrap_or_default();
    row.rest.insert(UNREADABLE.to_owned(), odd.into());
    row
}

/// How often Pantry ended during a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RestartsRow {
    pub(crate) task: String,
    pub(crate) count: u32,
}

/// What a verdict says in short; its findings are in the blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VerdictRow {
    pub(crate) result: String,
    pub(crate) message: String,
    pub(crate) reason_codes: Vec<String>,
    pub(crate) whole: BlobRow,
}

/// A built pack: what is needed to place it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackRow {
    pub(crate) manifest: BlobRow,
    pub(crate) config: BlobRow,
    /// Digest, diff id and size of each layer, bottom first.
    pub(crate) layers: Vec<(Digest, Digest, u64)>,
}

/// One dispatch to a runner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AttemptRow {
    pub(crate) callback_nonce: String,
    /// The same value under the name of schema 17.
    pub(crate) callback_token: String,
    pub(crate) state: AttemptState,
    pub(crate) at: Millis,
    /// Its runner is part of this process, and ends with it.
    pub(crate) embedded: bool,
}

/// Where an attempt is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AttemptState {
    /// Its dispatch was accepted.
    #[serde(alias = "dispatched")]
    Live,
    /// A newer one's dispatch was accepted.
    Superseded,
    /// Its result was accepted.
    Accepted,
    /// Its runner ended with the process that it was part of.
    Lost,
    /// Written, and its dispatch not known to be accepted. Its result counts: the dispatch may have arrived.
    #[default]
    #[serde(other)]
    Dispatching,
}

/// The result that was accepted, so that its repetition gives the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AcceptedRow {
    pub(crate) fingerprint: Digest,
    pub(crate) key_id: String,
    pub(crate) at: Millis,
    pub(crate) passed: bool,
}

/// A failure of Pantry itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TroubleRow {
    pub(crate) task: String,
    pub(crate) code: String,
    pub(crate) message: String,
}

/// Who a name belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameRecord {
    pub(crate) publisher: PublisherName,
    pub(crate) name: PackageName,
    pub(crate) description: String,
    /// A name with a published version is never freed.
    pub(crate) published: bool,
}
record!(NameRecord, 1);

/// The submission that holds a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClaimRecord {
    pub(crate) submission: SubmissionId,
}
record!(ClaimRecord, 1);

/// A published version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VersionRecord {
    pub(crate) digest: Digest,
    pub(crate) source: Option<Digest>,
    pub(crate) submission: SubmissionId,
    pub(crate) published_at: Millis,
}
record!(VersionRecord, 1);

/// The answer to a request with an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplayRecord {
    pub(crate) body: Digest,
    pub(crate) submission: SubmissionId,
    pub(crate) at: Millis,
}
record!(ReplayRecord, 1);

/// Under which name a submission refers to its blobs.
pub(crate) fn owner(id: &SubmissionId) -> Owner {
    Owner::new("submission", id.as_str())
}

/// Whether a submission of this id is recorded; what it names of its blobs only it knows.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn submission_stands(tx: &Tx<'_>, key: &str, _digest: &Digest) -> Result<bool, StateError> {
    match SubmissionId::parse(key) {
        Ok(id) => Ok(tx.get(&SUBMISSION_BYTES, &id)?.is_some()),
        Err(_) => Ok(false),
    }
}

/// Links a blob to the submission and gives the row that names it.
pub(crate) fn link(tx: &mut Tx<'_>, id: &SubmissionId, stored: &Stored) -> Result<BlobRow, StateError> {
    blobs::link(tx, stored, &owner(id))?;
    Ok(BlobRow::from(stored))
}

impl SubmissionRecord {
    /// The nonces whose signature counts: those of live attempts and of the accepted one, and the one that a row of
    /// schema 17 kept.
    pub(crate) fn nonces(&self) -> Vec<Nonce> {
        let kept = self.rest.get("context").and_then(|context| context.get("callback_nonce"));
        let kept = kept.and_then(serde_json::Value::as_str).map(str::to_owned);
        let mut texts: Vec<String> = self
            .attempts
            .iter()
            .filter(|attempt| !matches!(attempt.state, AttemptState::Superseded | AttemptState::Lost))
            .map(|attempt| attempt.callback_nonce.clone())
            .collect();
        if self.attempts.is_empty() {
            texts.extend(self.callback_nonce.clone().into_iter().chain(kept));
        }
        texts.iter().filter_map(|text| Nonce::parse(text).ok()).collect()
    }

    /// Keeps whom a step asked for, in place of what an earlier try of it did.
    pub(crate) fn note_contacts(&mut self, heard: &[ContactRow]) {
        self.network.retain(|old| heard.iter().all(|new| new.during != old.during));
        self.network.extend_from_slice(heard);
    }

    /// Writes a new attempt of the embedded runner before its dispatch.
    pub(crate) fn begin_attempt(&mut self, nonce: &Nonce, now: Millis) {
        self.callback_nonce = Some(nonce.as_str().to_owned());
        self.callback_token.clone_from(&self.callback_nonce);
        self.attempts.push(AttemptRow {
            callback_nonce: nonce.as_str().to_owned(),
            callback_token: nonce.as_str().to_owned(),
            state: AttemptState::Dispatching,
            at: now,
            embedded: true,
        });
    }

    /// The dispatch of this attempt was accepted: it supersedes the others.
    pub(crate) fn dispatched(&mut self, nonce: &Nonce, now: Millis) {
        for attempt in &mut self.attempts {
            if attempt.callback_nonce == nonce.as_str() {
                attempt.state = AttemptState::Live;
                attempt.at = now;
            } else if !matches!(attempt.state, AttemptState::Accepted | AttemptState::Lost) {
                attempt.state = AttemptState::Superseded;
            }
        }
    }

    /// Marks those attempts as lost whose runner was part of a process that has ended.
    pub(crate) fn lose_attempts(&mut self) {
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.embedded) {
            if matches!(attempt.state, AttemptState::Live | AttemptState::Dispatching) {
                attempt.state = AttemptState::Lost;
            }
        }
    }

    /// Counts an end of Pantry during `task`; gives how many there were.
    pub(crate) fn restarted(&mut self, task: &str) -> u32 {
        let restarts = self.restarts.get_or_insert_default();
        if restarts.task != task {
            *restarts = RestartsRow { task: task.to_owned(), count: 0 };
        }
        restarts.count = restarts.count.saturating_add(1);
        restarts.count
    }

    /// How many dispatches were accepted by a runner that had the time to answer.
    pub(crate) fn dispatches(&self) -> usize {
        let counts =
            |attempt: &&AttemptRow| !matches!(attempt.state, AttemptState::Dispatching | AttemptState::Lost);
        self.attempts.iter().filter(counts).count()
    }
}

/// Changes the row of a submission that exists; `None` when it doesn't.
pub(crate) fn update<T>(
    tx: &mut Tx<'_>,
    id: &SubmissionId,
    now: Millis,
    change: impl FnOnce(&mut SubmissionRecord) -> T,
) -> Result<Option<T>, StateError> {
    let Some(mut row) = tx.get(&SUBMISSIONS, id)? else { return Ok(None) };
    let out = change(&mut row);
    row.updated_at = row.updated_at.max(now);
    tx.put(&SUBMISSIONS, id, &row)?;
    Ok(Some(out))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn nonce(text: &str) -> Nonce {
        Nonce::parse(text).unwrap()
    }

    #[test]
    fn an_attempt_supersedes_the_older_ones_only_once_it_is_dispatched() {
        let mut row = SubmissionRecord::default();
        row.begin_attempt(&nonce("one"), Millis(1));
        row.dispatched(&nonce("one"), Millis(2));
        row.begin_attempt(&nonce("two"), Millis(3));
        assert_eq!(row.nonces(), [nonce("one"), nonce("two")]);
        assert_eq!(row.dispatches(), 1);
        row.dispatched(&nonce("two"), Millis(4));
        assert_eq!(row.nonces(), [nonce("two")]);
        assert_eq!(row.dispatches(), 2);
    }

    #[test]
    fn an_attempt_whose_runner_ended_with_pantry_takes_no_result_and_does_not_count() {
        let mut row = SubmissionRecord::default();
        row.begin_attempt(&nonce("one"), Millis(1));
        row.dispatched(&nonce("one"), Millis(2));
        row.begin_attempt(&nonce("two"), Millis(3));
        row.lose_attempts();
        assert_eq!((row.nonces(), row.dispatches()), (vec![], 0));
        row.begin_attempt(&nonce("three"), Millis(4));
        row.dispatched(&nonce("three"), Millis(5));
        assert_eq!((row.nonces(), row.dispatches()), (vec![nonce("three")], 1));
        // A runner elsewhere goes on.
        row.attempts.last_mut().unwrap().embedded = false;
        row.lose_attempts();
        assert_eq!(row.nonces(), [nonce("three")]);
    }

    #[test]
    fn restarts_are_counted_for_each_task_anew() {
        let mut row = SubmissionRecord::default();
        assert_eq!(
            [row.restarted("a"), row.restarted("a"), row.restarted("b"), row.restarted("a")],
            [1, 2, 1, 1]
        );
    }

    #[test]
    fn a_row_with_fields_in_other_forms_is_read_as_far_as_it_can_be() {
        let d = serde_json::json!({"state": "awaiting_result", "callback_nonce": "n1", "created_at": "yesterday",
            "manifest": {"name": "old"}, "context": {"author": "a"}, "version": 7,
            "attempts": [null, 7, {"state": "dispatched", "callback_nonce": "n1"}, {"callback_nonce": null}]});
        let bytes = serde_json::json!({"v": 1, "d": d}).to_string().into_bytes();
        let row = SubmissionRecord::from_bytes(&bytes).unwrap();
        assert_eq!((row.state, row.created_at), (SubmissionState::AwaitingResult, Millis(0)));
        assert_eq!((row.nonces(), row.dispatches()), (vec![nonce("n1")], 1));
        let again = SubmissionRecord::from_bytes(&row.to_bytes().unwrap()).unwrap();
        assert_eq!(again, row);
        assert_eq!(again.rest["unreadable"]["manifest"]["name"], "old");
        assert_eq!(again.rest["context"]["author"], "a");
        for broken in ["\"no record\"", r#"{"v":2,"d":{}}"#, r#"{"v":1,"d":[]}"#] {
            assert!(SubmissionRecord::from_bytes(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn both_names_of_the_nonce_are_written() {
        let mut row = SubmissionRecord::default();
        row.begin_attempt(&nonce("one"), Millis(1));
        let json = serde_json::to_value(&row).unwrap();
        for holder in [&json, &json["attempts"][0]] {
            assert_eq!(holder["callback_nonce"], "one");
            assert_eq!(holder["callback_token"], "one");
        }
        let read: SubmissionRecord = serde_json::from_value(json).unwrap();
        assert_eq!(read, row);
    }

    #[test]
    fn rows_of_schema_17_are_read_and_keep_what_is_not_known_here() {
        for d in [
            serde_json::json!({"state": "awaiting_result", "callback_token": "n1", "callback_nonce": "n1",
                "context": {"manifest": {}, "author": "a"}, "waiting_since": 5, "attempts": []}),
            serde_json::json!({"state": "awaiting_result", "context": {"callback_token": "n1", "callback_nonce": "n1"}}),
            serde_json::json!({"state": "awaiting_result", "attempts": [{"callback_token": "n1", "callback_nonce": "n1"}]}),
        ] {
            let bytes = serde_json::json!({"v": 1, "d": d}).to_string().into_bytes();
            let row = SubmissionRecord::from_bytes(&bytes).unwrap();
            assert_eq!(row.state, SubmissionState::AwaitingResult);
            assert_eq!(row.nonces(), [nonce("n1")]);
            let again: serde_json::Value = serde_json::from_slice(&row.to_bytes().unwrap()).unwrap();
            if let Some(context) = d.get("context") {
                assert_eq!(&again["d"]["context"], context);
            }
        }
    }

    #[test]
    fn a_state_of_a_newer_pantry_is_met_without_an_error() {
        let row: SubmissionRecord =
            serde_json::from_value(serde_json::json!({"state": "in_review"})).unwrap();
        assert_eq!(row.state, SubmissionState::Unknown);
    }
}
