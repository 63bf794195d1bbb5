//! `exec`: a run with the caller's own streams, in a process that does nothing else.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use pantry::sandbox::{ExecOptions, Policy, exec_with};

use crate::bench::{Bench, case};

/// Set in the process that is to call `exec`: the policy and the helper.
const POLICY: &str = "PANTRY_TEST_EXEC_POLICY";
const HELPER: &str = "PANTRY_TEST_EXEC_HELPER";

/// Not a case by itself: the process in which `exec` is called. Without its variables it has nothing to do.
#[test]
fn the_executing_process() {
    let (Ok(policy), Ok(helper)) = (std::env::var(POLICY), std::env::var(HELPER)) else { return };
    let mut policy: Policy = serde_json::from_str(&policy).unwrap();
    if let Some(kind) = pantry::sandbox::terminal_kind() {
        policy = policy.env("TERM", kind);
    }
    let status = exec_with(&policy, &ExecOptions { helper: Some(helper.into()), learn: false }).unwrap();
    std::process::exit(status.code);
}

fn executing(bench: &Bench, arguments: &[&str]) -> Command {
    with_streams(bench, pantry::sandbox::Stdio::Inherit, arguments)
}

pub fn with_streams(bench: &Bench, stdio: pantry::sandbox::Stdio, arguments: &[&str]) -> Command {
    let mut policy = bench.policy(arguments).profile(pantry::sandbox::SeccompProfile::Command).stdio(stdio);
    policy.limits = pantry::sandbox::Limits::command();
    with_policy(bench, &policy)
}

pub fn with_policy(bench: &Bench, policy: &Policy) -> Command {
    // Signals are blocked before the harness starts its threads, as a process with one thread would have them.
    let mut command = Command::new("env");
    command
        .arg("--block-signal=HUP,INT,QUIT,USR1,USR2,ALRM,TERM,WINCH,TSTP,CONT,TTIN,TTOU")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "executing::the_executing_process", "--nocapture", "-q"])
        .env(POLICY, serde_json::to_string(policy).unwrap())
        .env(HELPER, &bench.helper);
    command
}

case! {
    fn streams_and_exit_code_pass_through(bench: &Bench) {
        let mut child = executing(bench, &["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"through and through").unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).ends_with("through and through"));
        assert_eq!(executing(bench, &["exit", "42"]).stdout(Stdio::null()).status().unwrap().code(), Some(42));
        assert_eq!(executing(bench, &["signal", "9"]).stdout(Stdio::null()).status().unwrap().code(), Some(137));
    }
}

case! {
    fn signals_pass_through(bench: &Bench) {
        for signal in [nix::libc::SIGINT, nix::libc::SIGTERM, nix::libc::SIGHUP, nix::libc::SIGUSR1] {
            let mut child = executing(bench, &["trap"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the program is ready");
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::from_named_raw(signal).unwrap()).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(signal));
        }
    }
}

case! {
    fn the_callers_death_ends_the_run(bench: &Bench) {
        let mut child = executing(bench, &["stubborn"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("sleeping")));
        child.kill().unwrap();
        child.wait().unwrap();
        // The leak check at the end of the case waits for the program's end and fails if it doesn't come. Control
        // groups of a caller that was killed are for the next sweep.
        assert_eq!(lines.next().map(Result::unwrap), None, "its streams are closed");
        bench.sandbox.sweep().unwrap();
    }
}
