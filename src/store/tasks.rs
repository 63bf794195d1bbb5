//! The tasks of a submission's change, in their order.
//!
//! Each may run twice: it begins by reading the submission, ends at once when that has ended, takes the source anew
//! from its blob where the work folder lacks it, and writes what it found in one transaction. Undo means that Pantry
//! itself failed or somebody aborted: the first task's undo ends the submission and frees what it held.

mod build;
mod check;
mod dispatch;
mod publish;
mod resolve;
mod source;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Deserialize;

use crate::changes::{Step, Task, TaskContext, TaskFailure, TaskSet, Woken};
use crate::names::SubmissionId;
use crate::sandbox::Cancel;
use crate::state::Read as _;

use super::codes::ReasonCode;
use super::finding::Finding;
use super::foreign::{Decision, REFUSED_CODE, REFUSED_HINT};
use super::manifest::Manifest;
use super::reach::{self, ContactRow};
use super::record::{self, SUBMISSIONS, SubmissionRecord, SubmissionState, TroubleRow};
use super::refusal::StoreRefusal;
use super::service::Inner;

pub(super) use dispatch::result_event;
pub(super) use source::unpack;

/// What changes of submissions are called.
pub(super) const CHANGE_KIND: &str = "submit";

/// The tasks of a submission, in order.
pub(super) const KINDS: &[&str] = &[
    "submit.fetch",
    "submit.check",
    "submit.resolve",
    "submit.build",
    "submit.dispatch",
    "submit.await_result",
    "submit.publish",
];

/// The tasks of a submission of schema 17 that was dispatched already, in order.
pub(super) const ADOPTED_KINDS: &[&str] = &["submit.await_result", "submit.publish"];

/// How often Pantry may end during one task before the submission is given up: it may be what ends it.
const RESTARTS: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Fetch,
    Check,
    Resolve,
    Build,
    Dispatch,
    AwaitResult,
    Publish,
}

const STAGES: [Stage; 7] = [
    Stage::Fetch,
    Stage::Check,
    Stage::Resolve,
    Stage::Build,
    Stage::Dispatch,
    Stage::AwaitResult,
    Stage::Publish,
];

impl Stage {
    /// Whether it runs foreign code or unpacks foreign archives. A repeated dispatch asks for itself.
    fn needs_jail(self) -> bool {
        !matches!(self, Self::AwaitResult | Self::Publish)
    }
}

/// Adds the tasks to the engine's set, and says how many submissions are worked on at a time.
pub(super) fn register(inner: &Arc<Inner>, set: &mut TaskSet) {
    set.limit(CHANGE_KIND, inner.parts.config.store.concurrent);
    for (stage, kind) in STAGES.into_iter().zip(KINDS) {
        set.add(Arc::new(SubmissionTask { inner: Arc::clone(inner), stage, kind }));
    }
}

struct SubmissionTask {
    inner: Arc<Inner>,
    stage: Stage,
    kind: &'static str,
}

#[derive(Deserialize)]
struct Data {
    submission: SubmissionId,
    /// Its change begins with the wait for a result.
    #[serde(default)]
    adopted: bool,
}

/// What a task works on.
struct Job<'a> {
    inner: &'a Arc<Inner>,
    ctx: &'a TaskContext,
    id: SubmissionId,
    row: SubmissionRecord,
}

impl Task for SubmissionTask {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn pivot(&self) -> bool {
        self.stage == Stage::Publish
    }

    fn run<'a>(&'a self, ctx: &'a TaskContext) -> BoxFuture<'a, Result<Step, TaskFailure>> {
        Box::pin(async move {
            let id = ctx.data::<Data>()?.submission;
            let result = self.stage_of(ctx, id.clone()).await;
            if let Err(failure) = &result
                && !ctx.cancelled()
            {
                self.note_trouble(&id, failure).await;
            }
            result
        })
    }

    fn undo<'a>(&'a self, ctx: &'a TaskContext) -> BoxFuture<'a, Result<(), TaskFailure>> {
        Box::pin(async move {
            let data = ctx.data::<Data>()?;
            let first = if data.adopted { Stage::AwaitResult } else { Stage::Fetch };
            if self.stage != first {
                return Ok(());
            }
            self.inner.abandon(&data.submission).await.map_err(|refusal| failure(&refusal))
        })
    }
}

impl SubmissionTask {
    async fn stage_of(&self, ctx: &TaskContext, id: SubmissionId) -> Result<Step, TaskFailure> {
        if self.stage.needs_jail() {
            admitted(&self.inner, ctx).await?;
        }
        let key = id.clone();
        let row = self.inner.parts.state.read(move |view| view.get(&SUBMISSIONS, &key)).await?;
        let row =
            row.ok_or_else(|| TaskFailure::new("submission_unknown", format!("submission {id} is gone")))?;
        if row.state.is_final() {
            return Ok(Step::Finish);
        }
        self.inner.parts.faults.pass(self.kind);
        let job = Job { inner: &self.inner, ctx, id, row };
        if ctx.woken() == Woken::AfterRestart
            && let Some(finding) = job.count_restart(self.kind).await?
        {
            return job.reject(vec![finding]).await;
        }
        let step = match self.stage {
            Stage::Fetch => job.fetch().await,
            Stage::Check => job.check().await,
            Stage::Resolve => job.resolve().await,
            Stage::Build => job.build().await,
            Stage::Dispatch => job.dispatch().await,
            Stage::AwaitResult => job.await_result().await,
            Stage::Publish => job.publish().await,
        }?;
        self.inner.parts.faults.pass("store.task_done");
        Ok(step)
    }

    /// Keeps the failure beside the submission: its end will name it.
    async fn note_trouble(&self, id: &SubmissionId, failure: &TaskFailure) {
        let (id, now) = (id.clone(), self.inner.now());
        let trouble = TroubleRow {
            task: self.kind.to_owned(),
            code: failure.code.clone(),
            message: failure.message.chars().take(1_000).collect(),
        };
        let written = self
            .inner
            .parts
            .state
            .write(move |tx| {
                let trouble = trouble.clone();
                record::update(tx, &id, now, |row| row.trouble = Some(trouble)).map(|_| ())
            })
            .await;
        if let Err(error) = written {
            tracing::warn!(%error, "a task's failure could not be kept with its submission");
        }
    }
}

impl Inner {
    /// Ends a submission whose change was given up: aborted, or after a failure of Pantry itself.
    pub(super) async fn abandon(&self, id: &SubmissionId) -> Result<(), StoreRefusal> {
        let key = id.clone();
        let row = self.parts.state.read(move |view| view.get(&SUBMISSIONS, &key)).await?;
        let Some(trouble) = row.map(|row| row.trouble) else { return Ok(()) };
        let (state, findings) = match trouble {
            None => (SubmissionState::Cancelled, Vec::new()),
            Some(trouble) => {
                let message = format!("{} failed: {}", trouble.task, trouble.message);
                let finding = Finding::new(ReasonCode::InternalError, message).value(&trouble.code);
                (SubmissionState::Rejected, vec![finding])
            }
        };
        self.end(id, state, findings).await
    }
}

/// A failure of the store itself, as the engine takes it: it may work the next time.
fn failure(refusal: &StoreRefusal) -> TaskFailure {
    TaskFailure {
        code: refusal.code.clone(),
        message: refusal.message.clone(),
        hint: refusal.hint.clone(),
        retry: true,
    }
}

/// As [`failure`], from an error of a part below.
fn broken(code: &str, error: &dyn std::fmt::Display) -> TaskFailure {
    TaskFailure { code: code.to_owned(), message: error.to_string(), hint: None, retry: true }
}

/// Waits until it is known whether foreign code may run here; fails when it may not.
async fn admitted(inner: &Inner, ctx: &TaskContext) -> Result<(), TaskFailure> {
    let decided = tokio::select! {
        decided = inner.foreign.decided() => decided,
        () = ctx.until_cancelled() => return Err(aborted()),
    };
    match decided {
        Decision::Admitted => Ok(()),
        Decision::Refused(why) => {
            let message = format!("foreign code may not run here: {why}");
            Err(TaskFailure::new(REFUSED_CODE, message).with_hint(REFUSED_HINT))
        }
        // The engine stops in a moment, and this task runs again after the restart.
        Decision::Closing => {
            ctx.until_cancelled().await;
            Err(aborted())
        }
    }
}

fn aborted() -> TaskFailure {
    TaskFailure {
        code: "cancelled".to_owned(),
        message: "the submission was aborted".to_owned(),
        hint: None,
        retry: false,
    }
}

fn new_cancel() -> Result<CancelOnDrop, TaskFailure> {
    Cancel::new().map(CancelOnDrop).map_err(|error| broken(error.code(), &error))
}

/// Ends the jail when the work that waits for it is dropped.
pub(super) struct CancelOnDrop(pub(super) Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Job<'_> {
    /// Runs blocking work; an abort of the change ends the jails in it.
    async fn blocking<T, F>(&self, work: F) -> Result<T, TaskFailure>
    where
        T: Send + 'static,
        F: FnOnce(&Cancel) -> T + Send + 'static,
    {
        let guard = new_cancel()?;
        let cancel = guard.0.clone();
        let mut running = tokio::task::spawn_blocking(move || work(&cancel));
        let done = tokio::select! {
            done = &mut running => done,
            () = self.ctx.until_cancelled() => {
                guard.0.cancel();
                running.await
            }
        };
        if self.ctx.cancelled() {
            return Err(aborted());
        }
        done.map_err(|error| broken("task_panicked", &error))
    }

    /// Counts that Pantry ended during this task; gives a finding when it did so too often.
    async fn count_restart(&self, task: &'static str) -> Result<Option<Finding>, TaskFailure> {
        let (id, now) = (self.id.clone(), self.inner.now());
        let counted = self
            .inner
            .parts
            .state
            .write(move |tx| record::update(tx, &id, now, |row| row.restarted(task)))
            .await?;
        Ok(counted.filter(|count| *count > RESTARTS).map(|_| {
            let message = format!("Pantry ended {RESTARTS} times during {task}, and does not try it again");
            Finding::new(ReasonCode::InternalError, message).value("task_crashed")
        }))
    }

    /// Enters a state, and forgets the trouble that an earlier run had.
    async fn enter(&self, state: SubmissionState) -> Result<(), TaskFailure> {
        self.update(move |row| {
            row.state = state;
            row.trouble = None;
        })
        .await
    }

    async fn update(
        &self,
        change: impl Fn(&mut SubmissionRecord) + Send + 'static,
    ) -> Result<(), TaskFailure> {
        let (id, now) = (self.id.clone(), self.inner.now());
        self.inner.parts.state.write(move |tx| record::update(tx, &id, now, &change)).await?;
        Ok(())
    }

    /// Ends the submission with these findings.
    /// Keeps whom a step asked for, and says in the log what it was refused.
    async fn note_contacts(&self, heard: Vec<ContactRow>) -> Result<(), TaskFailure> {
        if heard.is_empty() {
            return Ok(());
        }
        if let Some(told) = reach::told(&heard) {
            self.ctx.log(&told).await;
        }
        let (id, now) = (self.id.clone(), self.inner.now());
        self.inner
            .parts
            .state
            .write(move |tx| record::update(tx, &id, now, |row| row.note_contacts(&heard)))
            .await?;
        Ok(())
    }

    async fn reject(&self, findings: Vec<Finding>) -> Result<Step, TaskFailure> {
        for finding in findings.iter().filter(|finding| finding.is_error()).take(20) {
            let message = finding.message.as_deref().unwrap_or_default();
            self.ctx.log(&format!("{}: {message}", finding.reason_code)).await;
        }
        self.inner
            .end(&self.id, SubmissionState::Rejected, findings)
            .await
            .map_err(|refusal| failure(&refusal))?;
        Ok(Step::Finish)
    }

    /// The manifest as it was checked.
    async fn manifest(&self) -> Result<Manifest, TaskFailure> {
        let missing = || TaskFailure::new("manifest_missing", "the submission's manifest is gone");
        self.json(self.row.manifest.as_ref().ok_or_else(missing)?).await
    }

    /// A blob of the submission that holds JSON.
    async fn json<T: serde::de::DeserializeOwned>(&self, blob: &record::BlobRow) -> Result<T, TaskFailure> {
        let bytes = self.inner.parts.blobs.read_small(&blob.digest, 16 << 20).await;
        let bytes = bytes.map_err(|error| broken(error.code(), &error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            TaskFailure::new("record_unreadable", format!("a stored record can't be read: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_its_kind() {
        assert_eq!(STAGES.len(), KINDS.len());
        assert_eq!(KINDS.last(), Some(&"submit.publish"));
    }
}
