//! Starting, stopping, and what a server refuses at its door.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use super::support::{PANTRY, Server, Start, fresh_root, http, index_url, is_root, show, skip};

#[test]
fn health_names_its_checks_and_the_schema() {
    let server = Server::start();
    server.until_healthy();
    let (status, health) = server.get("/health");
    assert_eq!(status, 200);
    assert_eq!(health["service"], "pantry");
    assert_eq!(health["schema"], 18);
    for check in ["state", "blobs", "queue", "runner"] {
        assert!(health["checks"][check].is_object(), "{check} in {health}");
    }
    server.stop();
}

#[test]
fn metrics_and_the_api_description_are_served() {
    let server = Server::start();
    server.get("/v2/");
    let metrics = http().get(format!("{}/metrics", server.url)).send().unwrap().text().unwrap();
    assert!(metrics.contains("pantry_") && metrics.contains("_total"), "{metrics}");
    let (status, api) = server.get("/v1/openapi.json");
    assert_eq!(status, 200);
    for path in
        ["/v1/submissions", "/v1/submissions/{id}/container-result", "/v1/installed", "/v1/changes/{id}"]
    {
        assert!(api["paths"][path].is_object(), "{path} is not described");
    }
}

#[test]
fn a_port_in_use_is_named_with_a_hint() {
    let first = Server::start();
    let folder = fresh_root();
    let output = Command::new(PANTRY)
        .arg("--root")
        .arg(folder.path().join("root"))
        .args(["serve", "--listen", first.address()])
        .env("PANTRY_BUNDLE_LAYOUT", super::support::bundle())
        .env("PANTRY_STORE_INDEX_URL", index_url())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = show(&output);
    assert!(said.contains("[port_in_use]") && said.contains("hint:"), "{said}");
}

#[test]
fn a_root_in_use_is_refused() {
    let first = Server::start();
    let refused = Server::try_start(&first.root, &[]).map(|_| ()).unwrap_err();
    assert!(refused.contains("[root_in_use]"), "{refused}");
    assert_eq!(first.get("/health").0, 200);
}

#[test]
fn a_root_of_somebody_else_is_refused() {
    if !is_root() {
        return skip("a_root_of_somebody_else_is_refused", "only root can give a folder away");
    }
    let folder = fresh_root();
    let root = folder.path().join("root");
    std::os::unix::fs::chown(&root, Some(12_345), None).unwrap();
    let refused = Server::try_start(&root, &[]).map(|_| ()).unwrap_err();
    assert!(refused.contains("[root_not_ours]"), "{refused}");
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let full = Some(Path::new("/dev/full"));
    let environment = [("PANTRY_LOG_FILTER", "debug")];
    let server = Start { log: full, environment: &environment, ..Start::default() }.fresh();
    server.until_healthy();
    for _ in 0..20 {
        assert_eq!(server.get("/v1/nothing").0, 404);
    }
    assert_eq!(server.admin_get("/v1/status")["sandbox"]["proof"], serde_json::Value::Null);
    // A start that fails says so by its exit code.
    let mut refused = std::process::Command::new(server.account.program());
    refused.args(["--root"]).arg(&server.root).args(["serve", "--listen", "127.0.0.1:0"]);
    refused.stdout(std::process::Stdio::null());
    refused.stderr(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    assert_eq!(refused.status().unwrap().code(), Some(1));
    server.stop();
}

#[test]
fn an_unknown_runner_and_an_incomplete_dispatcher_do_not_start() {
    let folder = fresh_root();
    let root = folder.path().join("root");
    let unknown = Server::try_start(&root, &[("PANTRY_CONTAINER_RUNNER", "docker")]).map(|_| ()).unwrap_err();
    assert!(unknown.contains("embedded") && unknown.contains("github_actions"), "{unknown}");
    let guarded =
        Server::try_start(&root, &[("PANTRY_CONTAINER_RUNNER", "github_actions")]).map(|_| ()).unwrap_err();
    assert!(guarded.contains("PANTRY_CALLBACK_SIGNING_KEY"), "{guarded}");
    let empty = [("PANTRY_CONTAINER_RUNNER", "github_actions"), ("PANTRY_CALLBACK_SIGNING_KEY", "")];
    let guarded = Server::try_start(&root, &empty).map(|_| ()).unwrap_err();
    assert!(guarded.contains("PANTRY_CALLBACK_SIGNING_KEY"), "an empty variable is unset: {guarded}");
}

#[test]
fn a_cross_site_request_and_a_foreign_host_are_refused() {
    let server = Server::start();
    let cross = http()
        .post(format!("{}/v1/submissions", server.url))
        .header("Origin", "https://evil.example")
        .bearer_auth(server.token())
        .send()
        .unwrap();
    assert_eq!(cross.status(), 403);
    let body: serde_json::Value = cross.json().unwrap();
    assert_eq!(body["code"], "origin_not_allowed");
    let foreign =
        http().get(format!("{}/v1/status", server.url)).header("Host", "evil.example").send().unwrap();
    assert_eq!(foreign.status(), 421);
    let body: serde_json::Value = foreign.json().unwrap();
    assert_eq!(body["code"], "host_not_allowed");
    assert!(body["hint"].is_string() && body["request_id"].is_string(), "{body}");
}

#[test]
fn loopback_alone_may_not_install_or_submit() {
    let server = Server::start();
    for (method, path) in
        [("POST", "/v1/installed"), ("POST", "/v1/submissions"), ("DELETE", "/v1/installed/x")]
    {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let response = http().request(method, format!("{}{path}", server.url)).send().unwrap();
        assert!(matches!(response.status().as_u16(), 401 | 403), "{path}: {}", response.status());
    }
}

#[test]
fn a_slow_header_is_cut_and_others_are_still_served() {
    let server = Server::start_with(&[("PANTRY_LIMITS_HEADER_TIMEOUT_MS", "300")]);
    let mut slow = TcpStream::connect(server.address()).unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").unwrap();
    assert_eq!(server.get("/health").0, 200);
    slow.set_read_timeout(Some(super::support::PATIENCE)).unwrap();
    let mut rest = Vec::new();
    // The server ends the connection; what it says before that is its own affair.
    let _ = slow.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn sigterm_stops_cleanly_and_the_socket_goes_with_it() {
    let server = Server::start();
    server.stop();
    let output = server.pantry(&["list"]);
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    assert!(show(&output).contains("hint:"));
}

#[test]
fn a_bundle_that_was_altered_is_found_before_use() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("bundle");
    let copied = Command::new("cp").arg("-a").arg(super::support::bundle()).arg(&copy).status().unwrap();
    assert!(copied.success());
    let mut largest = None;
    for entry in std::fs::read_dir(copy.join("blobs/sha256")).unwrap().flatten() {
        let size = entry.metadata().unwrap().len();
        if largest.as_ref().is_none_or(|(known, _)| size > *known) {
            largest = Some((size, entry.path()));
        }
    }
    // The largest blob may be the layer that nobody unpacks; alter every layer.
    drop(largest);
    for entry in std::fs::read_dir(copy.join("blobs/sha256")).unwrap().flatten() {
        if entry.metadata().unwrap().len() > 100_000 {
            let mut bytes = std::fs::read(entry.path()).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::remove_file(entry.path()).unwrap();
            std::fs::write(entry.path(), bytes).unwrap();
        }
    }
    let root = folder.path().join("root");
    let altered = [("PANTRY_BUNDLE_LAYOUT", copy.to_str().unwrap())];
    let refused = Server::try_start(&root, &altered).map(|_| ()).unwrap_err();
    assert!(refused.contains("error:"), "{refused}");
    assert!(!std::fs::read_dir(root.join("trees")).unwrap().flatten().any(|e| e.path().join("usr").exists()));
}

#[test]
fn no_module_of_the_hosts_name_service_is_loaded() {
    if !super::support::has("strace") || !is_root() {
        return skip(
            "no_module_of_the_hosts_name_service_is_loaded",
            "needs strace, and root for a name service of its own",
        );
    }
    // A name service that asks modules which are not built into the binary, in a mount namespace of its own.
    let folder = tempfile::tempdir().unwrap();
    let nsswitch = folder.path().join("nsswitch.conf");
    std::fs::write(
        &nsswitch,
        "hosts: mymachines resolve files dns\npasswd: files systemd\ngroup: files systemd\n",
    )
    .unwrap();
    let trace = folder.path().join("trace");
    let script = format!(
        "mount --bind {} /etc/nsswitch.conf && exec strace -f -e trace=openat -o {} {PANTRY} --host http://no-such-host.invalid:1 list",
        nsswitch.display(),
        trace.display()
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    let trace = std::fs::read_to_string(&trace).unwrap();
    assert!(trace.contains("/etc/hosts"), "the name must have been looked up:\n{trace}");
    assert!(!trace.contains("libnss_"), "{trace}");
}
