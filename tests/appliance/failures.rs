//! Packages that fail on purpose: each is rejected with its code, the server stays well, the next good one passes.

use serde_json::json;

use super::support::{Server, checkout, example};

/// Example, and a reason code that its rejection must carry. `docs/rejections.md` has the same table.
const BROKEN: &[(&str, &str)] = &[
    ("broken-tests", "tests_failed"),
    ("broken-lockfile", "resolved_lockfile_exceeds_size_cap"),
    ("broken-os-system", "static_analysis_disallowed_primitive"),
    ("broken-network", "tests_failed"),
    ("broken-write-outside", "tests_failed"),
    ("broken-memory", "test_resource_limit"),
    ("broken-forks", "test_resource_limit"),
    ("broken-output", "test_resource_limit"),
    ("broken-forged", "tests_failed"),
    ("broken-exit-on-import", "tests_failed"),
];

#[test]
fn every_broken_example_is_rejected_with_its_code_and_the_next_good_one_passes() {
    let server = Server::start();
    server.until_healthy();
    every_broken_example_is_rejected(&server);
}

/// Each is rejected with its code, the server stays well, and the next good one passes.
pub fn every_broken_example_is_rejected(server: &Server) {
    for (name, code) in BROKEN {
        let package = example(name);
        server.account.own(package.path());
        let submission = server.submit(package.path());
        assert_eq!(submission["state"], "rejected", "{name}: {submission:#}");
        let codes = submission["verdict"]["reason_codes"].as_array().unwrap();
        assert!(codes.contains(&json!(code)), "{name} must be rejected as {code}: {submission:#}");
        assert!(!submission["verdict"]["findings"].as_array().unwrap().is_empty(), "{name} has no finding");
        assert_eq!(server.get("/health").0, 200, "after {name}");
        assert_eq!(
            server.get(&format!("/v2/packages/local/{name}/tags/list")).0,
            404,
            "{name} became visible"
        );
        server.until_nothing_is_left(&format!("after {name}"));
    }
    let package = example("greeter");
    server.account.own(package.path());
    let good = server.submit(package.path());
    assert_eq!(good["state"], "published", "{good:#}");
    server.until_nothing_is_left("at the end");
}

#[test]
fn the_table_of_the_docs_is_the_table_of_the_test() {
    let docs = std::fs::read_to_string(checkout().join("docs/rejections.md")).unwrap();
    for (example, code) in BROKEN {
        let row = docs.lines().find(|line| line.starts_with('|') && line.contains(&format!("`{example}`")));
        assert!(row.is_some_and(|row| row.contains(&format!("`{code}`"))), "{example} → {code}: {row:?}");
    }
    let mut folders: Vec<String> = std::fs::read_dir(checkout().join("examples"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with("broken-"))
        .collect();
    folders.sort();
    let mut listed: Vec<String> = BROKEN.iter().map(|(example, _)| (*example).to_owned()).collect();
    listed.sort();
    assert_eq!(folders, listed);
}
