//! `submit.dispatch` and `submit.await_result`: giving the pack to a runner, and the watch over its result.

use std::sync::Arc;
use std::time::Duration;

use crate::changes::{EventKey, Step, TaskFailure, Woken};
use crate::config::RunnerKind;
use crate::names::{Millis, Nonce, SubmissionId};
use crate::runner::{Job as RunnerJob, TestCommand, TestComponent};
use crate::state::Read as _;

use super::super::codes::ReasonCode;
use super::super::finding::Finding;
use super::super::manifest::Manifest;
use super::super::record::{SUBMISSIONS, SubmissionRecord, SubmissionState};
use super::{Job, aborted, failure, new_cancel};

/// How many dispatches a submission gets.
const ATTEMPTS: usize = 3;

/// What a wait for a result waits for.
pub(in super::super) fn result_event(id: &SubmissionId) -> EventKey {
    EventKey::new("result", id.as_str())
}

/// How long the result of the n-th dispatch (counted from 1) may take.
fn patience(dispatches: usize) -> Duration {
    Duration::from_secs(if dispatches <= 1 { 10 * 60 } else { 30 * 60 })
}

/// What the watch decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// A result is there.
    Come,
    /// Wait until then.
    Until(Millis),
    /// Dispatch again.
    Again,
    /// Give up.
    Over,
}

fn watch(row: &SubmissionRecord, now: Millis) -> Watch {
    if row.accepted.is_some() {
        return Watch::Come;
    }
    let dispatches = row.dispatches();
    let Some(latest) = row.attempts.iter().map(|attempt| attempt.at).max() else { return Watch::Again };
    let deadline = latest.after(patience(dispatches));
    match (now < deadline, dispatches < ATTEMPTS) {
        (true, _) => Watch::Until(deadline),
        (false, true) => Watch::Again,
        (false, false) => Watch::Over,
    }
}

impl Job<'_> {
    pub(super) async fn dispatch(&self) -> Result<Step, TaskFailure> {
        if self.row.accepted.is_some() {
            return Ok(Step::Done);
        }
        // A failure of the runner itself is retried here, a bounded number of times.
        if self.row.dispatches() >= ATTEMPTS && self.ctx.woken() == Woken::AfterRestart {
            return Ok(Step::Done);
        }
        self.dispatch_once().await?;
        Ok(Step::Done)
    }

    /// Writes an attempt with a new nonce, then has the pack tested. The result comes over HTTP like anybody's.
    async fn dispatch_once(&self) -> Result<(), TaskFailure> {
        let parts = &self.inner.parts;
        if parts.config.runner.kind != RunnerKind::Embedded {
            return Err(TaskFailure::new(
                "runner_not_available",
                "this Pantry tests packs with its own runner only",
            )
            .with_hint("set `runner.kind: embedded`, or unset PANTRY_CONTAINER_RUNNER"));
        }
        let manifest = self.manifest().await?;
        let nonce = Nonce::new(parts.random.as_ref());
        let job = self.runner_job(&manifest, &nonce)?;
        self.write_attempt(&nonce, false).await?;
        parts.faults.pass("store.attempt_written");
        // The embedded runner has accepted the dispatch when it is called.
        self.write_attempt(&nonce, true).await?;
        parts.faults.pass("store.dispatched");
        self.ctx.log("the runner has the pack").await;
        let guard = new_cancel()?;
        let (lines, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let progress = Arc::new(move |line: String| {
            // Nobody listens any more once the task has ended.
            let _ = lines.send(line);
        });
        let running = parts.runner.run(&job, &guard.0, progress);
        tokio::pin!(running);
        let mut tests = 0;
        let ended = loop {
            tokio::select! {
                ended = &mut running => break ended,
                Some(line) = heard.recv() => {
                    tests += 1;
                    self.ctx.progress(tests, 0, "lines");
                    self.ctx.log(&line).await;
                }
                () = self.ctx.until_cancelled() => {
                    guard.0.cancel();
                    break running.await;
                }
            }
        };
        while let Ok(line) = heard.try_recv() {
            self.ctx.log(&line).await;
        }
        if self.ctx.cancelled() {
            return Err(aborted());
        }
        parts.faults.pass("store.runner_ended");
        if let Err(error) = ended {
            // The attempt stays live: its result may have arrived though the runner could not know.
            self.ctx.log(&format!("the runner says: {error}")).await;
            tracing::warn!(submission = %self.id, %error, "the runner failed");
        }
        Ok(())
    }

    async fn write_attempt(&self, nonce: &Nonce, dispatched: bool) -> Result<(), TaskFailure> {
        let (nonce, now) = (nonce.clone(), self.inner.now());
        self.update(move |row| {
            if row.accepted.is_some() {
                return;
            }
            row.state = SubmissionState::AwaitingResult;
            row.trouble = None;
            if dispatched {
                row.dispatched(&nonce, now);
            } else {
                row.begin_attempt(&nonce, now);
            }
        })
        .await
    }

    fn runner_job(&self, manifest: &Manifest, nonce: &Nonce) -> Result<RunnerJob, TaskFailure> {
        let pack = self.row.pack_digest.clone();
        let callback_url = self.inner.callback_url(&self.id);
        Ok(RunnerJob {
            submission: self.id.clone(),
            nonce: nonce.clone(),
            pack: pack.ok_or_else(|| TaskFailure::new("pack_missing", "the submission has no pack"))?,
            components: manifest
                .components
                .iter()
                .map(|component| TestComponent {
                    kind: component.kind.as_str().to_owned(),
                    name: component.name.clone(),
                    path: component.path.clone(),
                })
                .collect(),
            test: manifest.test.as_ref().map(|test| TestCommand {
                argv: test.command.clone(),
                timeout_seconds: test.timeout_seconds,
            }),
            callback_url: callback_url.ok_or_else(|| {
                TaskFailure::new("callback_url_unknown", "the address for the result is not known yet")
                    .retryable()
            })?,
        })
    }

    pub(super) async fn await_result(&self) -> Result<Step, TaskFailure> {
        let mut row = self.row.clone();
        loop {
            match watch(&row, self.ctx.now()) {
                Watch::Come => return Ok(Step::Done),
                Watch::Until(deadline) => {
                    return Ok(Step::Wait { event: result_event(&self.id), deadline: Some(deadline) });
                }
                Watch::Over => {
                    let message = format!("no result came for any of {ATTEMPTS} dispatches");
                    let finding = Finding::new(ReasonCode::ResultTimeout, message);
                    let ended = self.inner.end(&self.id, SubmissionState::TimedOut, vec![finding]).await;
                    ended.map_err(|refusal| failure(&refusal))?;
                    return Ok(Step::Finish);
                }
                Watch::Again => {
                    self.ctx.log("no result in time: dispatched again").await;
                    self.dispatch_once().await?;
                }
            }
            let id = self.id.clone();
            let found = self.inner.parts.state.read(move |view| view.get(&SUBMISSIONS, &id)).await?;
            row = found.ok_or_else(|| TaskFailure::new("submission_unknown", "the submission is gone"))?;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rstest::rstest;

    use super::*;

    const MINUTE: u64 = 60_000;

    fn row_of(dispatches: u64, at: u64) -> SubmissionRecord {
        let mut row = SubmissionRecord::default();
        for number in 0..dispatches {
            let nonce = Nonce::parse(&format!("n{number}")).unwrap();
            row.begin_attempt(&nonce, Millis(at));
            row.dispatched(&nonce, Millis(at));
        }
        row
    }

    #[rstest]
    #[case(1, 10 * MINUTE - 1, Watch::Until(Millis(10 * MINUTE)))]
    #[case(1, 10 * MINUTE, Watch::Again)]
    #[case(2, 30 * MINUTE - 1, Watch::Until(Millis(30 * MINUTE)))]
    #[case(2, 30 * MINUTE, Watch::Again)]
    #[case(3, 30 * MINUTE - 1, Watch::Until(Millis(30 * MINUTE)))]
    #[case(3, 30 * MINUTE, Watch::Over)]
    fn the_watch_follows_its_table(#[case] dispatches: u64, #[case] age: u64, #[case] expected: Watch) {
        assert_eq!(watch(&row_of(dispatches, 0), Millis(age)), expected);
    }

    #[test]
    fn an_attempt_whose_dispatch_is_not_known_does_not_count() {
        let mut row = row_of(1, 0);
        row.begin_attempt(&Nonce::parse("lost").unwrap(), Millis(5));
        assert_eq!(watch(&row, Millis(10 * MINUTE + 5)), Watch::Again);
        assert_eq!(row.dispatches(), 1);
        assert_eq!(watch(&SubmissionRecord::default(), Millis(0)), Watch::Again);
    }
}
