//! The main flows once more as an ordinary user, where the caller is root. Elsewhere the other tests have shown it.

use super::accounts::{Account, PLAIN_ID};
use super::crash::{greeter, submission_survives};
use super::crash_install::{a_few_ends, agree};
use super::failures::every_broken_example_is_rejected;
use super::support::{Server, Start, is_root, show, skip};

/// Says why the tests here cannot run, when they cannot.
fn cannot(test: &str) -> bool {
    if !is_root() {
        skip(test, "the whole suite runs without root already");
    }
    !is_root()
}

fn server() -> Server {
    let server = Start { account: Account::Plain, ..Start::default() }.fresh();
    server.until_healthy();
    server
}

#[test]
fn an_ordinary_user_publishes_installs_runs_and_removes() {
    if cannot("an_ordinary_user_publishes_installs_runs_and_removes") {
        return;
    }
    let server = server();
    let process = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    assert!(
        process.lines().any(|line| line.starts_with(&format!("Uid:\t{PLAIN_ID}\t{PLAIN_ID}"))),
        "{process}"
    );
    assert!(process.lines().any(|line| line == "CapEff:\t0000000000000000"), "{process}");

    let package = greeter(Account::Plain, "1.0.0");
    let submission = server.submit(package.path());
    assert_eq!(submission["state"], "published", "{submission:#}\n{}", server.log());
    let receipt = &submission["test"]["receipt"];
    assert_eq!(receipt["root_mode"], false, "{receipt:#}");
    assert_eq!(receipt["host_uid"], PLAIN_ID, "{receipt:#}");
    // A test is told the truth when it tries to give a file away; only builds and root inside are not.
    assert_eq!(receipt["ownership_emulated"], false, "{receipt:#}");
    for limit in ["memory", "processes"] {
        // A group may have been given to the user from outside; without one it is the watchdog, never nothing.
        let by = receipt["limits"][limit]["enforced_by"].as_str().unwrap();
        assert!(matches!(by, "watchdog" | "cgroup1" | "cgroup2"), "{limit} by {by}: {receipt:#}");
    }
    for limit in ["cpu", "wall", "open_files", "file_size", "output"] {
        assert_ne!(receipt["limits"][limit]["enforced_by"], "none", "{limit}: {receipt:#}");
    }

    let installed = server.pantry(&["install", "greeter"]);
    assert!(installed.status.success(), "{}\n{}", show(&installed), server.log());
    agree(&server, "an installation");
    let said = server.run_installed("greet", &["ada"]);
    assert!(said.status.success() && show(&said).contains("Ada"), "{}", show(&said));
    let removed = server.pantry(&["remove", "greeter"]);
    assert!(removed.status.success(), "{}", show(&removed));
    agree(&server, "a removal");
    server.until_nothing_is_left("at the end");
    server.stop();
}

#[test]
fn an_ordinary_user_rejects_every_broken_example() {
    if cannot("an_ordinary_user_rejects_every_broken_example") {
        return;
    }
    every_broken_example_is_rejected(&server());
}

#[test]
fn an_ordinary_users_submissions_survive_kill_9() {
    if cannot("an_ordinary_users_submissions_survive_kill_9") {
        return;
    }
    let folder = Account::Plain.fresh_root();
    let points = [
        "changes.submit.fetch.done",
        "store.built",
        "trees.before_rename",
        "store.dispatched",
        "store.result_accepted",
        "store.published",
    ];
    for (number, point) in points.iter().enumerate() {
        submission_survives(Account::Plain, &folder.path().join("root"), &format!("1.0.{number}"), point);
    }
}

#[test]
fn an_ordinary_users_installs_survive_kill_9() {
    if cannot("an_ordinary_users_installs_survive_kill_9") {
        return;
    }
    a_few_ends(Account::Plain);
}
