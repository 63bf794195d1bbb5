//! What the commands print and how they end.

use super::support::{PANTRY, Server, show};
use std::process::Command;

fn pantry(arguments: &[&str]) -> std::process::Output {
    Command::new(PANTRY).args(arguments).output().unwrap()
}

#[test]
fn wrong_usage_is_exit_code_2() {
    assert_eq!(pantry(&["no-such-command"]).status.code(), Some(2));
    assert_eq!(pantry(&["submit", "/nonexistent"]).status.code(), Some(2));
}

#[test]
fn help_lists_every_command_and_the_exit_codes() {
    let help = show(&pantry(&["--help"]));
    for command in [
        "serve",
        "submit",
        "submission",
        "install",
        "remove",
        "list",
        "exec",
        "run",
        "doctor",
        "changes",
        "change",
        "rootfs",
    ]
    .into_iter()
    .chain(["push", "pull", "login", "logout", "user", "token", "grant"])
    {
        assert!(help.contains(command), "{command} in {help}");
    }
    assert!(help.contains("Exit codes"));
}

#[test]
fn version_is_told_as_json() {
    let output = pantry(&["--output", "json", "version"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["schema"], 18);
    assert!(value["version"].as_str().unwrap().chars().next().unwrap().is_ascii_digit());
}

#[test]
fn without_a_daemon_a_client_says_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let output = pantry(&["--root", folder.path().to_str().unwrap(), "list"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(show(&output).contains("pantry serve --root"), "{}", show(&output));
}

#[test]
fn an_unknown_key_of_the_configuration_is_named_with_its_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pantry.yaml");
    std::fs::write(&file, "listn: 127.0.0.1:0\n").unwrap();
    let output = pantry(&["--config", file.to_str().unwrap(), "serve", "--check"]);
    let said = show(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("listn") && said.contains("listen") && said.contains("hint:"), "{said}");
}

#[test]
fn a_variable_that_is_no_setting_is_named_with_its_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(PANTRY)
        .args(["--root", folder.path().to_str().unwrap(), "serve", "--check"])
        .env("PANTRY_STORAGE_COLLECT_GRACE_SECOND", "5")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("PANTRY_STORAGE_COLLECT_GRACE_SECONDS?"), "{said}");
}

#[test]
fn the_status_tells_where_the_bundle_comes_from() {
    let server = Server::start();
    let status = server.json(&["status"]);
    assert_eq!(status["posture"]["bundle"], "layout", "{status}");
}

#[test]
fn what_is_not_there_is_exit_code_5() {
    let server = Server::start();
    for arguments in [
        &["submission", "none-such"][..],
        &["change", "none-such"],
        &["install", "none-such"],
        &["remove", "none-such"],
    ] {
        let output = server.pantry(arguments);
        assert_eq!(output.status.code(), Some(5), "{arguments:?}: {}", show(&output));
    }
}

#[test]
fn every_setting_is_documented_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let output = pantry(&["--root", folder.path().to_str().unwrap(), "serve", "--check"]);
    assert!(output.status.success(), "{}", show(&output));
    let mut settings: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_once(" = ").map(|(key, _)| key.to_owned()))
        .collect();
    let page = super::support::checkout().join("docs/operations/configuration.md");
    let mut documented: Vec<String> = std::fs::read_to_string(page)
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(key, _)| key.to_owned()))
        .collect();
    settings.sort();
    documented.sort();
    assert_eq!(settings, documented);
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Command::new(PANTRY).arg("version").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    assert!(show(&output).contains("[output_failed]"));
}
