//! The embedded runner: both jobs on this machine, one after the other.

use std::sync::Arc;

use crate::blobs::Blobs;
use crate::callback::Signer;
use crate::names::SystemRandom;
use crate::packs;
use crate::sandbox::{Cancel, Limits, Sandbox};
use crate::trees::Trees;

use super::callback_job::{CallbackJob, DELAYS};
use super::error::RunnerError;
use super::jail::Jail;
use super::job::Job;
use super::plan::plan;
use super::report::TestReport;
use super::test_job::TestJob;

/// Tests submissions on this machine.
#[derive(Clone)]
pub struct Embedded {
    tests: Tests,
    signer: Signer,
    tls: Option<rustls::ClientConfig>,
}

/// What the test job is given: no key among it.
#[derive(Clone)]
struct Tests {
    blobs: Blobs,
    trees: Trees,
    jail: Arc<dyn Jail>,
    limits: Limits,
}

/// Who hears of each test.
type Progress = Arc<dyn Fn(String) + Send + Sync>;

impl Embedded {
    /// A runner that tests under these limits and reports with that signer.
    #[must_use]
    pub fn new(blobs: Blobs, trees: Trees, sandbox: Sandbox, signer: Signer, limits: Limits) -> Self {
        let tests = Tests { blobs, trees, jail: Arc::new(sandbox), limits };
        Self { tests, signer, tls: None }
    }

    /// Delivers results with this trust in place of the machine's own.
    #[must_use]
    pub fn with_tls(self, tls: rustls::ClientConfig) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Runs both jobs: tests the pack in jails, then signs the result and posts it. `progress` gets a line a test.
    ///
    /// # Errors
    /// When this machine can't test the pack, when the result is refused or not taken, or when `cancel` says so. A
    /// package that fails its tests is no error: its result is delivered.
    pub async fn run(&self, job: &Job, cancel: &Cancel, progress: Progress) -> Result<(), RunnerError> {
        let report = self.test(job, cancel, progress).await?;
        self.report(job, &report).await
    }

    /// The test job alone.
    ///
    /// # Errors
    /// When this machine can't test the pack, or when `cancel` says so.
    pub async fn test(
        &self,
        job: &Job,
        cancel: &Cancel,
        progress: Progress,
    ) -> Result<TestReport, RunnerError> {
        self.tests.clone().run(job, cancel, progress).await
    }

    /// The callback job alone.
    ///
    /// # Errors
    /// When the result is refused or not taken.
    pub async fn report(&self, job: &Job, report: &TestReport) -> Result<(), RunnerError> {
        let (submission, nonce) = (&job.submission, &job.nonce);
        let (url, signer, tls) = (job.callback_url.as_str(), &self.signer, self.tls.as_ref());
        CallbackJob { submission, nonce, url, signer, delays: &DELAYS, tls }.run(report).await
    }
}

impl Tests {
    async fn run(self, job: &Job, cancel: &Cancel, progress: Progress) -> Result<TestReport, RunnerError> {
        let pack = packs::load(&self.blobs, &job.pack).await.map_err(RunnerError::Pack)?;
        let tests = plan(job, &pack.info.commands);
        let (digest, cancel) = (job.pack.clone(), cancel.clone());
        let work = tokio::task::spawn_blocking(move || {
            let root = self.trees.ensure(&pack.layers).map_err(RunnerError::Tree)?;
            TestJob {
                jail: self.jail.as_ref(),
                pack: pack.digest,
                root,
                env: pack.env,
                limits: self.limits,
                random: &SystemRandom,
                cancel: &cancel,
                progress: progress.as_ref(),
            }
            .run(&tests)
        });
        match work.await {
            Ok(report) => report,
            // The runtime is shutting down.
            Err(died) if died.is_cancelled() => Err(RunnerError::Cancelled),
            Err(died) => Ok(after_death(digest, &died)),
        }
    }
}

/// A job that died says so in a result of its own: nothing must wait for it.
fn after_death(pack: crate::names::Digest, died: &tokio::task::JoinError) -> TestReport {
    tracing::error!(error = %died, "the test job died");
    TestReport::crashed(pack, "the test job died before it had a result")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Digest;

    #[tokio::test]
    async fn a_job_that_died_is_reported_as_a_failure() {
        let died = tokio::spawn(async { panic!("on purpose") }).await.expect_err("it panicked");
        let report = after_death(Digest::of(b"pack"), &died);
        assert!(!report.is_pass() && report.summary.starts_with("CRASH - "));
        assert_eq!(report.pack_digest, Digest::of(b"pack"));
    }
}
