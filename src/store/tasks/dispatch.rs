//! `submit.dispatch` and `submit.await_result`: giving the pack to a runner, and the watch over its result.

use std::sync::Arc;
use std::time::Duration;

use crate::callback::ResultBody;
use crate::changes::{EventKey, Step, TaskFailure, Woken};
use crate::config::RunnerKind;
use crate::names::{Millis, Nonce, SubmissionId};
use crate::runner::{Job as RunnerJob, TestCommand, TestComponent};
use crate::state::Read as _;

use super::super::codes::ReasonCode;
use super::super::finding::{Finding, printable};
use super::super::manifest::Manifest;
use super::super::record::{AttemptState, SUBMISSIONS, SubmissionRecord, SubmissionState};
use super::{Job, aborted, admitted, failure, new_cancel};

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
    // What can't be published isn't tested again.
    let again = dispatches < ATTEMPTS && row.lacks.is_none();
    let running = row
        .attempts
        .iter()
        .filter(|attempt| matches!(attempt.state, AttemptState::Live | AttemptState::Dispatching));
    let Some(latest) = running.map(|attempt| attempt.at).max() else {
        return if again { Watch::Again } else { Watch::Over };
    };
    let deadline = latest.after(patience(dispatches));
    match (now < deadline, again) {
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
        if self.ctx.woken() == Woken::AfterRestart {
            self.lose_attempts().await?;
        }
        self.dispatch_once().await?;
        Ok(Step::Done)
    }

    /// The embedded runner ended with the process: nobody works on its attempts any more, and no result of theirs
    /// will come. Gives the row as it is now.
    async fn lose_attempts(&self) -> Result<SubmissionRecord, TaskFailure> {
        let lost = self.row.attempts.iter().any(|attempt| attempt.embedded);
        if lost {
            self.ctx.log("the runner ended together with Pantry").await;
        }
        self.update(|row| {
            if row.accepted.is_none() {
                row.lose_attempts();
            }
        })
        .await?;
        self.row_now().await
    }

    async fn row_now(&self) -> Result<SubmissionRecord, TaskFailure> {
        let id = self.id.clone();
        let found = self.inner.parts.state.read(move |view| view.get(&SUBMISSIONS, &id)).await?;
        found.ok_or_else(|| TaskFailure::new("submission_unknown", "the submission is gone"))
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
        admitted(self.inner, self.ctx).await?;
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
        let restarted = self.row.accepted.is_none() && self.ctx.woken() == Woken::AfterRestart;
        let mut row = if restarted { self.lose_attempts().await? } else { self.row.clone() };
        loop {
            match watch(&row, self.ctx.now()) {
                Watch::Come => {
                    self.log_result(&row).await;
                    return Ok(Step::Done);
                }
                Watch::Until(deadline) => {
                    return Ok(Step::Wait { event: result_event(&self.id), deadline: Some(deadline) });
                }
                Watch::Over => {
                    let message = match &row.lacks {
                        Some(lacks) => {
                            format!("no result came in time, and none could be published: {lacks}")
                        }
                        None => format!("no result came for any of {ATTEMPTS} dispatches"),
                    };
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
            row = self.row_now().await?;
        }
    }

    /// Tells the change's log what was accepted; the words are the sender's. The log is a comfort, so that a result
    /// which can't be read is left for the next task to report.
    async fn log_result(&self, row: &SubmissionRecord) {
        let (Some(accepted), Some(result)) = (&row.accepted, &row.result) else { return };
        let summary = match self.json::<ResultBody>(result).await {
            Ok(body) => printable(&body.summary, 200),
            Err(failure) => failure.message,
        };
        let key = &accepted.key_id;
        self.ctx.log(&format!("a signed result was accepted (key {key}): {summary}")).await;
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

    #[test]
    fn an_attempt_whose_runner_is_gone_is_not_waited_for() {
        let mut row = row_of(3, 0);
        row.lose_attempts();
        assert_eq!(watch(&row, Millis(1)), Watch::Again);
    }

    #[test]
    fn what_can_not_be_published_is_waited_for_and_never_dispatched_again() {
        let lacks = || Some("its context is empty".to_owned());
        let mut row = SubmissionRecord { lacks: lacks(), ..row_of(1, 0) };
        assert_eq!(watch(&row, Millis(10 * MINUTE - 1)), Watch::Until(Millis(10 * MINUTE)));
        assert_eq!(watch(&row, Millis(10 * MINUTE)), Watch::Over);
        row.attempts.clear();
        assert_eq!(watch(&row, Millis(0)), Watch::Over, "nobody could sign its result");
    }
}
