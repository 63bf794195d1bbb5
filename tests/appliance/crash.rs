//! kill -9 at every boundary of a submission's tasks, and inside of them: after a restart the submission goes on to
//! its end, once, and nothing stays behind.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::accounts::Account;
use super::support::{Server, Start, edit, example, until};

const ENDED: [&str; 5] = ["published", "rejected", "timed_out", "cancelled", "failed"];

const TASKS: &[&str] = &[
    "submit.fetch",
    "submit.check",
    "submit.resolve",
    "submit.build",
    "submit.dispatch",
    "submit.await_result",
    "submit.publish",
];

/// Points inside of tasks, of the request that begins a submission, and of its end.
const INSIDE: &[&str] = &[
    "store.submit",
    "store.submitted",
    "store.claim",
    "store.built",
    "store.attempt_written",
    "store.dispatched",
    "trees.before_rename",
    "trees.after_rename",
    "trees.after_stamp",
    "store.result",
    "store.result_accepted",
    "store.runner_ended",
    "store.publish",
    "store.published",
    "blobs.close.before_fsync",
    "blobs.close.after_rename",
    "blobs.close.after_rename@2",
    "changes.submit.end.logged",
    "changes.submit.end.recorded",
];

/// The boundaries of tasks, as points.
pub fn points(tasks: &[&str]) -> Vec<String> {
    tasks
        .iter()
        .flat_map(|task| ["before", "done", "recorded"].map(|at| format!("changes.{task}.{at}")))
        .collect()
}

/// A server on this root that ends at the point.
pub fn armed(account: Account, root: &Path, point: &str) -> Server {
    Start { account, environment: &[("PANTRY_FAULT", point)], ..Start::default() }.on(root)
}

/// A server on this root.
pub fn plain(account: Account, root: &Path) -> Server {
    Start { account, ..Start::default() }.on(root)
}

/// The greeter in another version, for an account to read.
pub fn greeter(account: Account, version: &str) -> tempfile::TempDir {
    let package = example("greeter");
    edit(package.path(), "pantry_package.yaml", "version: 1.0.0", &format!("version: {version}"));
    account.own(package.path());
    package
}

/// Ends the server at the point while it works on a submission, restarts it, and looks at how that ends.
pub fn submission_survives(account: Account, root: &Path, version: &str, point: &str) {
    let package = greeter(account, version);
    if point.starts_with("blobs.") {
        // Small content lives in the state file: only this much is written to a file of its own.
        let lines =
            (0..20_000_u64).map(|number| format!("{:x}\n", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        std::fs::write(package.path().join("NOISE.txt"), lines.collect::<String>()).unwrap();
        account.own(package.path());
    }
    let folder = package.path().to_str().unwrap();
    let server = armed(account, root, point);
    let ids = |server: &Server| -> BTreeSet<String> {
        let all = server.submissions();
        all.iter().map(|submission| submission["id"].as_str().unwrap().to_owned()).collect()
    };
    let before = ids(&server);
    // A client whose server dies at once says so; what was answered is held.
    let output = server.pantry(&["--output", "json", "submit", folder]);
    server.until_dead();
    let server = plain(account, root);
    let mut new: Vec<String> = ids(&server).difference(&before).cloned().collect();
    if output.status.success() {
        let answered: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(new, [answered["id"].as_str().unwrap()], "after {point}");
    } else if new.is_empty() {
        new.push(server.json(&["submit", folder])["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(new.len(), 1, "after {point}: {new:?}");
    let path = format!("/v1/submissions/{}", new[0]);
    until(&format!("the submission ends after {point}"), || {
        ENDED.contains(&server.admin_get(&path)["state"].as_str().unwrap_or_default())
    });
    let end = server.admin_get(&path);
    assert_eq!(end["state"], "published", "after {point}: {end:#}\n{}", server.log());
    assert_eq!(
        server.get(&format!("/v2/packages/local/greeter/manifests/{version}")).0,
        200,
        "after {point}"
    );
    settle(&server, point);
    server.stop();
}

/// Waits until every change has ended, and nothing is left of them.
pub fn settle(server: &Server, point: &str) {
    until(&format!("every change ends after {point}"), || {
        let changes = server.json(&["changes"]);
        changes["items"].as_array().unwrap().iter().all(|item| {
            let state = item["state"].as_str().unwrap();
            assert_ne!(state, "needs_attention", "after {point}: {item:#}");
            matches!(state, "done" | "undone" | "failed" | "cancelled")
        })
    });
    server.until_nothing_is_left(&format!("after {point}"));
}

#[test]
fn a_submission_goes_on_after_kill_9_at_every_boundary() {
    let folder = Account::Caller.fresh_root();
    for (number, point) in points(TASKS).iter().enumerate() {
        submission_survives(Account::Caller, &folder.path().join("root"), &format!("1.0.{number}"), point);
    }
}

#[test]
fn a_submission_goes_on_after_kill_9_inside_of_its_tasks() {
    let folder = Account::Caller.fresh_root();
    for (number, point) in INSIDE.iter().enumerate() {
        submission_survives(Account::Caller, &folder.path().join("root"), &format!("2.0.{number}"), point);
    }
}
