//! What `--explain` prints: the policy before, the receipt after; and what `--learn` found out. On stderr, as stdout is
//! the program's.

use std::io::Write as _;

use serde_json::json;

use crate::cli::arguments::{Format, Global};
use crate::cli::output::{safe, say};
use crate::sandbox::{End, ExecStatus, Learned, Policy};

/// The policy; of the environment the names alone, as values may be secrets.
pub(super) fn before(global: &Global, policy: &Policy) {
    let words = policy.in_words();
    let mut value = json!(policy);
    value["env"] = json!(policy.env.keys().collect::<Vec<_>>());
    tell(global, "policy", &words, &json!({ "policy": value, "words": words }));
}

/// How it ended, and what held it.
pub(super) fn after(global: &Global, status: &ExecStatus) {
    let mut words = vec![format!("The program {}.", status.end.in_words(Some(&status.receipt.limits)))];
    words.extend(status.receipt.in_words());
    let value = json!({ "end": status.end, "code": status.code, "receipt": status.receipt, "words": words });
    tell(global, "receipt", &words, &value);
}

/// Without `--explain` only an end that the program did not choose is told.
pub(super) fn unless_by_itself(global: &Global, status: &ExecStatus) {
    if !matches!(status.end, End::Exited(_) | End::Signaled(_)) {
        let end = status.end.in_words(Some(&status.receipt.limits));
        say(global, &format!("pantry: the program {end}; --explain tells more"));
    }
}

/// What the program was refused.
pub(super) fn learned(global: &Global, learned: &Learned) {
    let mut words = learned.in_words();
    if words.is_empty() {
        words.push("nothing".to_owned());
    }
    tell(global, "refused", &words, &json!({ "learned": learned, "words": words }));
}

fn tell(global: &Global, title: &str, words: &[String], value: &serde_json::Value) {
    let mut stderr = std::io::stderr().lock();
    // Where nobody can read it, the program runs all the same.
    let _ = match global.output {
        Format::Json => writeln!(stderr, "{value}"),
        Format::Text => {
            let lines: Vec<String> = words.iter().map(|line| safe(line)).collect();
            writeln!(stderr, "{title}:\n  {}", lines.join("\n  "))
        }
    };
}
