//! Repositories as an operator meets them: by command line, by the API, and in `/metrics`.

use std::collections::BTreeSet;
use std::process::Output;

use serde_json::{Value, json};

use super::registry::push_image;
use super::support::{Server, checkout, http, show, until};

fn code(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn tags(server: &Server, image: &str) -> Vec<String> {
    let listed = server.json(&["repo", "tags", image]);
    listed["items"].as_array().unwrap().iter().map(|item| item["tag"].as_str().unwrap().to_owned()).collect()
}

fn status(server: &Server, path: &str) -> u16 {
    http().get(format!("{}{path}", server.url)).send().unwrap().status().as_u16()
}

#[test]
fn a_repository_by_command_line_from_its_making_to_its_end() {
    let server = Server::start();
    let made =
        server.json(&["repo", "add", "team", "--keep-last", "2", "--untagged-after", "7d", "--dry-run"]);
    assert_eq!(
        made["settings"]["retention"],
        json!({"keep_last": 2, "keep_tags": [], "untagged_after_seconds": 604_800})
    );
    let missing = server.pantry(&["repo", "show", "team"]);
    assert_eq!(code(&missing).0, Some(5), "{}", show(&missing));
    server.json(&["repo", "add", "team", "--keep-last", "2", "--immutable", "release-*"]);
    let twice = server.pantry(&["repo", "add", "team"]);
    assert_eq!(code(&twice).0, Some(6), "{}", show(&twice));
    for tag in ["release-1", "v1", "v2", "v3"] {
        push_image(&server, "team/app", tag);
    }
    push_image(&server, "team/other", "v1");
    let found = server.json(&["repo", "show", "team"]);
    assert_eq!((&found["images"], &found["tags"], &found["reserved"]), (&json!(2), &json!(5), &json!(false)));
    let images = server.json(&["repo", "images", "team"]);
    assert_eq!(images["items"][0]["name"], "team/app");

    let preview = server.json(&["repo", "retention", "team", "--dry-run"]);
    let reasons: Vec<(&str, &str)> = preview["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["tag"].as_str().unwrap_or("-"), item["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(
        reasons,
        [
            ("release-1", "immutable"),
            ("v1", "no_rule_keeps_it"),
            ("v2", "keep_last"),
            ("v3", "keep_last"),
            ("v1", "keep_last"),
        ]
    );
    assert_eq!(tags(&server, "team/app").len(), 4);
    let done = server.json(&["repo", "retention", "team"]);
    assert_eq!((&done["tags"], &done["manifests"]), (&json!(1), &json!(1)));
    assert_eq!(tags(&server, "team/app"), ["release-1", "v2", "v3"]);

    server.json(&["repo", "delete-tag", "team/app:v3", "--dry-run"]);
    assert_eq!(tags(&server, "team/app").len(), 3);
    server.json(&["repo", "delete-tag", "team/app:v3"]);
    assert_eq!(tags(&server, "team/app"), ["release-1", "v2"]);
    let set = server.json(&["repo", "set", "team", "--keep-last", "none", "--sparse"]);
    assert_eq!(set["settings"]["sparse"], true);
    assert_eq!(set["settings"]["immutable_tags"], json!(["release-*"]), "what is not named stays");
    assert!(set["settings"]["retention"]["keep_last"].is_null());

    let full = server.pantry(&["repo", "rm", "team"]);
    assert!(code(&full).0 == Some(6) && code(&full).1.contains("--force"), "{}", show(&full));
    server.json(&["repo", "rm", "team", "--force", "--dry-run"]);
    assert_eq!(status(&server, "/v2/team/app/manifests/v2"), 200);
    let gone = server.json(&["repo", "rm", "team", "--force"]);
    assert_eq!((&gone["images"], &gone["tags"]), (&json!(2), &json!(3)));
    assert_eq!(status(&server, "/v2/team/app/manifests/v2"), 404);
    for own in ["packages", "pantry"] {
        let refused = server.pantry(&["repo", "rm", own, "--force"]);
        assert_eq!(code(&refused).0, Some(7), "{}", show(&refused));
    }
    let lines = server.admin_get("/v1/audit?limit=200");
    let actions: BTreeSet<&str> = lines["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["event"]["action"].as_str().unwrap())
        .collect();
    for action in [
        "repository.add",
        "repository.set",
        "repository.remove",
        "registry.retention",
        "registry.tag.delete",
        "registry.manifest.put",
    ] {
        assert!(actions.contains(action), "{action} is not among {actions:?}");
    }
}

#[test]
fn repositories_and_their_settings_outlive_the_server() {
    let folder = super::support::fresh_root();
    let root = folder.path().join("root");
    let server = Server::start_on(&root, &[]);
    server.json(&["repo", "add", "team", "--pulled-within", "30d", "--keep", "v*"]);
    push_image(&server, "team/app", "v1");
    server.json(&["repo", "rm", "local"]);
    let before = server.json(&["repo", "list"]);
    server.kill();
    let server = Server::start_on(&root, &[]);
    assert_eq!(server.json(&["repo", "list"]), before);
    assert_eq!(status(&server, "/v2/team/app/manifests/v1"), 200);
    assert_eq!(status(&server, "/v2/local/app/tags/list"), 404);
    let text = server.pantry(&["repo", "show", "team"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("retention.pulled_within   30d"), "{text}");
}

#[test]
fn the_api_refuses_what_is_not_as_it_must_be() {
    let server = Server::start();
    let send = |method: reqwest::Method, path: &str, body: &str| {
        let request = http().request(method, format!("{}{path}", server.url));
        let answer = request.bearer_auth(server.token()).body(body.to_owned()).send().unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().unwrap_or(Value::Null);
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    };
    let table = [
        ("POST", "/v1/repositories", "{", 400, "body_invalid"),
        ("POST", "/v1/repositories", r#"{"name":"A"}"#, 400, "repository_name_invalid"),
        ("POST", "/v1/repositories", r#"{"name":"a/b"}"#, 400, "repository_name_invalid"),
        ("POST", "/v1/repositories", r#"{"name":"a","type":"remote"}"#, 400, "repository_type_unsupported"),
        ("POST", "/v1/repositories", r#"{"name":"a","colour":1}"#, 400, "body_invalid"),
        ("POST", "/v1/repositories", r#"{"name":"local"}"#, 409, "repository_exists"),
        ("PUT", "/v1/repositories/local", r#"{"immutable_tags":["["]}"#, 400, "body_invalid"),
        (
            "PUT",
            "/v1/repositories/local",
            r#"{"retention":{"keep_last":0}}"#,
            400,
            "repository_settings_invalid",
        ),
        ("PUT", "/v1/repositories/none", "{}", 404, "repository_unknown"),
        ("PUT", "/v1/repositories/pantry", "{}", 403, "repository_reserved"),
        ("GET", "/v1/repositories/none", "", 404, "repository_unknown"),
        ("GET", "/v1/repositories/none/images", "", 404, "repository_unknown"),
        ("GET", "/v1/repositories/local/retention?after=x,y", "", 400, "cursor_invalid"),
        ("GET", "/v1/repositories/local/retention?after=packages/a,m,", "", 400, "cursor_invalid"),
        ("GET", "/v1/repositories/local/tags?image=packages/a", "", 404, "tag_unknown"),
        ("DELETE", "/v1/repositories/local/tags?image=local/a&tag=v1", "", 404, "tag_unknown"),
        ("GET", "/v1/repositories?limit=0", "", 400, "query_invalid"),
        ("DELETE", "/v1/repositories/packages?force=true", "", 403, "repository_reserved"),
    ];
    for (method, path, body, status, expected) in table {
        let found = send(method.parse().unwrap(), path, body);
        assert_eq!(found, (status, expected.to_owned()), "{method} {path} {body}");
    }
    let anonymous =
        http().post(format!("{}/v1/repositories", server.url)).body(r#"{"name":"a"}"#).send().unwrap();
    assert_eq!(anonymous.status(), 401);
}

/// The figures that `/metrics` tells: the names of its samples, those of a histogram as one.
fn told(text: &str) -> BTreeSet<String> {
    let histograms: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram")).collect();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            base.filter(|base| histograms.contains(base)).unwrap_or(name).to_owned()
        })
        .collect()
}

/// The figures that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let part = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    let words = text.split(|c: char| !part(c)).filter(|word| word.starts_with("pantry_"));
    words
        .map(|word| {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
            base.unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn every_figure_that_the_documents_name_is_told_and_every_one_told_is_named() {
    let server = Server::start();
    server.until_healthy();
    push_image(&server, "local/app", "v1");
    http().get(format!("{}/v2/local/app/manifests/v1", server.url)).send().unwrap();
    // The last of these is a change that ends.
    server.admin_get("/v1/status");
    let package = checkout().join("examples/greeter");
    assert_eq!(server.submit(&package)["state"], "published");
    let text = http()
        .get(format!("{}/metrics", server.url))
        .bearer_auth(server.token())
        .send()
        .unwrap()
        .text()
        .unwrap();
    let told = told(&text);
    let read = |name: &str| std::fs::read_to_string(checkout().join("docs/operations").join(name)).unwrap();
    let documented = named(&read("metrics.md"));
    let unknown: Vec<_> = documented.difference(&told).collect();
    let unnamed: Vec<_> =
        told.iter().filter(|name| name.starts_with("pantry_") && !documented.contains(*name)).collect();
    assert!(
        unknown.is_empty() && unnamed.is_empty(),
        "not told: {unknown:?}; not in metrics.md: {unnamed:?}\n{text}"
    );
    for file in ["alerts.yaml", "dashboard.json"] {
        let uses = named(&read(file));
        assert!(!uses.is_empty(), "{file} names no figure");
        let unknown: Vec<_> = uses.difference(&told).collect();
        assert!(unknown.is_empty(), "{file} names what is not told: {unknown:?}");
    }
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    assert!(dashboard["panels"].as_array().is_some_and(|panels| !panels.is_empty()));
    let value = |sample: &str| {
        let line =
            text.lines().find(|line| line.starts_with(sample)).unwrap_or_else(|| panic!("{sample}\n{text}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(value("pantry_repository_pushes_total{repository=\"local\"}") >= 1.0);
    assert!(value("pantry_repository_pulls_total{repository=\"local\"}") >= 1.0);
    assert!(value("pantry_repository_tags{repository=\"packages\"}") >= 1.0);
    assert!(value("pantry_connections_open") >= 1.0);
    assert!(value("pantry_blobs ") >= 5.0 && value("pantry_blobs_bytes ") > 1e6);
}

/// The server dies in the middle of a forced removal: nobody sees the rest, and it can be gone on with.
#[test]
fn a_removal_that_a_crash_cut_short_stays_hidden() {
    let folder = super::support::fresh_root();
    let root = folder.path().join("root");
    let server = Server::start_on(&root, &[]);
    server.json(&["repo", "add", "team"]);
    push_image(&server, "team/app", "v1");
    push_image(&server, "team/other", "v1");
    server.stop();
    let server = Server::start_on(&root, &[("PANTRY_FAULT", "registry.repository.drained")]);
    let cut = server.pantry(&["repo", "rm", "team", "--force"]);
    assert!(!cut.status.success(), "{}", show(&cut));
    server.until_dead();
    // It goes on with the start, not with a collection.
    let server = Server::start_on(&root, &[("PANTRY_STORAGE_COLLECT_EVERY_SECONDS", "0")]);
    for path in ["/v2/team/app/manifests/v1", "/v2/team/other/manifests/v1", "/v2/team/other/tags/list"] {
        assert_eq!(status(&server, path), 404, "{path}");
    }
    assert_eq!(code(&server.pantry(&["repo", "show", "team"])).0, Some(5));
    // A push can't land in what is going.
    let push = http().post(format!("{}/v2/team/app/blobs/uploads/", server.url)).send().unwrap();
    assert_eq!(push.status(), 404);
    let listed = server.get("/v2/_catalog").1["repositories"].to_string();
    assert!(!listed.contains("team"), "{listed}");
    until("what it held is gone", || server.pantry(&["repo", "add", "team"]).status.success());
    assert_eq!(status(&server, "/v2/team/app/manifests/v1"), 404);
}
