//! The one thing a test job asks of a sandbox, so that tests can put a recording double in its place.

use crate::sandbox::{Cancel, End, Policy, Sandbox, SandboxError, StdinBytes};

/// Runs one program in a jail of its own. Blocking.
pub(super) trait Jail: Send + Sync {
    fn run(&self, policy: &Policy, stdin: Vec<u8>, cancel: &Cancel) -> Result<JailRun, SandboxError>;
}

/// What the judge sees of a run.
#[derive(Clone, Debug)]
pub(super) struct JailRun {
    pub(super) end: End,
    /// The bytes as printed, perhaps without a middle.
    pub(super) stdout: Vec<u8>,
    /// The same for people, control characters escaped.
    pub(super) stdout_text: String,
    pub(super) stderr_text: String,
    pub(super) receipt: serde_json::Value,
    pub(super) wall_ms: u64,
}

impl Jail for Sandbox {
    fn run(&self, policy: &Policy, stdin: Vec<u8>, cancel: &Cancel) -> Result<JailRun, SandboxError> {
        let stdin = if stdin.is_empty() { StdinBytes::Empty } else { StdinBytes::Bytes(stdin) };
        let outcome = Self::run(self, policy, stdin, cancel)?;
        Ok(JailRun {
            end: outcome.end,
            stdout_text: outcome.stdout.text(),
            stdout: outcome.stdout.bytes,
            stderr_text: outcome.stderr.text(),
            receipt: serde_json::to_value(&outcome.receipt).unwrap_or_default(),
            wall_ms: outcome.wall_ms,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;

    /// A run that ended so and printed that.
    pub(in super::super) fn run(end: End, stdout: &str, stderr: &str) -> JailRun {
        JailRun {
            end,
            stdout: stdout.as_bytes().to_vec(),
            stdout_text: stdout.to_owned(),
            stderr_text: stderr.to_owned(),
            receipt: serde_json::json!({ "kernel": "double" }),
            wall_ms: 10,
        }
    }

    /// Answers with what it was given, one after the other, and remembers what it was asked. `{stdin}` in what it
    /// prints stands for what it was given on stdin.
    #[derive(Default)]
    pub(in super::super) struct Double {
        pub(in super::super) answers: Mutex<VecDeque<Result<JailRun, SandboxError>>>,
        pub(in super::super) asked: Mutex<Vec<(Policy, Vec<u8>)>>,
    }

    impl Double {
        pub(in super::super) fn answering(
            answers: impl IntoIterator<Item = Result<JailRun, SandboxError>>,
        ) -> Self {
            Self { answers: Mutex::new(answers.into_iter().collect()), asked: Mutex::default() }
        }
    }

    impl Jail for Double {
        fn run(&self, policy: &Policy, stdin: Vec<u8>, _: &Cancel) -> Result<JailRun, SandboxError> {
            let given = String::from_utf8(stdin.clone()).expect("tests give text");
            self.asked.lock().expect("no test panics inside").push((policy.clone(), stdin));
            let answer = self.answers.lock().expect("no test panics inside").pop_front();
            answer.expect("one answer for each run").map(|mut run| {
                run.stdout_text = run.stdout_text.replace("{stdin}", &given);
                run.stdout = run.stdout_text.clone().into_bytes();
                run
            })
        }
    }
}
