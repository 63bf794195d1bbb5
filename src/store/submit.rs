//! Taking a submission in.

use bytes::Bytes;
use serde_json::json;

use crate::access::{Action, Principal};
use crate::audit;
use crate::blobs::{self, Owner, Stored};
use crate::changes::{self, NewChange};
use crate::names::{ChangeId, Digest, Millis, PublisherName, SubmissionId};
use crate::sandbox::Cancel;
use crate::state::{Read, StateError, Tx};
use crate::trees::SourceCaps;

use super::checks;
use super::claims;
use super::codes::ReasonCode;
use super::finding::{Finding, VerdictView};
use super::foreign::{Decision, REFUSED_CODE, REFUSED_HINT};
use super::manifest::{self, Manifest};
use super::record::{self, NAMES, REPLAYS, ReplayRecord, SUBMISSIONS, SubmissionRecord, VERSIONS};
use super::refusal::{RefusalKind, StoreRefusal};
use super::service::{Inner, Store, publisher_of};
use super::tasks;
use super::views::SubmissionView;

/// A request to publish a source.
pub struct Submit {
    /// The uploaded archive; not yet linked.
    pub source: Stored,
    /// The manifest, where the request carries one.
    pub manifest: Option<serde_json::Value>,
    /// Run the checks and store nothing.
    pub preview: bool,
    /// Repeats of the request with this key get the first answer.
    pub idempotency_key: Option<String>,
    /// Who asks.
    pub by: Principal,
}

/// The answer to a request that is acceptable so far.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one a request, and moved once")]
pub enum Submitted {
    /// A submission, new or the one that this request made before.
    Accepted(SubmissionView),
    /// What the checks say; nothing was stored.
    Preview(VerdictView),
}

/// What came of the one transaction.
enum Taken {
    New,
    Before(SubmissionId),
    KeyReused,
    Refused(Finding),
    Held(ChangeId),
}

impl Store {
    /// Takes a submission in, or says at once what the request itself shows to be wrong.
    ///
    /// # Errors
    /// [`StoreRefusal`]: not allowed, too large, a manifest with faults, a name or version that is taken, an
    /// idempotency key that was used for another request or is being answered.
    pub async fn submit(&self, request: Submit) -> Result<Submitted, StoreRefusal> {
        if !request.by.may(Action::Submit) {
            return Err(StoreRefusal::new(
                RefusalKind::Forbidden,
                "submit_not_allowed",
                "you may not submit packages",
            )
            .hint(
                "use the local socket as root or a member of the group `pantry`, or a token with that right",
            ));
        }
        if let Some(why) = self.0.foreign.refusal() {
            return Err(refused_here(&why));
        }
        let cap = self.0.parts.config.store.upload_cap_bytes;
        let base = self.0.docs_base();
        if request.source.size > cap {
            let message = format!("the source has {} bytes; {cap} are allowed", request.source.size);
            return Err(StoreRefusal::found(vec![Finding::new(ReasonCode::SourceTooLarge, message)], base));
        }
        let publisher = publisher_of(&request.by);
        let declared = match &request.manifest {
            Some(value) => {
                Some(manifest::parse_json(value).map_err(|found| StoreRefusal::found(found, base))?)
            }
            None => None,
        };
        if let Some(finding) = declared.as_ref().and_then(|declared| foreign_publisher(declared, &publisher))
        {
            let refusal = StoreRefusal::found(vec![finding], base);
            return Err(StoreRefusal { kind: RefusalKind::Forbidden, ..refusal });
        }
        if request.preview {
            return self.0.preview(request.source, declared, publisher).await.map(Submitted::Preview);
        }
        let who = request.by.label();
        let _answering = match &request.idempotency_key {
            Some(key) => Some(Answering::begin(&self.0, &who, key)?),
            None => None,
        };
        let id = self.0.take(request, declared, publisher, who).await?;
        let view = self.get(&id).await?.ok_or_else(|| unknown(id.as_str()))?;
        Ok(Submitted::Accepted(view))
    }
}

/// A manifest that names another publisher than the one who submits.
pub(super) fn foreign_publisher(manifest: &Manifest, publisher: &PublisherName) -> Option<Finding> {
    let named = manifest.publisher.as_ref().filter(|named| *named != publisher)?;
    let message = format!("the manifest names the publisher `{named}`, but `{publisher}` submits it");
    Some(Finding::new(ReasonCode::ManifestMismatch, message).value(named.as_str()))
}

pub(super) fn unknown(id: &str) -> StoreRefusal {
    let shown: String = id.chars().take(64).collect();
    StoreRefusal::new(
        RefusalKind::NotFound,
        "submission_unknown",
        format!("there is no submission {shown:?}"),
    )
}

fn refused_here(why: &str) -> StoreRefusal {
    let message = format!("no package can be taken here, as foreign code may not run: {why}");
    StoreRefusal::new(RefusalKind::Unavailable, REFUSED_CODE, message).hint(REFUSED_HINT)
}

fn closing() -> StoreRefusal {
    StoreRefusal::new(RefusalKind::Unavailable, "server_closing", "the server is closing")
        .hint("ask again in a moment")
}

/// Marks an idempotency key as being answered, until it is dropped.
struct Answering<'a> {
    inner: &'a Inner,
    key: (String, String),
}

impl<'a> Answering<'a> {
    fn begin(inner: &'a Inner, who: &str, key: &str) -> Result<Self, StoreRefusal> {
        if key.is_empty() || key.len() > 255 || key.chars().any(char::is_control) {
            let message = "an Idempotency-Key has 1 to 255 characters without control characters";
            return Err(StoreRefusal::new(RefusalKind::Invalid, "idempotency_key_invalid", message));
        }
        let key = (who.to_owned(), key.to_owned());
        let mut answering = inner.answering.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !answering.insert(key.clone()) {
            let message = "a request with this Idempotency-Key is being answered at this moment";
            return Err(StoreRefusal::new(RefusalKind::Conflict, "idempotency_key_in_use", message)
                .hint("ask again in a second"));
        }
        drop(answering);
        Ok(Self { inner, key })
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.inner.answering.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&self.key);
    }
}

impl Inner {
    /// Writes submission, claims and change in one transaction; gives the submission that answers the request.
    async fn take(
        &self,
        request: Submit,
        declared: Option<Manifest>,
        publisher: PublisherName,
        who: String,
    ) -> Result<SubmissionId, StoreRefusal> {
        let parts = &self.parts;
        let declared_bytes = declared.as_ref().map(serde_json::to_vec).transpose();
        let declared_bytes =
            declared_bytes.map_err(|error| StoreRefusal::internal("manifest_not_written", &error))?;
        let body = body_digest(&request.source.digest, declared_bytes.as_deref());
        let declared_blob = match declared_bytes {
            Some(bytes) => Some(parts.blobs.put(Bytes::from(bytes)).await?),
            None => None,
        };
        let new = New {
            id: SubmissionId::new(parts.clock.as_ref(), parts.random.as_ref()),
            change: ChangeId::new(parts.clock.as_ref(), parts.random.as_ref()),
            now: self.now(),
            source: request.source,
            declared,
            declared_blob,
            publisher,
            who,
            key: request.idempotency_key,
            body,
        };
        if let Some(manifest) = &new.declared {
            self.settle_claim(&manifest.name, &manifest.version).await?;
        }
        let id = new.id.clone();
        parts.faults.pass("store.submit");
        let taken = parts.state.write(move |tx| new.write(tx)).await?;
        parts.faults.pass("store.submitted");
        match taken {
            Taken::New => {
                parts.changes.wake();
                Ok(id)
            }
            Taken::Before(earlier) => Ok(earlier),
            Taken::KeyReused => {
                let message = "this Idempotency-Key was used for another request";
                Err(StoreRefusal::new(RefusalKind::Invalid, "idempotency_key_reused", message)
                    .hint("use a new key for a new request"))
            }
            Taken::Refused(finding) => Err(StoreRefusal::found(vec![finding], self.docs_base())),
            Taken::Held(holder) => {
                let message = format!("change {holder} works on the same thing");
                Err(StoreRefusal::new(RefusalKind::Busy, "change_conflict", message))
            }
        }
    }

    /// The checks, in the caller's request; nothing is stored.
    async fn preview(
        &self,
        source: Stored,
        declared: Option<Manifest>,
        publisher: PublisherName,
    ) -> Result<VerdictView, StoreRefusal> {
        match self.foreign.decided().await {
            Decision::Admitted => {}
            Decision::Refused(why) => return Err(refused_here(&why)),
            Decision::Closing => return Err(closing()),
        }
        let _turn = self.previews.acquire().await.map_err(|_closed| closing())?;
        let parts = &self.parts;
        let scratch = Scratch::new(self)?;
        // Only what is known can be read: known and unreferenced, so that it goes with the next collection.
        let (upload, label, now) = (source.clone(), scratch.label(), self.now());
        let reference = Owner::new("preview", label);
        parts
            .state
            .write(move |tx| {
                blobs::link(tx, &upload, &reference)?;
                blobs::unlink(tx, &upload.digest, &reference, now)
            })
            .await?;
        let (store, trees, path) = (parts.blobs.clone(), parts.trees.clone(), scratch.0.clone());
        let cap = parts.config.store.upload_cap_bytes;
        let (sandbox, root, platform) =
            (parts.sandbox.clone(), parts.runtime_root.clone(), parts.base.platform.clone());
        let cancel = tasks::CancelOnDrop(Cancel::new()?);
        let handle = cancel.0.clone();
        let checked = tokio::task::spawn_blocking(move || -> Result<checks::Checked, StoreRefusal> {
            let caps = SourceCaps { bytes: cap, ..SourceCaps::default() };
            if let Err(error) = tasks::unpack(&store, &trees, &source.digest, &path, &caps) {
                let finding = error.finding();
                let findings = vec![finding.ok_or_else(|| StoreRefusal::internal("unpack_failed", &error))?];
                return Ok(checks::Checked { manifest: None, findings });
            }
            let checker = checks::Checker { sandbox: &sandbox, root, platform: &platform };
            let source = checks::source_root(&path.join("source"));
            Ok(checker.check(&source, declared.as_ref(), &handle)?)
        })
        .await
        .map_err(|error| StoreRefusal::internal("preview_failed", &error))??;
        drop(scratch);
        let mut findings = checked.findings;
        if let Some(manifest) = checked.manifest {
            findings.extend(foreign_publisher(&manifest, &publisher));
            let name = manifest.name.clone();
            let owner = parts.state.read(move |view| view.get(&NAMES, &name.canonical())).await?;
            if let Some(owner) =
                owner.filter(|owner| owner.publisher != publisher || owner.name != manifest.name)
            {
                let message = format!("the name is taken by `{}/{}`", owner.publisher, owner.name);
                findings.push(Finding::new(ReasonCode::NameTaken, message).value(manifest.name.as_str()));
            }
        }
        Ok(VerdictView::of(findings, self.docs_base()))
    }
}

fn body_digest(source: &Digest, manifest: Option<&[u8]>) -> Digest {
    let mut body = source.to_string().into_bytes();
    body.push(0);
    body.extend_from_slice(manifest.unwrap_or_default());
    Digest::of(&body)
}

/// A directory below `tmp/` that goes with the value.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(inner: &Inner) -> std::io::Result<Self> {
        let id = ChangeId::new(inner.parts.clock.as_ref(), inner.parts.random.as_ref());
        let path = inner.parts.config.root.join("tmp").join(id.as_str());
        fs_err::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Scratch {
    fn label(&self) -> String {
        self.0.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let path = self.0.clone();
        // Also when the request was dropped: the jail then ends first, by its own cancellation.
        if let Err(error) = fs_err::remove_dir_all(&path) {
            tracing::warn!(path = %path.display(), %error, "a preview's directory stays until the next sweep");
        }
    }
}

/// Everything that the transaction of a new submission writes.
struct New {
    id: SubmissionId,
    change: ChangeId,
    now: Millis,
    source: Stored,
    declared: Option<Manifest>,
    declared_blob: Option<Stored>,
    publisher: PublisherName,
    who: String,
    key: Option<String>,
    body: Digest,
}

impl New {
    fn write(&self, tx: &mut Tx<'_>) -> Result<Taken, StateError> {
        let replay = self.key.clone().map(|key| (self.who.clone(), key));
        if let Some(known) = replay.as_ref().map(|key| tx.get(&REPLAYS, key)).transpose()?.flatten() {
            let same = known.body == self.body;
            return Ok(if same { Taken::Before(known.submission) } else { Taken::KeyReused });
        }
        if let Some(manifest) = &self.declared {
            let published = tx.get(&VERSIONS, &(manifest.name.canonical(), manifest.version.clone()))?;
            if let Some(same) = published.filter(|known| known.source.as_ref() == Some(&self.source.digest)) {
                // Only its owner gets here with the very bytes that were published.
                let owner = tx.get(&NAMES, &manifest.name.canonical())?;
                if owner.is_some_and(|owner| owner.publisher == self.publisher && owner.name == manifest.name)
                {
                    return Ok(Taken::Before(same.submission));
                }
            }
            let claimed = claims::claim(tx, &self.id, &self.publisher, &manifest.name, &manifest.version)?;
            if let Err(finding) = claimed {
                return Ok(Taken::Refused(finding));
            }
        }
        let change = NewChange {
            id: self.change.clone(),
            kind: tasks::CHANGE_KIND.to_owned(),
            summary: "Publish a package".to_owned(),
            subject: self.id.to_string(),
            tasks: tasks::KINDS.to_vec(),
            conflicts: Vec::new(),
            data: json!({ "submission": self.id }),
            by: self.who.clone(),
        };
        if let Err(conflict) = changes::create(tx, self.now, &change)? {
            return Ok(Taken::Held(conflict.holder));
        }
        let declared =
            self.declared_blob.as_ref().map(|blob| record::link(tx, &self.id, blob)).transpose()?;
        let row = SubmissionRecord {
            publisher: Some(self.publisher.clone()),
            by: self.who.clone(),
            name: self.declared.as_ref().map(|manifest| manifest.name.clone()),
            version: self.declared.as_ref().map(|manifest| manifest.version.clone()),
            created_at: self.now,
            updated_at: self.now,
            change: Some(self.change.to_string()),
            source: Some(record::link(tx, &self.id, &self.source)?),
            declared,
            ..SubmissionRecord::default()
        };
        tx.put(&SUBMISSIONS, &self.id, &row)?;
        if let Some(key) = replay {
            let record = ReplayRecord { body: self.body.clone(), submission: self.id.clone(), at: self.now };
            tx.put(&REPLAYS, &key, &record)?;
        }
        let event = audit::Event {
            who: self.who.clone(),
            action: "submit".to_owned(),
            subject: format!("submission/{}", self.id),
            outcome: "accepted".to_owned(),
            why: format!("source {}", self.source.digest),
        };
        audit::append(tx, self.now, &event)?;
        Ok(Taken::New)
    }
}
