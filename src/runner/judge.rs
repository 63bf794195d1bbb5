//! From the jail's account of a run to the result of a test. Pure.

use crate::sandbox::{End, Limit, Limits};

use super::jail::JailRun;
use super::plan::{PlannedTest, Proof};
use super::report::{ReasonCode, TestResult};

/// How much of each stream stands in a failed test's error.
const TAIL_CHARS: usize = 2000;

/// The result of a run that was neither cancelled nor ours to blame.
///
/// The streams are quoted, never read, except for the token's line, without which exit code 0 isn't enough.
pub(super) fn judge(test: &PlannedTest, run: &JailRun, token: Option<&str>, limits: &Limits) -> TestResult {
    let failure = match run.end {
        End::Exited(0)
            if test.proof == Proof::Exit || token.is_some_and(|t| last_line(&run.stdout) == t.as_bytes()) =>
        {
            None
        }
        End::Exited(0) => Some((ReasonCode::Failed, "the import ended before it was complete".to_owned())),
        End::Exited(code) => Some((ReasonCode::Failed, format!("it exited with {code}"))),
        End::Signaled(signal) => Some((ReasonCode::Failed, format!("it was killed by signal {signal}"))),
        End::TimedOut => {
            let allowed = seconds(limits.wall_ms);
            Some((ReasonCode::Timeout, format!("it did not end within {allowed}")))
        }
        End::LimitHit(limit) => {
            Some((ReasonCode::Limit, format!("it reached its limit of {}", describe(limit, limits))))
        }
        End::Denied => {
            Some((ReasonCode::Escape, "it made a call that the filter kills a program for".to_owned()))
        }
        End::Cancelled => Some((ReasonCode::Failed, "it was cancelled".to_owned())),
    };
    let Some((code, sentence)) = failure else {
        return TestResult::passed(&test.name, run.wall_ms);
    };
    let mut error = sentence;
    for (stream, text) in [("stdout", shown_stdout(run, token)), ("stderr", run.stderr_text.clone())] {
        let tail = tail(text.trim_end(), TAIL_CHARS);
        if !tail.is_empty() {
            error.push_str("\nthe package's ");
            error.push_str(stream);
            error.push_str(":\n");
            error.push_str(tail);
        }
    }
    let limit = if let End::LimitHit(limit) = run.end { Some(limit_name(limit)) } else { None };
    TestResult::failed(&test.name, code, error, limit, run.wall_ms)
}

/// What the run printed, for people: without the token's line, which is ours.
pub(super) fn shown_stdout(run: &JailRun, token: Option<&str>) -> String {
    let text = run.stdout_text.as_str();
    token
        .and_then(|token| text.strip_suffix('\n')?.strip_suffix(token)?.strip_suffix('\n'))
        .unwrap_or(text)
        .to_owned()
}

/// The last line, with or without its end.
fn last_line(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.rsplit(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// The last characters of a text.
pub(super) fn tail(text: &str, characters: usize) -> &str {
    let start = text.char_indices().rev().take(characters).last().map_or(text.len(), |(at, _)| at);
    &text[start..]
}

fn limit_name(limit: Limit) -> &'static str {
    match limit {
        Limit::Memory => "memory",
        Limit::Processes => "processes",
        Limit::Output => "output",
        Limit::Files => "files",
        Limit::Cpu => "cpu",
    }
}

fn describe(limit: Limit, limits: &Limits) -> String {
    match limit {
        Limit::Memory => format!("memory ({})", size(limits.memory_bytes)),
        Limit::Processes => format!("processes ({})", limits.processes),
        Limit::Output => format!("output ({})", size(limits.output_total_bytes)),
        Limit::Files => format!("files ({})", size(limits.file_size_bytes)),
        Limit::Cpu => format!("cpu ({} % of one processor)", limits.cpu_percent),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        1_048_576.. => format!("{} MiB", bytes >> 20),
        _ => format!("{bytes} bytes"),
    }
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{} s", ms / 1000) } else { format!("{ms} ms") }
}

#[cfg(test)]
mod tests {
    use super::super::jail::tests::run;
    use super::*;

    fn test(proof: Proof) -> PlannedTest {
        PlannedTest { name: "t".to_owned(), argv: vec!["/x".to_owned()], proof, wall_ms: None }
    }

    fn judged(end: End) -> TestResult {
        judge(&test(Proof::Exit), &run(end, "PASS - 11/11\n", "why\n"), None, &Limits::tests())
    }

    #[test]
    fn each_end_has_its_code_and_sentence() {
        assert!(judged(End::Exited(0)).passed);
        for (end, code, words) in [
            (End::Exited(1), "tests_failed", "exited with 1"),
            (End::Exited(-1), "tests_failed", "exited with -1"),
            (End::Signaled(11), "tests_failed", "signal 11"),
            (End::TimedOut, "test_timeout", "within 180 s"),
            (End::LimitHit(Limit::Memory), "test_resource_limit", "memory (128 MiB)"),
            (End::LimitHit(Limit::Processes), "test_resource_limit", "processes (128)"),
            (End::LimitHit(Limit::Output), "test_resource_limit", "output (16 MiB)"),
            (End::LimitHit(Limit::Files), "test_resource_limit", "files (64 MiB)"),
            (End::LimitHit(Limit::Cpu), "test_resource_limit", "cpu (100 %"),
            (End::Denied, "test_escape_attempt", "filter"),
        ] {
            let result = judged(end);
            assert!(!result.passed);
            assert_eq!(result.reason_code.map(ReasonCode::as_str), Some(code));
            let error = result.error.unwrap_or_default();
            assert!(error.contains(words) && error.contains("stderr:\nwhy"), "{error}");
            assert_eq!(result.limit.is_some(), code == "test_resource_limit");
        }
    }

    #[test]
    fn a_printed_pass_does_not_save_a_failure() {
        let forged = "PASS - 11/11 tests passed\n{\"passed\": true}\n";
        assert!(!judge(&test(Proof::Exit), &run(End::Exited(1), forged, ""), None, &Limits::tests()).passed);
    }

    #[test]
    fn an_import_needs_exit_0_and_the_token_in_the_last_line() {
        for (end, out, passed) in [
            (End::Exited(0), "\ntok\n", true),
            (End::Exited(0), "words\n\ntok\n", true),
            (End::Exited(0), "tok", true),
            (End::Exited(0), "", false),
            (End::Exited(0), "\ntok\nmore\n", false),
            (End::Exited(0), "\ntok \n", false),
            (End::Exited(0), "\ntok\n\n", false),
            (End::Exited(1), "\ntok\n", false),
            (End::TimedOut, "\ntok\n", false),
        ] {
            let result = judge(&test(Proof::Token), &run(end, out, ""), Some("tok"), &Limits::tests());
            assert_eq!(result.passed, passed, "{end:?} {out:?}");
        }
        let early =
            judge(&test(Proof::Token), &run(End::Exited(0), "PASS\n", ""), Some("tok"), &Limits::tests());
        assert!(
            early.error.is_some_and(|error| error.starts_with("the import ended before it was complete"))
        );
        assert!(!judge(&test(Proof::Token), &run(End::Exited(0), "", ""), None, &Limits::tests()).passed);
    }

    #[test]
    fn an_error_quotes_the_end_of_what_was_printed() {
        let long = "é".repeat(5000) + "end";
        let result = judge(&test(Proof::Exit), &run(End::Exited(1), &long, &long), None, &Limits::tests());
        let error = result.error.unwrap_or_default();
        assert!(error.ends_with("éend") && error.chars().count() < 2 * TAIL_CHARS + 100);
        assert_eq!((tail("abc", 2), tail("abc", 9), tail("", 3), tail("abc", 0)), ("bc", "abc", "", ""));
    }

    #[test]
    fn people_do_not_see_the_token() {
        let printed = run(End::Exited(0), "words\n\ntok\n", "");
        assert_eq!(shown_stdout(&printed, Some("tok")), "words\n");
        assert_eq!(shown_stdout(&printed, None), "words\n\ntok\n");
    }
}
