//! `pantry doctor`.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

use super::arguments::{Doctor, Global};
use super::failure::Failure;
use super::output::{print, safe, table, text};
use crate::sandbox::{Finding, Sandbox, Verdict};

/// Who tries when root asks what others can do: the id that owns nothing (`nobody`).
const NOBODY: u32 = 65534;
/// What an empty job does: the program is this one.
const NOTHING: &[&str] = &["__jail", "nothing"];

/// Prints what was found; ends with 1 when something that is needed does not work.
pub(super) fn run(global: &Global, options: &Doctor) -> Result<ExitCode, Failure> {
    let failed = |error: crate::sandbox::SandboxError| {
        Failure::local(error.code(), error.to_string()).with_hint(error.hint())
    };
    let runs = tempfile::tempdir()?;
    let sandbox = Sandbox::new(runs.path()).map_err(failed)?;
    let program = sandbox.own_executable().map_err(failed)?;
    let mut findings = sandbox.examine(&program, NOTHING).map_err(failed)?;
    if rustix::process::geteuid().is_root() && !options.only_this_user {
        findings.push(without_root(&program));
    }
    let sound = findings.iter().all(|finding| finding.verdict != Verdict::Refused);
    let value = json!({ "sound": sound, "findings": findings });
    print(global, &value, people)?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The same by a user without rights: what a daemon that runs as one would find.
fn without_root(program: &Path) -> Finding {
    let what = "without root";
    let not_tried = |why: String| Finding::new(what, Verdict::NotTried, why);
    let tried = Command::new(program)
        .args(["doctor", "--only-this-user", "--output", "json"])
        .env_clear()
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output();
    let output = match tried {
        Ok(output) => output,
        Err(error) => return not_tried(format!("others can't start {}: {error}", program.display())),
    };
    let Ok(answer) = serde_json::from_slice::<Value>(&output.stdout) else {
        let said = String::from_utf8_lossy(&output.stderr);
        return Finding::new(what, Verdict::Refused, said.trim().to_owned());
    };
    let of = |wanted: &str| {
        let findings = answer["findings"].as_array().into_iter().flatten();
        let fits = findings.filter(|finding| finding["verdict"] == wanted);
        fits.map(|finding| text(finding, "what")).collect::<Vec<_>>().join(", ")
    };
    let (refused, weaker) = (of("refused"), of("weaker"));
    if !refused.is_empty() {
        Finding::new(what, Verdict::Refused, refused)
    } else if weaker.is_empty() {
        Finding::new(what, Verdict::Full, "works")
    } else {
        Finding::new(what, Verdict::Weaker, format!("works; weaker: {weaker}"))
    }
}

fn people(value: &Value) -> String {
    let findings = || value["findings"].as_array().into_iter().flatten();
    let row = |finding: &Value| {
        let verdict = text(finding, "verdict").replace('_', " ");
        vec![text(finding, "what"), verdict, safe(&text(finding, "found"))]
    };
    let mut page = table(&["WHAT", "VERDICT", "FOUND"], &findings().map(row).collect::<Vec<_>>());
    for finding in findings().filter(|finding| finding["hint"].is_string()) {
        page += &format!("\nhint: {}: {}", text(finding, "what"), text(finding, "hint"));
    }
    page
}
