//! The report: what the test job hands to the callback job, and the body made from it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::callback::{BODY_CAP, ResultBody};
use crate::names::Digest;

use super::judge::tail;

/// How much of all outputs together is kept.
const RAW_CAP_CHARS: usize = 64 * 1024;

/// The outcome of all tests of a pack: the harness's JSON, and what held the tests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestReport {
    /// Each test.
    pub tests: Vec<TestResult>,
    /// How many passed.
    pub passed: u64,
    /// How many failed.
    pub failed: u64,
    /// `name: message` of each failed one; also why there was nothing to run.
    pub errors: Vec<String>,
    /// One line for people.
    pub summary: String,
    /// The pack's digest.
    pub pack_digest: Digest,
    /// What the tests printed, control characters escaped: the package's own words.
    pub raw_output: String,
    /// The receipt of the first jail.
    pub receipt: Option<Value>,
    /// Why the pack failed, as reason codes in the order of the tests; none when it passed.
    pub reason_codes: Vec<ReasonCode>,
}

/// One test's outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// Its name, `<component>/<check>`.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// Why not, with the end of what it printed.
    pub error: Option<String>,
    /// The code of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<ReasonCode>,
    /// The limit that it reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// How long it took.
    pub wall_ms: u64,
}

/// Why a test failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReasonCode {
    /// It failed by itself.
    #[serde(rename = "tests_failed")]
    Failed,
    /// It ran out of time.
    #[serde(rename = "test_timeout")]
    Timeout,
    /// It reached a limit.
    #[serde(rename = "test_resource_limit")]
    Limit,
    /// The filter killed it.
    #[serde(rename = "test_escape_attempt")]
    Escape,
}

impl ReasonCode {
    /// The code on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "tests_failed",
            Self::Timeout => "test_timeout",
            Self::Limit => "test_resource_limit",
            Self::Escape => "test_escape_attempt",
        }
    }
}

impl TestResult {
    pub(super) fn passed(name: &str, wall_ms: u64) -> Self {
        Self { name: name.to_owned(), passed: true, error: None, reason_code: None, limit: None, wall_ms }
    }

    pub(super) fn failed(
        name: &str,
        code: ReasonCode,
        error: String,
        limit: Option<&str>,
        wall_ms: u64,
    ) -> Self {
        let limit = limit.map(str::to_owned);
        Self {
            name: name.to_owned(),
            passed: false,
            error: Some(error),
            reason_code: Some(code),
            limit,
            wall_ms,
        }
    }
}

impl TestReport {
    /// The report of these tests; without any it is a failure.
    pub(super) fn of(pack: Digest, tests: Vec<TestResult>, raw_output: &str, receipt: Option<Value>) -> Self {
        let passed = tests.iter().filter(|test| test.passed).count();
        let failed = tests.len() - passed;
        let mut reason_codes = Vec::new();
        let mut errors = Vec::new();
        for test in tests.iter().filter(|test| !test.passed) {
            let code = test.reason_code.unwrap_or(ReasonCode::Failed);
            if !reason_codes.contains(&code) {
                reason_codes.push(code);
            }
            errors.push(format!("{}: {}", test.name, test.error.as_deref().unwrap_or("it failed")));
        }
        let word = if failed == 0 { "PASS" } else { "FAIL" };
        let mut summary = format!("{word} - {passed}/{} tests passed", tests.len());
        if tests.is_empty() {
            "FAIL - there is nothing to test".clone_into(&mut summary);
            errors.push(
                "harness: the package has no Python component, no command and no test of its own to run"
                    .to_owned(),
            );
            reason_codes.push(ReasonCode::Failed);
        }
        Self {
            passed: passed as u64,
            failed: failed as u64,
            errors,
            summary,
            pack_digest: pack,
            raw_output: tail(raw_output, RAW_CAP_CHARS).to_owned(),
            receipt,
            reason_codes,
            tests,
        }
    }

    /// The report when the test job itself died: a failure, so that nothing waits for ever.
    pub(super) fn crashed(pack: Digest, why: &str) -> Self {
        Self {
            tests: Vec::new(),
            passed: 0,
            failed: 0,
            errors: vec![format!("harness: {why}")],
            summary: format!("CRASH - {}", why.lines().next().unwrap_or_default()),
            pack_digest: pack,
            raw_output: String::new(),
            receipt: None,
            reason_codes: vec![ReasonCode::Failed],
        }
    }

    /// Whether the pack passed: some test ran, and none failed.
    #[must_use]
    pub fn is_pass(&self) -> bool {
        self.passed > 0 && self.failed == 0 && self.errors.is_empty() && self.reason_codes.is_empty()
    }

    /// The bytes of the callback's body, within its cap: where they would be more, the package's words are cut
    /// first, then the list of tests; the verdict and the counts always stand.
    pub(super) fn body_bytes(&self) -> Vec<u8> {
        [usize::MAX, 400, 80]
            .into_iter()
            .map(|words| self.body(words))
            .find(|bytes| bytes.len() <= BODY_CAP)
            .unwrap_or_else(|| self.smallest_body())
    }

    /// The body in which each piece of the package's words has that many characters at most.
    fn body(&self, words: usize) -> Vec<u8> {
        let cut = |text: &str| text.chars().take(words).collect::<String>();
        let tests: Vec<TestResult> = self
            .tests
            .iter()
            .map(|test| TestResult { error: test.error.as_deref().map(cut), ..test.clone() })
            .collect();
        let raw_output = if words == usize::MAX { self.raw_output.as_str() } else { "" };
        self.encode(self.errors.iter().map(|error| cut(error)).collect(), raw_output, json!(tests))
    }

    fn smallest_body(&self) -> Vec<u8> {
        let errors = self.errors.iter().take(100).map(|error| error.chars().take(80).collect()).collect();
        self.encode(errors, "", Value::Array(Vec::new()))
    }

    fn encode(&self, errors: Vec<String>, raw_output: &str, tests: Value) -> Vec<u8> {
        let mut extra = Map::new();
        extra.insert("reason_codes".to_owned(), json!(self.reason_codes));
        extra.insert("tests".to_owned(), tests);
        let body = ResultBody {
            passed: self.is_pass(),
            summary: self.summary.clone(),
            test_count: self.passed + self.failed,
            pass_count: self.passed,
            fail_count: self.failed,
            errors,
            raw_output: raw_output.to_owned(),
            pack_digest: Some(self.pack_digest.clone()),
            receipt: self.receipt.clone(),
            extra,
        };
        serde_json::to_vec(&body).expect("invariant: a body of strings, numbers and JSON values serializes")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pack() -> Digest {
        Digest::of(b"pack")
    }

    fn body(report: &TestReport) -> ResultBody {
        serde_json::from_slice(&report.body_bytes()).unwrap()
    }

    #[test]
    fn all_passed_is_a_pass() {
        let tests = vec![TestResult::passed("a", 1), TestResult::passed("b", 2)];
        let report = TestReport::of(pack(), tests, "out", Some(json!({"kernel": "k"})));
        assert!(report.is_pass());
        let body = body(&report);
        assert_eq!((body.passed, body.test_count, body.pass_count, body.fail_count), (true, 2, 2, 0));
        assert_eq!(body.summary, "PASS - 2/2 tests passed");
        assert_eq!((body.pack_digest, body.raw_output.as_str()), (Some(pack()), "out"));
        assert_eq!(body.receipt.unwrap()["kernel"], "k");
        assert_eq!(body.extra["reason_codes"], json!([]));
        assert_eq!(body.extra["tests"][1], json!({"name": "b", "passed": true, "error": null, "wall_ms": 2}));
    }

    #[test]
    fn one_failure_fails_and_codes_are_unique_in_order() {
        let failed = |name, code| TestResult::failed(name, code, "why".to_owned(), None, 1);
        let tests = vec![
            TestResult::passed("a", 1),
            failed("b", ReasonCode::Limit),
            failed("c", ReasonCode::Failed),
            failed("d", ReasonCode::Limit),
        ];
        let report = TestReport::of(pack(), tests, "", None);
        let body = body(&report);
        assert_eq!((body.passed, body.pass_count, body.fail_count), (false, 1, 3));
        assert_eq!(body.errors, ["b: why", "c: why", "d: why"]);
        assert_eq!(body.extra["reason_codes"], json!(["test_resource_limit", "tests_failed"]));
        assert_eq!(body.summary, "FAIL - 1/4 tests passed");
    }

    #[test]
    fn nothing_to_run_and_a_dead_job_are_failures_with_a_reason() {
        for report in [TestReport::of(pack(), vec![], "", None), TestReport::crashed(pack(), "it panicked")] {
            let body = body(&report);
            assert!(!body.passed && !report.is_pass());
            assert_eq!((body.test_count, body.errors.len()), (0, 1));
            assert_eq!(body.extra["reason_codes"], json!(["tests_failed"]));
        }
    }

    #[test]
    fn the_body_stays_within_its_cap_whatever_was_printed() {
        for (count, length) in [(1, 4000), (100, 4000), (3000, 400), (10_000, 40)] {
            let noise = "\u{1b}\"\\".repeat(length / 3);
            let tests: Vec<_> = (0..count)
                .map(|n| {
                    let name = format!("command/{n}/{}", "n".repeat(180));
                    TestResult::failed(&name, ReasonCode::Failed, noise.clone(), None, 1)
                })
                .collect();
            let report = TestReport::of(pack(), tests, &noise.repeat(20), None);
            let bytes = report.body_bytes();
            assert!(bytes.len() <= BODY_CAP, "{count}: {}", bytes.len());
            let body: ResultBody = serde_json::from_slice(&bytes).unwrap();
            assert_eq!((body.passed, body.fail_count), (false, count));
            assert!(!body.errors.is_empty());
        }
    }

    #[test]
    fn a_report_survives_being_written_down() {
        let failed = TestResult::failed("a", ReasonCode::Limit, "e".into(), Some("memory"), 3);
        let report = TestReport::of(pack(), vec![failed], "out", Some(json!({"kernel": "k"})));
        let text = serde_json::to_string(&report).unwrap();
        let back: TestReport = serde_json::from_str(&text).unwrap();
        assert_eq!(back.body_bytes(), report.body_bytes());
    }
}
