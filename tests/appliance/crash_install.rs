//! kill -9 at every boundary of an installation, an update, an undo and a removal: after a restart each goes on or is
//! undone, and list, wrappers and launch files tell the same story.

use std::path::Path;

use super::accounts::Account;
use super::crash::{armed, greeter, plain, points, settle};
use super::install::files_in_bin;
use super::support::{Server, edit, example, show};

const INSTALL: &[&str] = &[
    "install.acquire",
    "install.verify",
    "install.conflicts",
    "install.unpack",
    "install.link",
    "install.clean",
];
const INSIDE_INSTALL: &[&str] = &[
    "trees.before_rename",
    "trees.after_rename",
    "trees.after_stamp",
    "install.link.after_file",
    "install.link.after_launch",
    "install.link.after_wrappers",
    "install.link.before_commit",
    "install.link.after_commit",
    "changes.install.end.logged",
    "changes.install.end.recorded",
];
const UPDATE: &[&str] = &[
    "changes.install.unpack.done",
    "trees.before_rename",
    "changes.install.link.before",
    "install.link.after_launch",
    "install.link.after_wrappers",
    "install.link.before_commit",
    "install.link.after_commit",
    "remove.unlink.after_wrappers",
    "changes.install.link.done",
    "changes.install.link.recorded",
    "changes.install.clean.done",
];
const UNDO: &[&str] = &[
    "changes.install.link.undo.before",
    "changes.install.link.undo.done",
    "changes.install.unpack.undo.before",
    "changes.install.verify.undo.recorded",
    "changes.install.acquire.undo.before",
    "install.acquire.undone",
    "changes.install.acquire.undo.recorded",
    "changes.install.end.logged",
];
const CONFLICT: &[&str] = &[
    "changes.install.conflicts.undo.before",
    "changes.install.conflicts.undo.recorded",
    "changes.install.acquire.undo.done",
];
const INSIDE_REMOVE: &[&str] = &[
    "remove.unlink.after_wrappers",
    "remove.unlink.after_launch",
    "remove.unlink.before_commit",
    "remove.unlink.after_commit",
    "changes.remove.end.logged",
    "changes.remove.end.recorded",
];

/// What is installed, as `name version`.
fn listed(server: &Server) -> Vec<String> {
    let listed = server.json(&["list"]);
    let items = listed["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| format!("{} {}", item["name"].as_str().unwrap(), item["version"].as_str().unwrap()))
        .collect()
}

/// The change that was made last; ids sort by their time.
fn last_change(server: &Server) -> serde_json::Value {
    let changes = server.json(&["changes"]);
    let items = changes["items"].as_array().unwrap();
    items.iter().max_by_key(|change| change["id"].as_str()).unwrap().clone()
}

/// The list, the wrappers and the launch files tell the same story, and what is installed runs.
pub fn agree(server: &Server, point: &str) {
    let listed = server.json(&["list"]);
    let mut expected = Vec::new();
    for item in listed["items"].as_array().unwrap() {
        for command in item["commands"].as_array().unwrap() {
            let command = command.as_str().unwrap();
            let launch = server.root.join("bin/.launch").join(command);
            let launch: serde_json::Value = serde_json::from_slice(&std::fs::read(&launch).unwrap()).unwrap();
            assert_eq!(launch["pack_version"], item["version"], "after {point}: {launch:#}");
            assert_eq!(launch["digest"], item["digest"], "after {point}: {launch:#}");
            let run = server.run_installed(command, &["ada"]);
            assert!(run.status.success(), "after {point}: {}", show(&run));
            assert!(show(&run).contains("Ada"), "after {point}: {}", show(&run));
            expected.extend([format!("bin/.launch/{command}"), format!("bin/{command}")]);
        }
    }
    expected.sort();
    assert_eq!(files_in_bin(server), expected, "after {point}: {listed:#}");
}

fn publish(server: &Server, version: &str) {
    let package = greeter(server.account, version);
    let submission = server.submit(package.path());
    assert_eq!(submission["state"], "published", "{submission:#}\n{}", server.log());
}

fn well(server: &Server, arguments: &[&str], point: &str) {
    let output = server.pantry(arguments);
    assert!(output.status.success(), "{arguments:?} around {point}: {}\n{}", show(&output), server.log());
}

/// A root on which the greeter is published but not installed.
fn published(account: Account) -> tempfile::TempDir {
    let folder = account.fresh_root();
    let server = plain(account, &folder.path().join("root"));
    publish(&server, "1.0.0");
    server.stop();
    folder
}

/// Ends the server at the point while it installs, restarts it, and looks at what is there.
pub fn install_survives(account: Account, root: &Path, point: &str) {
    let server = armed(account, root, point);
    // The client loses its server; what it says is its own affair.
    let _ = server.pantry(&["install", "greeter"]);
    server.until_dead();
    let server = plain(account, root);
    settle(&server, point);
    agree(&server, point);
    if listed(&server).is_empty() {
        well(&server, &["install", "greeter"], point);
        agree(&server, point);
    }
    well(&server, &["remove", "greeter"], point);
    agree(&server, point);
    // Its trees go with the next start, so that each installation unpacks them anew.
    server.stop();
}

fn removal_survives(account: Account, root: &Path, point: &str) {
    let server = plain(account, root);
    well(&server, &["install", "greeter"], point);
    server.stop();
    let server = armed(account, root, point);
    let _ = server.pantry(&["remove", "greeter"]);
    server.until_dead();
    let server = plain(account, root);
    settle(&server, point);
    agree(&server, point);
    if !listed(&server).is_empty() {
        well(&server, &["remove", "greeter"], point);
        agree(&server, point);
    }
    server.stop();
}

/// Publishes and installs the greeter, after a few ends of the server; the last of them leaves it removed.
pub fn a_few_ends(account: Account) {
    let folder = published(account);
    let root = folder.path().join("root");
    for point in ["trees.before_rename", "install.link.before_commit", "install.link.after_commit"] {
        install_survives(account, &root, point);
    }
    removal_survives(account, &root, "remove.unlink.before_commit");
}

#[test]
fn an_install_goes_on_or_is_undone_after_kill_9_at_every_boundary() {
    let folder = published(Account::Caller);
    for point in &points(INSTALL) {
        install_survives(Account::Caller, &folder.path().join("root"), point);
    }
}

#[test]
fn an_install_goes_on_or_is_undone_after_kill_9_inside_of_its_tasks() {
    let folder = published(Account::Caller);
    for point in INSIDE_INSTALL {
        install_survives(Account::Caller, &folder.path().join("root"), point);
    }
}

#[test]
fn a_removal_goes_on_or_is_undone_after_kill_9_at_every_boundary() {
    let folder = published(Account::Caller);
    let mut all = points(&["remove.unlink", "remove.clean"]);
    all.extend(INSIDE_REMOVE.iter().map(|point| (*point).to_owned()));
    for point in &all {
        removal_survives(Account::Caller, &folder.path().join("root"), point);
    }
}

#[test]
fn an_update_leaves_the_one_version_or_the_other_after_kill_9() {
    let account = Account::Caller;
    let folder = published(account);
    let root = folder.path().join("root");
    let server = plain(account, &root);
    // Another name for its command, so that the update has files to remove as well.
    let newer = greeter(account, "1.1.0");
    edit(newer.path(), "pantry_package.yaml", "- name: greet\n    run", "- name: hail\n    run");
    assert_eq!(server.submit(newer.path())["state"], "published");
    server.stop();
    for point in UPDATE {
        let server = plain(account, &root);
        well(&server, &["install", "greeter@1.0.0"], point);
        server.stop();
        let server = armed(account, &root, point);
        let _ = server.pantry(&["install", "greeter@1.1.0"]);
        server.until_dead();
        let server = plain(account, &root);
        settle(&server, point);
        agree(&server, point);
        let now = listed(&server);
        assert!(
            matches!(&now[..], [one] if one == "greeter 1.0.0" || one == "greeter 1.1.0"),
            "{point}: {now:?}"
        );
        well(&server, &["install", "greeter@1.1.0"], point);
        agree(&server, point);
        assert_eq!(listed(&server), ["greeter 1.1.0"], "after {point}");
        well(&server, &["remove", "greeter"], point);
        server.stop();
    }
}

#[test]
fn an_undo_goes_on_after_kill_9() {
    let account = Account::Caller;
    let folder = published(account);
    let root = folder.path().join("root");
    let foreign = root.join("bin/greet");
    for point in UNDO {
        let server = armed(account, &root, "changes.install.link.before");
        let _ = server.pantry(&["install", "greeter"]);
        server.until_dead();
        // Nobody could know of this file when conflicts were looked for: linking fails, and all before it is undone.
        std::fs::write(&foreign, "somebody else's\n").unwrap();
        let server = armed(account, &root, point);
        server.until_dead();
        let server = plain(account, &root);
        settle(&server, point);
        assert_eq!(last_change(&server)["state"], "undone", "after {point}");
        assert_eq!(listed(&server), Vec::<String>::new(), "after {point}");
        assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "somebody else's\n", "after {point}");
        std::fs::remove_file(&foreign).unwrap();
        agree(&server, point);
        server.stop();
    }
}

#[test]
fn a_refused_rival_leaves_the_owner_alone_after_kill_9() {
    let account = Account::Caller;
    let folder = published(account);
    let root = folder.path().join("root");
    let server = plain(account, &root);
    well(&server, &["install", "greeter"], "the beginning");
    let rival = example("greeter");
    edit(rival.path(), "pantry_package.yaml", "name: greeter", "name: rival");
    assert_eq!(server.submit(rival.path())["state"], "published");
    server.stop();
    for point in CONFLICT {
        let server = armed(account, &root, point);
        let _ = server.pantry(&["install", "rival"]);
        server.until_dead();
        let server = plain(account, &root);
        settle(&server, point);
        assert_eq!(last_change(&server)["state"], "undone", "after {point}");
        assert_eq!(listed(&server), ["greeter 1.0.0"], "after {point}");
        agree(&server, point);
        server.stop();
    }
}
