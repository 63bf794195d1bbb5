//! kill -9 at every boundary of every task: after a restart the change goes on or is undone, nothing stays behind.

use super::install::files_in_bin;
use super::support::{Server, checkout, edit, example, fresh_root, show, until};

const ENDED: [&str; 5] = ["published", "rejected", "timed_out", "cancelled", "failed"];

const SUBMIT: &[&str] = &[
    "submit.fetch",
    "submit.check",
    "submit.resolve",
    "submit.build",
    "submit.dispatch",
    "submit.await_result",
    "submit.publish",
];
const INSTALL: &[&str] = &[
    "install.acquire",
    "install.verify",
    "install.conflicts",
    "install.unpack",
    "install.link",
    "install.clean",
];
const REMOVE: &[&str] = &["remove.unlink", "remove.clean"];

fn points(tasks: &[&str]) -> Vec<String> {
    tasks
        .iter()
        .flat_map(|task| ["before", "done", "recorded"].map(|at| format!("changes.{task}.{at}")))
        .collect()
}

#[test]
fn a_submission_goes_on_after_kill_9_at_every_boundary() {
    let folder = fresh_root();
    let root = folder.path().join("root");
    for (number, point) in points(SUBMIT).iter().enumerate() {
        let version = format!("1.0.{number}");
        let package = example("greeter");
        edit(package.path(), "pantry_package.yaml", "1.0.0", &version);
        let server = Server::start_on(&root, &[("PANTRY_FAULT", point)]);
        let output = server.pantry(&["--output", "json", "submit", package.path().to_str().unwrap()]);
        assert!(output.status.success(), "{point}: {}", show(&output));
        let id = serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned();
        server.until_dead();
        let server = Server::start_on(&root, &[]);
        let path = format!("/v1/submissions/{id}");
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
        until(&format!("no work is left after {point}"), || server.leftovers().is_empty());
        server.stop();
    }
}

#[test]
fn an_install_and_a_removal_go_on_or_are_undone_after_kill_9_at_every_boundary() {
    let folder = fresh_root();
    let root = folder.path().join("root");
    let server = Server::start_on(&root, &[]);
    assert_eq!(server.submit(&checkout().join("examples/greeter"))["state"], "published");
    server.stop();
    let mut named = points(INSTALL);
    named.extend(["install.link.after_wrappers", "install.link.after_launch"].map(str::to_owned));
    for point in &named {
        let server = Server::start_on(&root, &[("PANTRY_FAULT", point)]);
        // The client loses its server; what it says is its own affair.
        let _ = server.pantry(&["install", "greeter"]);
        server.until_dead();
        let server = Server::start_on(&root, &[]);
        settle(&server, point);
        agree(&server, point);
        if server.json(&["list"])["items"].as_array().unwrap().is_empty() {
            let output = server.pantry(&["install", "greeter"]);
            assert!(output.status.success(), "after {point}: {}", show(&output));
        }
        let run = std::process::Command::new(root.join("bin/greet")).arg("ada").output().unwrap();
        assert!(run.status.success(), "after {point}: {}", show(&run));
        let output = server.pantry(&["remove", "greeter"]);
        assert!(output.status.success(), "after {point}: {}", show(&output));
        agree(&server, point);
        server.stop();
    }
    for point in &points(REMOVE) {
        let server = Server::start_on(&root, &[]);
        let output = server.pantry(&["install", "greeter"]);
        assert!(output.status.success(), "before {point}: {}", show(&output));
        server.stop();
        let server = Server::start_on(&root, &[("PANTRY_FAULT", point)]);
        let _ = server.pantry(&["remove", "greeter"]);
        server.until_dead();
        let server = Server::start_on(&root, &[]);
        settle(&server, point);
        agree(&server, point);
        if !server.json(&["list"])["items"].as_array().unwrap().is_empty() {
            assert!(server.pantry(&["remove", "greeter"]).status.success());
        }
        server.stop();
    }
}

/// Waits until every change has ended.
fn settle(server: &Server, point: &str) {
    until(&format!("every change ends after {point}"), || {
        let changes = server.json(&["changes"]);
        let items = changes["items"].as_array().unwrap();
        items.iter().all(|item| {
            let state = item["state"].as_str().unwrap();
            assert_ne!(state, "needs_attention", "after {point}: {item:#}");
            matches!(state, "done" | "undone" | "failed" | "cancelled")
        })
    });
    until(&format!("no work is left after {point}"), || server.leftovers().is_empty());
}

/// The list, the wrappers and the launch files tell the same story.
fn agree(server: &Server, point: &str) {
    let listed = server.json(&["list"]);
    let expected: Vec<String> = if listed["items"].as_array().unwrap().is_empty() {
        Vec::new()
    } else {
        ["bin/.launch/greet", "bin/greet"].map(str::to_owned).to_vec()
    };
    assert_eq!(files_in_bin(server), expected, "after {point}: {listed:#}");
}
