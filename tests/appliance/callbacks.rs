//! Results and crashes: what becomes of a submission whose server ends, migrates, or may not run foreign code.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use hmac::{Hmac, KeyInit as _, Mac as _};
use pantry::names::{Faults, SubmissionId};
use pantry::state::{Raw, Read as _, State, Table, write_raw_fixture};
use serde_json::{Value, json};

use super::support::{PANTRY, Server, bundle, checkout, edit, example, fresh_root, http, show, until};

const KEY: &str = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk";
/// The first digits of the key's SHA-256.
const KEY_ID: &str = "5e318f8c";
const SIGNED: (&str, &str) = ("PANTRY_CALLBACK_SIGNING_KEY", KEY);
const ENDED: [&str; 4] = ["published", "rejected", "timed_out", "cancelled"];

fn signature(id: &str, nonce: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(format!("{id}|{nonce}|").as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Posts a result with this header; gives status and code.
fn post(url: &str, id: &str, header: Option<&str>, body: &[u8]) -> (u16, String) {
    let mut request = http().post(format!("{url}/v1/submissions/{id}/container-result")).body(body.to_vec());
    request = request.header("Content-Type", "application/json");
    if let Some(header) = header {
        request = request.header("X-Pantry-HMAC", header);
    }
    let response = request.send().unwrap();
    let status = response.status().as_u16();
    let answer: Value = response.json().unwrap_or_default();
    (status, answer["code"].as_str().unwrap_or_default().to_owned())
}

fn post_signed(url: &str, id: &str, nonce: &str, body: &[u8]) -> (u16, String) {
    post(url, id, Some(&signature(id, nonce, body)), body)
}

fn result(passed: bool, summary: &str, pack: Option<&str>) -> Vec<u8> {
    let mut body = json!({"passed": passed, "summary": summary, "test_count": 3, "pass_count": 3});
    if let Some(pack) = pack {
        body["pack_digest"] = json!(pack);
    }
    body.to_string().into_bytes()
}

/// Submits a folder; gives the id.
fn submit(server: &Server, folder: &Path) -> String {
    let output = server.pantry(&["--output", "json", "submit", folder.to_str().unwrap()]);
    assert!(output.status.success(), "{}\n{}", show(&output), server.log());
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["id"].as_str().unwrap().to_owned()
}

fn submission(server: &Server, id: &str) -> Value {
    server.admin_get(&format!("/v1/submissions/{id}"))
}

fn until_ended(server: &Server, id: &str) -> Value {
    until(&format!("{id} ends"), || {
        ENDED.contains(&submission(server, id)["state"].as_str().unwrap_or_default())
    });
    submission(server, id)
}

fn log_of(server: &Server, submission: &Value) -> String {
    server.admin_get(&format!("/v1/changes/{}", submission["change"].as_str().unwrap()))["log"].to_string()
}

/// Works on the records of a server that is stopped.
fn offline<T: Send + 'static>(
    root: &Path,
    write: impl Fn(&mut pantry::state::Tx<'_>) -> Result<T, pantry::state::StateError> + Send + 'static,
) -> T {
    let state = State::open(&root.join("state.redb"), Faults::none()).unwrap();
    state.write_blocking(write).unwrap()
}

fn schema_18_copy(root: &Path) -> PathBuf {
    root.join("state.redb.before-18")
}

#[test]
fn crashes_during_a_test_strand_no_submission() {
    let folder = fresh_root();
    let root = folder.path().join("root");
    let mut server = Server::start_on(&root, &[("PANTRY_FAULT", "store.dispatched")]);
    let id = submit(&server, &checkout().join("examples/greeter"));
    for _ in 0..3 {
        server.until_dead();
        server = Server::start_on(&root, &[("PANTRY_FAULT", "store.dispatched")]);
    }
    server.until_dead();
    let server = Server::start_on(&root, &[]);
    let end = until_ended(&server, &id);
    assert_eq!(end["state"], "published", "{end:#}\n{}", server.log());
    assert!(end["checks"].is_null() && end["verdict"]["result"] == "passed", "{end:#}");
    let key = "a signed result was accepted (key ";
    let log = log_of(&server, &end);
    let said = log.split_once(key).unwrap_or_else(|| panic!("{log}")).1;
    let (id, summary) = said.split_once("): ").unwrap();
    assert!(id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{log}");
    assert!(summary.starts_with("PASS - "), "{log}");
}

#[test]
fn a_submission_that_ends_the_server_again_and_again_is_given_up() {
    let folder = fresh_root();
    let root = folder.path().join("root");
    let fault = [("PANTRY_FAULT", "store.dispatched")];
    let server = Server::start_on(&root, &fault);
    let id = submit(&server, &checkout().join("examples/greeter"));
    server.until_dead();
    for _ in 0..10 {
        Server::start_on(&root, &fault).until_dead();
    }
    let server = Server::start_on(&root, &fault);
    let end = until_ended(&server, &id);
    assert_eq!(end["state"], "rejected", "{end:#}");
    assert_eq!(end["verdict"]["reason_codes"], json!(["internal_error"]), "{end:#}");
    assert_eq!(end["verdict"]["findings"][0]["value"], "task_crashed", "{end:#}");
    // The server is well, and what it held is free.
    drop(server);
    let server = Server::start_on(&root, &[]);
    assert_eq!(server.submit(&checkout().join("examples/greeter"))["state"], "published");
}

#[test]
fn a_verdict_is_shown_only_of_what_has_ended_and_none_of_what_was_cancelled() {
    let server = Server::start();
    let id = submit(&server, slow().path());
    until("it is tested", || submission(&server, &id)["state"] == "awaiting_result");
    let now = submission(&server, &id);
    assert!(now["verdict"].is_null(), "{now:#}");
    assert_eq!(now["checks"]["result"], "passed", "{now:#}");
    abort(&server, &now);
    let end = until_ended(&server, &id);
    assert_eq!(end["state"], "cancelled", "{end:#}");
    assert!(end["verdict"].is_null() && end["checks"].is_null(), "{end:#}");
}

/// The greeter, with a test that takes longer than any test here waits.
fn slow() -> tempfile::TempDir {
    let package = example("greeter");
    edit(
        package.path(),
        "pantry_package.yaml",
        "-m, unittest, -v, tests.test_greet",
        "-c, import time; time.sleep(300)",
    );
    edit(package.path(), "pantry_package.yaml", "timeout_seconds: 60", "timeout_seconds: 170");
    package
}

fn abort(server: &Server, submission: &Value) {
    let change = submission["change"].as_str().unwrap();
    let url = format!("{}/v1/changes/{change}/abort", server.url);
    let status = http().post(url).bearer_auth(server.token()).send().unwrap().status();
    assert_eq!(status, 202);
}

/// A root whose bundle fails or never ends the proof; nothing of it is shared with other roots.
fn break_git(root: &Path, script: &str) {
    let mut found = 0;
    for tree in std::fs::read_dir(root.join("trees")).unwrap().flatten() {
        let git = tree.path().join("usr/bin/git");
        if git.symlink_metadata().is_ok() {
            found += 1;
            std::fs::remove_file(&git).unwrap();
            std::fs::write(&git, script).unwrap();
            std::fs::set_permissions(&git, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    assert!(found > 0, "no tree has git");
    offline(root, |tx| tx.delete(&Table::<String, Raw>::new("proofs"), &"runtime".to_owned()));
}

const FAILING: &str = "#!/usr/bin/python3\nraise SystemExit('this git is broken')\n";
const HANGING: &str = "#!/usr/bin/python3\nimport time\ntime.sleep(600)\n";

#[test]
fn a_machine_that_may_run_no_foreign_code_says_so_and_still_installs_and_removes() {
    let folder = fresh_root();
    let root = folder.path().join("root");
    let server = Server::start_on(&root, &[]);
    assert_eq!(server.submit(&checkout().join("examples/greeter"))["state"], "published");
    assert!(server.pantry(&["install", "greeter"]).status.success());
    server.stop();
    let newer = example("greeter");
    edit(newer.path(), "pantry_package.yaml", "1.0.0", "1.1.0");
    let server = Server::start_on(&root, &[("PANTRY_FAULT", "changes.submit.check.before")]);
    let underway = submit(&server, newer.path());
    server.until_dead();
    break_git(&root, FAILING);

    let server = Server::start_on(&root, &[]);
    until("the proof has failed", || server.get("/health").0 == 503);
    let (_, health) = server.get("/health");
    assert!(
        health["checks"]["runner"]["message"].as_str().unwrap().contains("this git is broken"),
        "{health}"
    );
    for arguments in [&["submit"][..], &["submit", "--preview"]] {
        let package = checkout().join("examples/greeter");
        let output = server.pantry(&[arguments, &[package.to_str().unwrap()]].concat());
        assert!(!output.status.success(), "{}", show(&output));
        assert!(show(&output).contains("[foreign_code_refused]"), "{}", show(&output));
    }
    let form = reqwest::blocking::multipart::Form::new()
        .part("source", reqwest::blocking::multipart::Part::bytes(b"x".to_vec()).file_name("s.tar"));
    let request = http().post(format!("{}/v1/submissions", server.url)).bearer_auth(server.token());
    assert_eq!(request.multipart(form).send().unwrap().status(), 503);
    let end = until_ended(&server, &underway);
    assert_eq!(end["state"], "rejected", "{end:#}");
    assert_eq!(end["verdict"]["findings"][0]["reason_code"], "internal_error", "{end:#}");
    assert_eq!(end["verdict"]["findings"][0]["value"], "foreign_code_refused", "{end:#}");
    for verb in ["remove", "install", "remove"] {
        let output = server.pantry(&[verb, "greeter"]);
        assert!(output.status.success(), "{verb}: {}\n{}", show(&output), server.log());
    }
    server.stop();
}

#[test]
fn what_needs_a_jail_waits_for_the_proof_and_a_stop_does_not() {
    let folder = fresh_root();
    let root = folder.path().join("root");
    break_git(&root, HANGING);
    let server = Server::start_on(&root, &[]);
    let id = submit(&server, &checkout().join("examples/greeter"));
    let change = submission(&server, &id)["change"].as_str().unwrap().to_owned();
    until("its first task is begun", || {
        server.admin_get(&format!("/v1/changes/{change}"))["state"] == "running"
    });
    assert_eq!(submission(&server, &id)["state"], "submitted");
    assert_eq!(server.get("/health").0, 200);
    assert_eq!(server.admin_get("/v1/status")["sandbox"]["proof"], "under way");
    // A preview waits as well, and is told when the server goes.
    let (url, token) = (server.url.clone(), server.token());
    let preview = std::thread::spawn(move || {
        let form = reqwest::blocking::multipart::Form::new()
            .part("source", reqwest::blocking::multipart::Part::bytes(b"x".to_vec()).file_name("s.tar"));
        let request = http().post(format!("{url}/v1/submissions?preview=true")).bearer_auth(token);
        request.multipart(form).send().map(|response| response.status().as_u16())
    });
    let stopped = Instant::now();
    server.stop();
    assert!(stopped.elapsed().as_secs() < 15, "the stop took {:?}", stopped.elapsed());
    // It was told, or came when the door was closed already.
    assert!(preview.join().unwrap().map_or(true, |status| status == 503));
    let left = submission_offline(&root, &id);
    assert_eq!(left["state"], "submitted", "a stop decides nothing: {left:#}");
}

fn submission_offline(root: &Path, id: &str) -> Value {
    let id = SubmissionId::parse(id).unwrap();
    let state = State::open(&root.join("state.redb"), Faults::none()).unwrap();
    let table = Table::<SubmissionId, Raw>::new("submissions");
    let row = state.read_blocking(|view| view.get(&table, &id)).unwrap().unwrap();
    serde_json::from_slice::<Value>(&row.0).unwrap()["d"].clone()
}

/// The context that schema 17 kept.
fn context(version: &str) -> Value {
    json!({"author": "ada", "repository": "https://git.example/greeter", "commit": "0123", "manifest": {
        "schema_version": 1, "name": "greeter", "version": version, "license": "MIT",
        "description": "Greets people in a frame, and counts their visits.",
        "components": [{"type": "command", "name": "greet", "path": "commands/greet/command.py",
            "description": "Greets people by their name."}],
        "commands": [{"name": "greet", "run": ["python3", "-m", "commands.greet.command"]}]}})
}

fn row_17(id: &str, d: &Value) -> (&'static str, Vec<u8>, Value) {
    ("submissions", format!("{id}\0").into_bytes(), json!({"v": 1, "d": d}))
}

#[test]
fn a_state_file_of_schema_17_is_migrated_and_its_callbacks_still_count() {
    let folder = fresh_root();
    let root = folder.path().join("root");
    let state = root.join("state.redb");
    std::fs::remove_file(&state).unwrap();
    let pack = format!("sha256:{}", "5".repeat(64));
    let attempts = json!([{"callback_token": "nonce-0001", "state": "dispatched"}]);
    let awaiting = |d: Value| {
        let mut row = json!({"state": "awaiting_result", "pack_digest": pack});
        row.as_object_mut().unwrap().extend(d.as_object().unwrap().clone());
        row
    };
    let rows = [
        row_17(
            "41",
            &awaiting(json!({"callback_token": "nonce-0001", "context": context("1.0.0"),
            "created_at": 1_700_000_000_000_u64, "updated_at": 1_700_000_000_000_u64, "attempts": attempts})),
        ),
        row_17(
            "42",
            &awaiting(json!({"callback_token": "nonce-0001", "context": {},
            "created_at": 1_700_000_000_000_u64})),
        ),
        row_17(
            "43",
            &awaiting(json!({"context": context("1.0.1"), "attempts": attempts, "created_at": null})),
        ),
        row_17("44", &awaiting(json!({"context": context("1.0.2"), "created_at": 1_700_000_000_000_u64}))),
        row_17("45", &json!({"state": "published", "created_at": 1_700_000_000_000_u64})),
        ("submissions", b"46\0".to_vec(), json!("no record")),
    ];
    write_raw_fixture(&state, 17, 17, &rows).unwrap();

    // It dies after the first row is taken over: the next start takes over the rest, and each once.
    let died = Server::try_start(&root, &[SIGNED, ("PANTRY_FAULT", "store.adopted")]);
    if let Ok(server) = &died {
        server.until_dead();
    }
    assert!(schema_18_copy(&root).exists(), "the copy stays until health is good");
    let server = Server::start_on(&root, &[SIGNED]);
    server.until_healthy();
    assert_eq!(server.get("/health").1["schema"], 18);
    until("the copy is gone", || !schema_18_copy(&root).exists());
    let listed = server.submissions();
    assert_eq!(listed.len(), 6, "{listed:#?}");
    let kinds = server.admin_get("/v1/changes");
    let adopted =
        kinds["items"].as_array().unwrap().iter().filter(|change| change["kind"] == "submit").count();
    assert_eq!(adopted, 4, "{kinds:#}");

    // Nobody can sign for the row without a nonce, and its pack is not here.
    let unsigned = until_ended(&server, "44");
    assert_eq!(unsigned["state"], "timed_out", "{unsigned:#}");
    assert_eq!(unsigned["verdict"]["reason_codes"], json!(["result_timeout"]));
    assert!(unsigned["verdict"]["message"].as_str().unwrap().contains(&pack), "{unsigned:#}");

    for id in ["41", "42", "43"] {
        let shown = submission(&server, id);
        assert_eq!(shown["state"], "awaiting_result", "{shown:#}");
        contract(&server.url, id, &pack);
        let end = until_ended(&server, id);
        assert_eq!(end["state"], "rejected", "what can't be published says so: {end:#}");
        assert_eq!(end["verdict"]["findings"][0]["value"], "submission_incomplete", "{end:#}");
        let why = if id == "42" { "its context is empty" } else { pack.as_str() };
        assert!(end["verdict"]["message"].as_str().unwrap().contains(why), "{end:#}");
        let log = log_of(&server, &end);
        assert!(log.contains(&format!("a signed result was accepted (key {KEY_ID}): PASS")), "{log}");
        assert!(!end["created_at"].as_str().unwrap().starts_with("1970"), "{end:#}");
    }
    server.stop();
}

/// The checks of a callback in their order, over HTTP; in the end exactly one result, a pass, is accepted.
fn contract(url: &str, id: &str, pack: &str) {
    const NONCE: &str = "nonce-0001";
    let pass = result(true, "PASS - 3/3 tests passed", Some(pack));
    assert_eq!(post(url, id, None, &pass).0, 401);
    assert_eq!(post(url, id, Some(&signature(id, "nonce-0002", &pass)), &pass).0, 401);
    assert_eq!(post(url, id, Some(&signature("4", NONCE, &pass)), &pass).0, 401);
    assert_eq!(post(url, id, None, b"garbage").0, 401, "who can't sign learns nothing of the schema");
    assert_eq!(post_signed(url, id, NONCE, b"garbage").0, 422);
    let other = result(true, "PASS", Some(&format!("sha256:{}", "6".repeat(64))));
    assert_eq!(post_signed(url, id, NONCE, &other), (409, "digest_mismatch".to_owned()));
    // Two at once, both valid.
    let second = result(true, "PASS - 3/3 tests passed, again", Some(pack));
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let posts = [&pass, &second].map(|body| scope.spawn(|| post_signed(url, id, NONCE, body).0));
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    let mut sorted = answers.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [200, 409], "exactly one wins");
    let (won, lost) = if answers[0] == 200 { (&pass, &second) } else { (&second, &pass) };
    assert_eq!(post_signed(url, id, NONCE, won).0, 200, "its repetition is welcome");
    assert_eq!(post_signed(url, id, NONCE, lost), (409, "result_not_awaited".to_owned()));
    assert_eq!(post_signed(url, id, NONCE, &result(false, "FAIL", None)).0, 409);
}

#[test]
fn a_submission_that_schema_17_dispatched_is_published_by_its_old_callback() {
    let folder = fresh_root();
    let root = folder.path().join("root");
    let server = Server::start_on(&root, &[SIGNED]);
    // A pack that was built and not published.
    let id = submit(&server, slow().path());
    until("it is tested", || submission(&server, &id)["state"] == "awaiting_result");
    abort(&server, &submission(&server, &id));
    let pack = until_ended(&server, &id)["pack_digest"].as_str().unwrap().to_owned();
    server.stop();
    assert_eq!(submission_offline(&root, &id)["state"], "cancelled");

    // The row as schema 17 kept it, in a file of schema 17.
    let (key, digest) = (SubmissionId::parse(&id).unwrap(), pack.clone());
    offline(&root, move |tx| {
        let d = json!({"state": "awaiting_result", "callback_token": "nonce-0001", "pack_digest": digest,
            "context": context("1.0.0"), "created_at": 1_700_000_000_000_u64,
            "attempts": [{"callback_token": "nonce-0001", "state": "dispatched"}]});
        let row = Raw(json!({"v": 1, "d": d}).to_string().into_bytes());
        tx.put(&Table::<SubmissionId, Raw>::new("submissions"), &key, &row)?;
        let schema = Raw(br#"{"v":1,"d":{"schema":17,"min_reader":17}}"#.to_vec());
        tx.put(&Table::<String, Raw>::new("meta"), &"schema".to_owned(), &schema)
    });

    let server = Server::start_on(&root, &[SIGNED]);
    server.until_healthy();
    let shown = submission(&server, &id);
    assert_eq!(shown["state"], "awaiting_result", "{shown:#}");
    until("it is taken over", || submission(&server, &id)["name"] == "greeter");
    contract(&server.url, &id, &pack);
    let end = until_ended(&server, &id);
    assert_eq!(end["state"], "published", "{end:#}\n{}", server.log());
    assert_eq!(end["reference"], "packages/local/greeter:1.0.0");
    let manifest =
        http().get(format!("{}/v2/packages/local/greeter/manifests/1.0.0", server.url)).send().unwrap();
    assert_eq!(manifest.headers()["docker-content-digest"], pack.as_str());
    let output = server.pantry(&["install", "greeter"]);
    assert!(output.status.success(), "{}", show(&output));
    assert!(until_ended(&server, &id)["created_at"].as_str().unwrap().starts_with("2023-11-14"), "{end:#}");
    server.stop();
}

#[test]
fn a_state_file_of_a_newer_schema_is_refused_with_a_hint() {
    let folder = fresh_root();
    let root = folder.path().join("root");
    let state = root.join("state.redb");
    std::fs::remove_file(&state).unwrap();
    write_raw_fixture(&state, 19, 19, &[]).unwrap();
    let output = Command::new(PANTRY)
        .arg("--root")
        .arg(&root)
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("PANTRY_BUNDLE_LAYOUT", bundle())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    let said = show(&output);
    assert!(said.contains("[state_schema_newer]") && said.contains("hint:"), "{said}");
    assert!(!schema_18_copy(&root).exists(), "nothing was migrated");
}

#[test]
fn an_address_may_submit_only_so_often_and_the_socket_as_often_as_it_likes() {
    let server = Server::start_with(&[("PANTRY_LIMITS_SUBMISSIONS_PER_HOUR", "2")]);
    let send = |path: &str| {
        let form = reqwest::blocking::multipart::Form::new().part(
            "source",
            reqwest::blocking::multipart::Part::bytes(b"no archive".to_vec()).file_name("s.tar"),
        );
        let request = http().post(format!("{}{path}", server.url)).bearer_auth(server.token());
        request.multipart(form).send().unwrap()
    };
    let preview = send("/v1/submissions?preview=true");
    assert_eq!(preview.status(), 200, "previews count, and this is one");
    let verdict: Value = preview.json().unwrap();
    let message = verdict["message"].as_str().unwrap();
    assert!(message.starts_with("this is no tar or tar.gz archive; send a whole .tar"), "{message}");
    assert_eq!(send("/v1/submissions").status(), 201);
    for path in ["/v1/submissions", "/v1/submissions?preview=true"] {
        let refused = send(path);
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()["content-type"], "application/problem+json");
        let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((3_500..=3_601).contains(&wait), "{wait}");
        let problem: Value = refused.json().unwrap();
        assert_eq!(problem["code"], "submission_limit_reached");
    }
    for _ in 0..3 {
        let package = checkout().join("examples/greeter");
        let output = server.pantry(&["submit", "--preview", package.to_str().unwrap()]);
        assert!(output.status.success(), "{}", show(&output));
    }
}

#[test]
fn only_so_many_submissions_are_worked_on_at_a_time_and_an_install_does_not_wait_for_them() {
    let server = Server::start_with(&[("PANTRY_STORE_CONCURRENT", "1")]);
    assert_eq!(server.submit(&checkout().join("examples/greeter"))["state"], "published");
    let packages: Vec<_> = (1..=5)
        .map(|number| {
            let package = slow();
            edit(package.path(), "pantry_package.yaml", "version: 1.0.0", &format!("version: 2.0.{number}"));
            package
        })
        .collect();
    let ids: Vec<String> = packages.iter().map(|package| submit(&server, package.path())).collect();
    until("the first is tested", || submission(&server, &ids[0])["state"] == "awaiting_result");
    let output = server.pantry(&["install", "greeter"]);
    assert!(output.status.success(), "{}", show(&output));
    for id in &ids[1..] {
        assert_eq!(submission(&server, id)["state"], "submitted");
    }
    abort(&server, &submission(&server, &ids[0]));
    until("the second has its turn", || submission(&server, &ids[1])["state"] == "awaiting_result");
    assert_eq!(submission(&server, &ids[2])["state"], "submitted");
}
