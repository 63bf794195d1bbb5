//! Who may do what: with a token, without one, and as another user of the machine.

use std::path::Path;
use std::process::{Command, Output};

use super::accounts::Account;
use super::clients::{image, policy};
use super::crash::greeter;
use super::support::{Server, Start, checkout, has, http, is_root, show, skip};

/// A server that listens on every address, and so asks for a token; its address as a client on this machine knows it.
fn open_to_all() -> (Server, String) {
    let environment =
        [("PANTRY_LISTEN", "0.0.0.0:0"), ("PANTRY_TLS_MODE", "off"), ("PANTRY_BUNDLE_LAYOUT", "")];
    let bundle = Account::Caller.bundle();
    let environment = [environment[0], environment[1], (environment[2].0, bundle.to_str().unwrap())];
    let mut server = Start { bare: true, environment: &environment, ..Start::default() }.fresh();
    let url = server.url.replace("0.0.0.0", "127.0.0.1");
    server.url.clone_from(&url);
    (server, url)
}

#[test]
fn without_a_token_only_health_is_told() {
    let (server, url) = open_to_all();
    server.until_healthy();
    assert_eq!(server.json(&["status"])["auth"]["mode"].as_str().unwrap_or("token"), "token");
    for path in [
        "/v2/",
        "/v2/pantry/base/manifests/latest",
        "/v1/status",
        "/v1/submissions",
        "/v1/changes",
        "/metrics",
    ] {
        let answer = http().get(format!("{url}{path}")).send().unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
        let scheme = if path.starts_with("/v2/") { "Bearer realm=" } else { "Basic realm=" };
        assert!(challenge.starts_with(scheme), "{path}: {challenge}");
    }
    for path in ["/v1/submissions", "/v1/installed", "/v2/local/a/blobs/uploads/"] {
        let answer = http().post(format!("{url}{path}")).send().unwrap();
        assert_eq!(answer.status(), 401, "{path}");
    }
}

#[test]
fn an_unknown_token_is_refused_and_ours_is_taken_in_both_forms() {
    let (server, url) = open_to_all();
    let token = server.token();
    let asked = |request: reqwest::blocking::RequestBuilder| request.send().unwrap().status().as_u16();
    let wrong = token.replace("pty_", "pty_x");
    for path in ["/v2/", "/v1/status"] {
        let get = || http().get(format!("{url}{path}"));
        assert_eq!(asked(get().bearer_auth(&wrong)), 401, "{path}");
        assert_eq!(asked(get().basic_auth("admin", Some(&wrong))), 401, "{path}");
        assert_eq!(asked(get().basic_auth(&token, Some(""))), 401, "{path}: a token is no user name");
        assert_eq!(asked(get().bearer_auth(&token)), 200, "{path}");
        assert_eq!(asked(get().basic_auth("anybody", Some(&token))), 200, "{path}");
    }
    no_secret_in_the_log(&server);
}

#[test]
fn a_submission_over_http_needs_the_token() {
    let (server, url) = open_to_all();
    let folder = checkout().join("examples/greeter");
    let submit = |token: Option<&str>| {
        let mut command = Command::new(super::support::PANTRY);
        command.args(["--host", &url]).args(token.map(|token| ["--token", token]).into_iter().flatten());
        command.args(["--output", "json", "submit", "--watch"]).arg(&folder).output().unwrap()
    };
    assert_eq!(submit(None).status.code(), Some(7));
    assert_eq!(submit(Some("pty_unknown")).status.code(), Some(7));
    assert!(server.submissions().is_empty());
    // The signed result comes back to a server that asks everybody else for a token.
    let output = submit(Some(&server.token()));
    assert!(output.status.success(), "{}\n{}", show(&output), server.log());
    assert_eq!(server.submissions()[0]["state"], "published");
    no_secret_in_the_log(&server);
}

#[test]
fn skopeo_logs_in_pushes_and_pulls_with_the_token() {
    if !has("skopeo") {
        return skip("skopeo_logs_in_pushes_and_pulls_with_the_token", "skopeo is not installed");
    }
    let (server, url) = open_to_all();
    let address = url.trim_start_matches("http://");
    let folder = tempfile::tempdir().unwrap();
    let source = format!("oci:{}:1", image(folder.path()).display());
    let remote = format!("docker://{address}/local/skopeo/app:1");
    let back = format!("oci:{}:1", folder.path().join("back").display());
    let policy = policy(folder.path());
    let skopeo = |arguments: &[&str]| -> Output {
        Command::new("skopeo").arg("--policy").arg(&policy).args(arguments).output().unwrap()
    };
    let authfile = folder.path().join("auth.json");
    let authfile = authfile.to_str().unwrap();
    let login = |password: &str| {
        skopeo(&[
            "login",
            "--tls-verify=false",
            "--authfile",
            authfile,
            "-u",
            "admin",
            "-p",
            password,
            address,
        ])
    };
    let copy = |creds: Option<&str>| {
        let mut arguments = vec!["copy", "--dest-tls-verify=false", &source, &remote];
        match creds {
            Some(creds) => arguments.extend(["--dest-creds", creds]),
            None => arguments.push("--dest-no-creds"),
        }
        skopeo(&arguments)
    };
    assert!(!login("pty_unknown").status.success());
    assert!(!copy(None).status.success(), "nobody may push");
    assert!(!copy(Some("admin:pty_unknown")).status.success(), "an unknown token may not push");
    let token = server.token();
    let pushed = copy(Some(&format!("admin:{token}")));
    assert!(pushed.status.success(), "{}\n{}", show(&pushed), server.log());
    let said = login(&token);
    assert!(said.status.success(), "{}", show(&said));
    let pull = ["copy", "--src-tls-verify=false", "--src-authfile", authfile, &remote, &back];
    let pulled = skopeo(&pull);
    assert!(pulled.status.success(), "{}", show(&pulled));
    let blob = |layout: &str| {
        let index = std::fs::read_to_string(folder.path().join(layout).join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&index).unwrap();
        index["manifests"][0]["digest"].clone()
    };
    assert_eq!(blob("image"), blob("back"));
    no_secret_in_the_log(&server);
}

/// Neither the token, in any form in which it came, nor a key stands in the log.
fn no_secret_in_the_log(server: &Server) {
    use base64::Engine as _;
    let log = server.whole_log();
    assert!(log.contains("\"http.status\""), "requests are logged");
    let mut secrets = Vec::new();
    for file in std::fs::read_dir(server.root.join("keys")).unwrap().flatten() {
        secrets.push(String::from_utf8_lossy(&std::fs::read(file.path()).unwrap()).trim().to_owned());
    }
    let token = server.token();
    for user in ["admin", "anybody"] {
        secrets.push(base64::engine::general_purpose::STANDARD.encode(format!("{user}:{token}")));
    }
    assert!(secrets.contains(&token));
    for secret in &secrets {
        assert!(secret.len() > 20 && !log.contains(secret.as_str()), "a secret stands in the log");
    }
}

#[test]
fn who_administers_a_repository_sees_its_settings_and_what_is_hidden_is_not_listed() {
    let (server, url) = open_to_all();
    let token = server.token();
    let send = |path: &str, body: serde_json::Value| {
        let method = if path == "/v1/grants" { reqwest::Method::PUT } else { reqwest::Method::POST };
        let answer =
            http().request(method, format!("{url}{path}")).bearer_auth(&token).json(&body).send().unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().unwrap());
    };
    send("/v1/repositories", serde_json::json!({"name": "secret"}));
    for (user, role) in [("ada", "nobody"), ("rea", "reader")] {
        send("/v1/users", serde_json::json!({"name": user, "password": "a password", "role": role}));
    }
    send(
        "/v1/grants",
        serde_json::json!({"subject": "user:ada", "pattern": "local", "rights": ["pull", "admin"]}),
    );
    send(
        "/v1/grants",
        serde_json::json!({"subject": "user:rea", "pattern": "local/team", "rights": ["pull"]}),
    );
    let get = |user: &str, path: &str| {
        let answer = http().get(format!("{url}{path}")).basic_auth(user, Some("a password")).send().unwrap();
        (answer.status().as_u16(), answer.json::<serde_json::Value>().unwrap())
    };
    for user in ["ada", "rea"] {
        assert_eq!(get(user, "/v1/repositories/local").0, 200, "{user}");
        let (status, list) = get(user, "/v1/repositories");
        let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!((status, names), (200, vec![&serde_json::json!("local")]), "{user}");
    }
    // The reader is told of a hidden one what is told of one that is not there.
    let (hidden, none) = (get("rea", "/v1/repositories/secret"), get("rea", "/v1/repositories/nonesuch"));
    assert_eq!((hidden.0, none.0, &hidden.1["code"]), (404, 404, &none.1["code"]));
    assert_eq!(get("ada", "/v1/repositories/secret").0, 403);
}

#[test]
fn another_user_of_the_machine_reads_but_changes_nothing() {
    if !is_root() {
        return skip(
            "another_user_of_the_machine_reads_but_changes_nothing",
            "only root can act as another user",
        );
    }
    let folder = super::support::fresh_root();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let server = Server::start_on(&folder.path().join("root"), &[]);
    assert_eq!(server.submit(&checkout().join("examples/greeter"))["state"], "published");
    assert!(server.pantry(&["install", "greeter"]).status.success());
    let package = greeter(Account::Plain, "1.1.0");
    let (other, program) = (Account::Plain, Account::Plain.program());
    let asked = |arguments: &[&str]| server.pantry_as(other, &program, arguments);
    for allowed in [&["list"][..], &["changes"], &["status"]] {
        let output = asked(allowed);
        assert!(output.status.success(), "{allowed:?}: {}", show(&output));
    }
    assert!(show(&asked(&["list"])).contains("greeter"));
    let package = package.path().to_str().unwrap();
    for refused in [
        &["submit", package][..],
        &["submit", package, "--preview"],
        &["install", "greeter"],
        &["remove", "greeter"],
    ] {
        let output = asked(refused);
        assert_eq!(output.status.code(), Some(7), "{refused:?}: {}", show(&output));
        assert!(show(&output).contains("hint:"), "{refused:?}: {}", show(&output));
    }
    assert_eq!(server.submissions().len(), 1);
    assert_eq!(server.json(&["list"])["items"].as_array().unwrap().len(), 1);
    // What is installed may be run by everybody; the keys are the server's alone.
    let run = other.command(server.root.join("bin/greet")).arg("ada").output().unwrap();
    assert!(run.status.success(), "{}", show(&run));
    let read = |path: &Path| other.command("cat").arg(path).output().unwrap().status.success();
    assert!(read(&server.root.join("bin/greet")));
    for private in ["keys/admin-token", "state.redb"] {
        assert!(!read(&server.root.join(private)), "{private} can be read by others");
    }
}
