//! The test job: a pack's tests, each in a jail of its own. It holds no secret.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::names::{Digest, Nonce, Random};
use crate::packs::APP_DIR;
use crate::sandbox::{Cancel, End, Identity, Limits, Network, Policy, Require, Stdio, Tmpfs};

use super::error::RunnerError;
use super::jail::Jail;
use super::judge::{judge, shown_stdout};
use super::plan::{PlannedTest, Proof};
use super::report::{ReasonCode, TestReport, TestResult};

const MIB: u64 = 1 << 20;
/// The user and group of a package's program, in a test as after its installation.
const ID: u32 = 65532;
/// What all tests of a pack may take together.
const JOB_MS: u64 = 600_000;
/// Outputs are gathered up to this many bytes; the report keeps their end.
const GATHERED_CAP: usize = 1 << 20;

/// The bench on which a pack's tests run.
pub(super) struct TestJob<'a> {
    pub(super) jail: &'a dyn Jail,
    pub(super) pack: Digest,
    /// The pack's layers, bottom first.
    pub(super) root: Vec<PathBuf>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) limits: Limits,
    pub(super) random: &'a dyn Random,
    pub(super) cancel: &'a Cancel,
    pub(super) progress: &'a (dyn Fn(String) + Send + Sync),
}

impl TestJob<'_> {
    /// Runs the tests in order. Blocking.
    ///
    /// # Errors
    /// When a jail can't be run, which says nothing about the package, or when the work is cancelled.
    pub(super) fn run(&self, tests: &[PlannedTest]) -> Result<TestReport, RunnerError> {
        let mut results = Vec::with_capacity(tests.len());
        let mut raw_output = String::new();
        let mut receipt = None;
        let mut left_ms = JOB_MS;
        for test in tests {
            let result = if let Some(why) = test.unusable() {
                TestResult::failed(&test.name, ReasonCode::Failed, why.to_owned(), None, 0)
            } else if left_ms == 0 {
                let why = format!("it was not run: the tests before it took {} s", JOB_MS / 1000);
                TestResult::failed(&test.name, ReasonCode::Timeout, why, None, 0)
            } else {
                let result = self.run_one(test, left_ms, &mut raw_output, &mut receipt)?;
                left_ms = left_ms.saturating_sub(result.wall_ms);
                result
            };
            let word = if result.passed { "passed" } else { "failed" };
            (self.progress)(format!("{} {word} ({} ms)", result.name, result.wall_ms));
            results.push(result);
        }
        Ok(TestReport::of(self.pack.clone(), results, &raw_output, receipt))
    }

    fn run_one(
        &self,
        test: &PlannedTest,
        left_ms: u64,
        raw_output: &mut String,
        receipt: &mut Option<serde_json::Value>,
    ) -> Result<TestResult, RunnerError> {
        let policy = self.policy(test, left_ms);
        let token = (test.proof == Proof::Token).then(|| Nonce::new(self.random).to_string());
        let stdin = token.clone().unwrap_or_default().into_bytes();
        let run = self
            .jail
            .run(&policy, stdin, self.cancel)
            .map_err(|source| RunnerError::Jail { test: test.name.clone(), source })?;
        if run.end == End::Cancelled {
            return Err(RunnerError::Cancelled);
        }
        gather(raw_output, &test.name, &shown_stdout(&run, token.as_deref()), &run.stderr_text);
        let result = judge(test, &run, token.as_deref(), &policy.limits);
        receipt.get_or_insert(run.receipt);
        Ok(result)
    }

    fn policy(&self, test: &PlannedTest, left_ms: u64) -> Policy {
        let tmpfs = |at: &str, mib: u64, inodes| {
            // It is memory, of which there can't be more than the machine grants.
            let size_bytes = (mib * MIB).min(self.limits.memory_bytes);
            Tmpfs { at: PathBuf::from(at), size_bytes, inodes }
        };
        let mut policy = Policy::new(self.root.clone(), test.argv.clone());
        policy.env.clone_from(&self.env);
        policy.cwd = PathBuf::from(APP_DIR);
        policy.identity = Identity { uid: ID, gid: ID, host_base: None, host_group: None };
        policy.network = Network::None;
        policy.tmpfs = vec![tmpfs("/tmp", 64, 16_384), tmpfs("/output", 16, 4096)];
        policy.limits = self.limits.clone();
        // A package may only shorten what this machine grants.
        let asked = test.wall_ms.unwrap_or(u64::MAX);
        policy.limits.wall_ms = self.limits.wall_ms.min(asked).min(left_ms);
        policy.require = Require::publishing();
        policy.stdio = Stdio::Captured;
        policy
    }
}

fn gather(into: &mut String, name: &str, stdout: &str, stderr: &str) {
    for (stream, text) in [("stdout", stdout), ("stderr", stderr)] {
        if !text.trim().is_empty() {
            into.push_str("== ");
            into.push_str(name);
            into.push(' ');
            into.push_str(stream);
            into.push_str(" ==\n");
            into.push_str(text.trim_end());
            into.push('\n');
        }
    }
    if into.len() > GATHERED_CAP {
        let mut cut = into.len() - GATHERED_CAP;
        while !into.is_char_boundary(cut) {
            cut += 1;
        }
        into.drain(..cut);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use super::super::jail::JailRun;
    use super::super::jail::tests::{Double, run};
    use super::*;
    use crate::names::SeededRandom;
    use crate::sandbox::SandboxError;

    fn planned(name: &str, proof: Proof, wall_ms: Option<u64>) -> PlannedTest {
        PlannedTest { name: name.to_owned(), argv: vec!["/usr/bin/python3".to_owned()], proof, wall_ms }
    }

    fn on(
        double: &Double,
        tests: &[PlannedTest],
        lines: &Mutex<Vec<String>>,
    ) -> Result<TestReport, RunnerError> {
        let progress = |line| lines.lock().unwrap().push(line);
        TestJob {
            jail: double,
            pack: Digest::of(b"pack"),
            root: vec!["/trees/a".into(), "/trees/b".into()],
            env: BTreeMap::from([("PYTHONPATH".to_owned(), "/opt/app".to_owned())]),
            limits: Limits::tests(),
            random: &SeededRandom::new(1),
            cancel: &Cancel::new().unwrap(),
            progress: &progress,
        }
        .run(tests)
    }

    fn with(
        answers: Vec<Result<JailRun, SandboxError>>,
        tests: &[PlannedTest],
    ) -> (Result<TestReport, RunnerError>, Double) {
        let double = Double::answering(answers);
        let report = on(&double, tests, &Mutex::default());
        (report, double)
    }

    #[test]
    fn each_test_is_a_run_of_its_own_under_the_policy_of_the_specification() {
        let tests = [planned("a/import", Proof::Token, None), planned("test", Proof::Exit, Some(5000))];
        let lines = Mutex::default();
        let double = Double::answering([
            Ok(run(End::Exited(0), "hello\n\n{stdin}\n", "")),
            Ok(run(End::Exited(0), "", "note\n")),
        ]);
        let report = on(&double, &tests, &lines).unwrap();
        assert!(report.is_pass(), "{report:?}");
        assert_eq!(*lines.lock().unwrap(), ["a/import passed (10 ms)", "test passed (10 ms)"]);
        assert_eq!(report.raw_output, "== a/import stdout ==\nhello\n== test stderr ==\nnote\n");
        assert_eq!(report.receipt, Some(serde_json::json!({"kernel": "double"})));
        let asked = double.asked.lock().unwrap();
        assert_eq!(asked.len(), 2);
        assert_eq!(asked[0].1.len(), 43);
        assert!(asked[1].1.is_empty());
        for (policy, _) in asked.iter() {
            assert_eq!(policy.root, [PathBuf::from("/trees/a"), PathBuf::from("/trees/b")]);
            assert!(matches!(policy.network, Network::None));
            assert!(policy.inputs.is_empty() && policy.data.is_empty() && policy.outputs.is_empty());
            let tmpfs: Vec<_> =
                policy.tmpfs.iter().map(|t| (t.at.to_str().unwrap(), t.size_bytes >> 20)).collect();
            assert_eq!(tmpfs, [("/tmp", 64), ("/output", 16)]);
            assert_eq!((policy.identity.uid, policy.identity.gid), (65532, 65532));
            assert_eq!(policy.cwd, PathBuf::from("/opt/app"));
            assert_eq!(policy.env.len(), 1);
            assert_eq!(policy.limits.memory_bytes, 128 << 20);
        }
        assert_eq!((asked[0].0.limits.wall_ms, asked[1].0.limits.wall_ms), (180_000, 5000));
    }

    #[test]
    fn a_package_can_only_shorten_its_time() {
        let answers = vec![Ok(run(End::Exited(0), "", ""))];
        let (_, double) = with(answers, &[planned("test", Proof::Exit, Some(u64::MAX))]);
        assert_eq!(double.asked.lock().unwrap()[0].0.limits.wall_ms, 180_000);
    }

    #[test]
    fn each_import_gets_another_token_and_an_old_one_does_not_count() {
        let tests = [planned("a/import", Proof::Token, None), planned("b/import", Proof::Token, None)];
        let answers =
            vec![Ok(run(End::Exited(0), "\n{stdin}\n", "")), Ok(run(End::Exited(0), "\nguess\n", ""))];
        let (report, double) = with(answers, &tests);
        let asked = double.asked.lock().unwrap();
        assert_ne!(asked[0].1, asked[1].1);
        let passed: Vec<_> = report.unwrap().tests.iter().map(|test| test.passed).collect();
        assert_eq!(passed, [true, false]);
    }

    #[test]
    fn a_failure_does_not_keep_the_other_tests_from_running() {
        let tests = [planned("a", Proof::Exit, None), planned("b", Proof::Exit, None)];
        let (report, _) = with(vec![Ok(run(End::Denied, "", "")), Ok(run(End::Exited(0), "", ""))], &tests);
        let report = report.unwrap();
        assert_eq!((report.passed, report.failed), (1, 1));
        assert_eq!(report.reason_codes, [ReasonCode::Escape]);
    }

    #[test]
    fn a_jail_that_fails_is_no_verdict_and_neither_is_a_cancelled_run() {
        let broken = super::super::error::tests::broken_jail();
        let (report, _) = with(vec![Err(broken)], &[planned("a", Proof::Exit, None)]);
        assert!(matches!(report, Err(RunnerError::Jail { test, .. }) if test == "a"));
        let (report, _) = with(vec![Ok(run(End::Cancelled, "", ""))], &[planned("a", Proof::Exit, None)]);
        assert!(matches!(report, Err(RunnerError::Cancelled)));
    }

    #[test]
    fn no_test_starts_after_the_time_of_all_is_used_up() {
        let slow = || JailRun { wall_ms: 180_000, ..run(End::TimedOut, "", "") };
        let tests: Vec<_> = (0..6).map(|n| planned(&n.to_string(), Proof::Exit, None)).collect();
        let (report, double) = with(vec![Ok(slow()), Ok(slow()), Ok(slow()), Ok(slow())], &tests);
        let report = report.unwrap();
        let asked = double.asked.lock().unwrap();
        let granted: Vec<_> = asked.iter().map(|(policy, _)| policy.limits.wall_ms).collect();
        assert_eq!(granted, [180_000, 180_000, 180_000, 60_000]);
        assert_eq!((report.failed, report.reason_codes.as_slice()), (6, [ReasonCode::Timeout].as_slice()));
        assert!(report.errors[5].contains("was not run"));
    }

    #[test]
    fn a_command_line_that_can_not_be_run_is_the_packages_failure() {
        let bad = PlannedTest { argv: vec!["/x\0".to_owned()], ..planned("test", Proof::Exit, None) };
        let (report, double) = with(vec![], &[bad]);
        assert_eq!(report.unwrap().failed, 1);
        assert!(double.asked.lock().unwrap().is_empty());
    }

    #[test]
    fn endless_output_of_many_tests_is_gathered_up_to_a_cap() {
        let mut text = String::new();
        for n in 0..5 {
            gather(&mut text, &n.to_string(), &"é".repeat(300_000), "end");
        }
        assert!(text.len() <= GATHERED_CAP && text.ends_with("== 4 stderr ==\nend\n"));
    }
}
