//! From a submission to a published pack, and the callback's contract over real HTTP.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};

use super::support::{Server, checkout, edit, example, http, index_url, show};

const KEY: &str = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk";

fn signature(id: &str, nonce: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(format!("{id}|{nonce}|").as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn post_result(server: &Server, id: &str, header: Option<&str>, body: Vec<u8>) -> (u16, Value) {
    let mut request = http()
        .post(format!("{}/v1/submissions/{id}/container-result", server.url))
        .header("Content-Type", "application/json")
        .body(body);
    if let Some(header) = header {
        request = request.header("X-Pantry-HMAC", header);
    }
    let response = request.send().unwrap();
    (response.status().as_u16(), response.json().unwrap_or(Value::Null))
}

#[test]
fn the_greeter_goes_from_submission_to_publication() {
    let server = Server::start();
    let submission = server.submit(&checkout().join("examples/greeter"));
    assert_eq!(submission["state"], "published", "{submission:#}");
    assert_eq!(submission["reference"], "packages/local/greeter:1.0.0");
    let lockfile = submission["lockfile"].as_str().unwrap();
    assert_eq!(lockfile.lines().filter(|line| line.contains("==")).count(), 2, "{lockfile}");
    let manifest =
        http().get(format!("{}/v2/packages/local/greeter/manifests/1.0.0", server.url)).send().unwrap();
    assert_eq!(manifest.headers()["docker-content-digest"], submission["pack_digest"].as_str().unwrap());
    let manifest: Value = manifest.json().unwrap();
    let pack: Value =
        serde_json::from_str(manifest["annotations"]["dev.pantry.pack.v1"].as_str().unwrap()).unwrap();
    assert_eq!(pack["artifacts"].as_array().unwrap().len(), 2, "{pack}");
    assert!(submission["test"]["summary"].as_str().unwrap().starts_with("PASS"), "{submission:#}");
    // Both steps reached the index, by its own proxy alone, and nothing else.
    let contacts = submission["network"].as_array().unwrap();
    let during: Vec<&str> = contacts.iter().map(|contact| contact["during"].as_str().unwrap()).collect();
    assert_eq!(during, ["resolve", "download"], "{submission:#}");
    let index = index_url();
    for contact in contacts {
        assert_eq!((&contact["host"], &contact["verdict"]), (&json!("127.0.0.1"), &json!("reached")));
        assert!(index.contains(&format!(":{}/", contact["port"])), "{contact} and {index}");
    }
    // The base layer of the pack is the runtime layer of the base image, byte for byte.
    let base = server.get("/v2/pantry/base/manifests/latest").1;
    assert_eq!(manifest["layers"][0]["digest"], base["layers"][0]["digest"]);
    let packages = server.admin_get("/v1/packages/greeter");
    assert_eq!(packages["latest"], "1.0.0");
    // What held the tests is told to programs as it is, and to people in the sandbox's own words.
    let memory = &submission["test"]["receipt"]["limits"]["memory"];
    let words = format!("Memory: 128 MiB, held by {}", memory["enforced_by"].as_str().unwrap());
    let told = show(&server.pantry(&["submission", submission["id"].as_str().unwrap()]));
    assert_eq!(memory["limit"], 128 << 20);
    assert!(told.contains(&words), "{words}: {told}");
}

#[test]
fn the_same_source_gives_the_same_digest_on_another_server() {
    let digests: Vec<Value> = (0..2)
        .map(|_| {
            let server = Server::start();
            server.submit(&checkout().join("examples/greeter"))["pack_digest"].clone()
        })
        .collect();
    assert!(digests[0].is_string());
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_version_is_immutable_and_repeating_it_changes_nothing() {
    let server = Server::start();
    let first = server.submit(&checkout().join("examples/greeter"));
    let again = server.submit(&checkout().join("examples/greeter"));
    assert_eq!(again["state"], "published", "{again:#}");
    assert_eq!(again["pack_digest"], first["pack_digest"]);
    let changed = example("greeter");
    std::fs::write(changed.path().join("added.py"), "VALUE = 1\n").unwrap();
    let other = server.submit(changed.path());
    assert_eq!(other["state"], "rejected");
    assert!(
        other["verdict"]["reason_codes"].as_array().unwrap().contains(&json!("version_exists")),
        "{other:#}"
    );
    let newer = example("greeter");
    edit(newer.path(), "pantry_package.yaml", "1.0.0", "1.1.0");
    assert_eq!(server.submit(newer.path())["state"], "published");
    assert_eq!(server.admin_get("/v1/packages/greeter")["latest"], "1.1.0");
}

#[test]
fn a_preview_stores_nothing() {
    let server = Server::start();
    let output = server.pantry(&[
        "--output",
        "json",
        "submit",
        checkout().join("examples/greeter").to_str().unwrap(),
        "--preview",
    ]);
    assert!(output.status.success(), "{}", show(&output));
    assert!(server.submissions().is_empty());
    server.until_nothing_is_left("at the end");
}

#[test]
fn a_package_that_needs_debian_packages_is_refused() {
    let server = Server::start();
    let package = example("greeter");
    edit(
        package.path(),
        "pantry_package.yaml",
        "schema_version: 1",
        "schema_version: 1\napt_packages: [ffmpeg]",
    );
    let submission = server.submit(package.path());
    assert_eq!(submission["state"], "rejected");
    assert_eq!(
        submission["verdict"]["reason_codes"],
        json!(["apt_packages_not_supported"]),
        "{submission:#}"
    );
}

#[test]
fn a_package_that_strays_is_refused_and_the_submission_says_so() {
    let server = Server::start();
    let package = example("greeter");
    let wanted = "  - {name: inflection, version: \">=0.5,<0.6\"}";
    edit(package.path(), "pantry_package.yaml", wanted, "  - pantry-strays==1.0.0");
    let submission = server.submit(package.path());
    assert_eq!(submission["state"], "rejected", "{submission:#}");
    assert_eq!(
        submission["verdict"]["reason_codes"],
        json!(["lockfile_resolution_failed"]),
        "{submission:#}"
    );
    let message = submission["verdict"]["message"].as_str().unwrap();
    assert!(message.contains("elsewhere.invalid:80"), "{message}");
    let contacts = submission["network"].as_array().unwrap();
    let strayed = contacts.iter().find(|contact| contact["host"] == "elsewhere.invalid").unwrap();
    assert_eq!(
        (&strayed["verdict"], &strayed["during"], &strayed["port"]),
        (&json!("refused"), &json!("resolve"), &json!(80))
    );
    let id = submission["id"].as_str().unwrap();
    let shown = show(&server.pantry(&["submission", id]));
    assert!(shown.contains("refused elsewhere.invalid:80 during resolve"), "{shown}");
}

#[test]
fn the_orders_of_the_callbacks_checks() {
    let environment = [("PANTRY_CALLBACK_SIGNING_KEY", KEY)];
    let server = Server::start_with(&environment);
    let submission = server.submit(&checkout().join("examples/greeter"));
    let id = submission["id"].as_str().unwrap();
    let body = br#"{"passed":true,"summary":"PASS","test_count":1,"pass_count":1}"#.to_vec();
    let wrong = signature(id, "nonce-0001", &body);

    let large = vec![b' '; (1 << 20) + 1];
    assert_eq!(post_result(&server, "no-such-id", Some(&wrong), large).0, 413, "too large comes first");
    assert_eq!(post_result(&server, "no-such-id", Some(&wrong), body.clone()).0, 404, "then who is meant");
    let refused = [
        None,
        Some(wrong.clone()),
        Some(wrong.to_uppercase()),
        Some(wrong[1..].to_owned()),
        Some(format!("{wrong}0")),
        Some(String::new()),
    ];
    let mut told = Vec::new();
    for header in refused {
        let (status, answer) = post_result(&server, id, header.as_deref(), b"not json".to_vec());
        assert_eq!(status, 401, "{header:?}: {answer}");
        told.push((answer["code"].clone(), answer["detail"].clone(), answer["title"].clone()));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "one message for all of them: {told:?}");
    let after = server.admin_get(&format!("/v1/submissions/{id}"));
    assert_eq!(after["state"], "published", "nothing has changed");
}

#[test]
fn an_upload_that_is_no_archive_or_too_much_of_one_is_refused() {
    let server = Server::start_with(&[("PANTRY_STORE_UPLOAD_CAP_BYTES", "1000000")]);
    let send = |bytes: Vec<u8>| {
        let form = reqwest::blocking::multipart::Form::new()
            .part("source", reqwest::blocking::multipart::Part::bytes(bytes).file_name("source.tar.gz"));
        let response = http()
            .post(format!("{}/v1/submissions?preview=true", server.url))
            .bearer_auth(server.token())
            .multipart(form)
            .send()
            .unwrap();
        (response.status().as_u16(), response.json::<Value>().unwrap())
    };
    let (status, answer) = send(b"this is no archive".to_vec());
    assert!(matches!(status, 200 | 422), "{answer}");
    assert_eq!(answer["result"], "rejected", "{answer}");
    assert_eq!(send(vec![0; 1_000_001]).0, 413);
    server.until_nothing_is_left("at the end");
}

#[test]
fn an_idempotency_key_gives_the_first_answer_and_refuses_another_body() {
    let server = Server::start();
    let package = example("greeter");
    let folder = package.path().to_str().unwrap();
    let submit = || server.pantry(&["--output", "json", "submit", folder, "--idempotency-key", "one"]);
    let id = |output: std::process::Output| {
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        value["id"].as_str().unwrap_or_default().to_owned()
    };
    let first = id(submit());
    assert_eq!(id(submit()), first);
    edit(package.path(), "pantry_package.yaml", "1.0.0", "1.0.1");
    let refused = submit();
    assert_eq!(refused.status.code(), Some(4), "{}", show(&refused));
    assert!(show(&refused).contains("idempotency_key_reused"), "{}", show(&refused));
}
