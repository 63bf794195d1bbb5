//! `pantry user|token|grant` and the API below them.

use std::io::Write as _;
use std::process::{Output, Stdio};

use reqwest::Method;
use serde_json::{Value, json};

use super::accounts::{Account, copy};
use super::support::{PANTRY, Server, http, is_root, show, skip};

/// Runs a command with something on stdin.
pub fn piped(server: &Server, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = server
        .account
        .command(PANTRY)
        .arg("--root")
        .arg(&server.root)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who is refused for its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn add(server: &Server, name: &str, more: &[&str]) -> Output {
    let arguments = [&["user", "add", name, "--password-stdin"], more].concat();
    piped(server, &arguments, b"correct horse\n")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn users_are_made_shown_changed_and_removed() {
    let server = Server::start();
    let made = add(&server, "ada", &["--group", "team", "--group", "ops"]);
    assert!(made.status.success(), "{}", show(&made));
    assert!(!show(&made).contains("horse"));
    assert_eq!(code(&add(&server, "ada", &[])), Some(6));
    assert_eq!(code(&add(&server, "a/b", &[])), Some(2));
    assert_eq!(code(&add(&server, "bob", &["--role", "king"])), Some(2));
    let short = piped(&server, &["user", "add", "bob", "--password-stdin"], b"short\n");
    assert_eq!(code(&short), Some(4), "{}", show(&short));
    let empty = piped(&server, &["user", "add", "bob", "--password-stdin"], b"\n");
    assert_eq!(code(&empty), Some(2));
    // Without a terminal there is nobody to ask.
    assert!(server.pantry(&["user", "add", "robot", "--no-password"]).status.success());

    let users = server.json(&["user", "list"]);
    let names: Vec<&Value> = users["items"].as_array().unwrap().iter().map(|user| &user["name"]).collect();
    assert_eq!(names, [&json!("ada"), &json!("robot")]);
    let ada = server.json(&["user", "show", "ada"]);
    assert_eq!(ada["groups"], json!(["ops", "team"]));
    assert_eq!((&ada["role"], &ada["has_password"]), (&json!("nobody"), &json!(true)));
    assert_eq!(server.json(&["user", "show", "robot"])["has_password"], false);

    let changed = server.json(&["user", "set", "ada", "--role", "installer", "--groups", "team,new"]);
    assert_eq!((&changed["role"], &changed["groups"]), (&json!("installer"), &json!(["new", "team"])));
    assert_eq!(server.json(&["user", "set", "ada", "--groups", ""])["groups"], json!([]));
    assert_eq!(server.json(&["user", "disable", "ada"])["disabled"], true);
    assert_eq!(server.json(&["user", "enable", "ada"])["disabled"], false);
    let renewed = piped(&server, &["user", "passwd", "ada", "--password-stdin"], b"battery staple\n");
    assert!(renewed.status.success(), "{}", show(&renewed));
    assert_eq!(
        code(&piped(&server, &["user", "passwd", "eve", "--password-stdin"], b"battery staple\n")),
        Some(5)
    );
    assert!(server.pantry(&["user", "rm", "ada"]).status.success());
    for gone in [["user", "show", "ada"], ["user", "rm", "ada"], ["user", "disable", "ada"]] {
        assert_eq!(code(&server.pantry(&gone)), Some(5), "{gone:?}");
    }
    // Nothing that was typed is in the log, or in the audit log.
    let audit = server.admin_get("/v1/audit?limit=200").to_string();
    assert!(audit.contains("access.user.create") && audit.contains("user:ada"), "{audit}");
    for secret in ["correct horse", "battery staple"] {
        assert!(!audit.contains(secret) && !server.whole_log().contains(secret));
    }
}

#[test]
fn a_token_is_shown_once_and_counts_until_it_is_revoked() {
    let server = Server::start();
    add(&server, "ada", &["--role", "administrator"]);
    let token = server.pantry(&["token", "create", "ci", "--user", "ada", "--expires", "30d"]);
    let secret = String::from_utf8_lossy(&token.stdout).trim().to_owned();
    assert!(token.status.success() && secret.starts_with("pty_"), "{}", show(&token));
    let ask = |secret: &str| {
        http().get(format!("{}/v1/users", server.url)).bearer_auth(secret).send().unwrap().status().as_u16()
    };
    assert_eq!(ask(&secret), 200);
    let narrow = server.json(&[
        "token",
        "create",
        "narrow",
        "--user",
        "ada",
        "--scope",
        "local/team:pull,push",
        "--scope",
        "packages:pull",
    ]);
    assert_eq!(
        narrow["scopes"],
        json!([
            { "pattern": "local/team", "rights": ["pull", "push"] }, { "pattern": "packages", "rights": ["pull"] }
        ])
    );
    assert_eq!(ask(narrow["token"].as_str().unwrap()), 403);

    let listed = server.json(&["token", "list", "--user", "ada"]);
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains("pty_"), "{listed}");
    let id =
        listed["items"].as_array().unwrap().iter().find(|token| token["name"] == "ci").unwrap()["id"].clone();
    assert!(server.pantry(&["token", "revoke", id.as_str().unwrap()]).status.success());
    assert_eq!(ask(&secret), 401);
    for (arguments, expected) in [
        (vec!["token", "revoke", id.as_str().unwrap()], 5),
        (vec!["token", "revoke", "../x"], 2),
        (vec!["token", "create", "narrow", "--user", "ada"], 6),
        (vec!["token", "create", "x", "--user", "nobody"], 5),
        (vec!["token", "create", "x", "--user", "ada", "--expires", "0s"], 4),
        (vec!["token", "create", "x", "--user", "ada", "--expires", "soon"], 2),
        (vec!["token", "create", "x", "--user", "ada", "--scope", "local:fly"], 2),
        // Root over the socket is no user, so it must say whose the token is.
        (vec!["token", "create", "x"], 4),
    ] {
        let output = server.pantry(&arguments);
        assert_eq!(code(&output), Some(expected), "{arguments:?}: {}", show(&output));
    }
}

#[test]
fn rights_are_granted_replaced_and_taken_back() {
    let server = Server::start();
    add(&server, "ada+x@example.org", &[]);
    let subject = "user:ada+x@example.org";
    assert!(server.pantry(&["grant", "add", subject, "local/team", "pull,push"]).status.success());
    assert!(server.pantry(&["grant", "add", subject, "local/team", "pull"]).status.success());
    assert!(server.pantry(&["grant", "add", "anonymous", "*", "pull"]).status.success());
    assert!(server.pantry(&["grant", "add", "group:ops", "*", "admin"]).status.success());
    let grants = server.json(&["grant", "list"]);
    let told: Vec<(&str, &str)> = grants["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|grant| (grant["subject"].as_str().unwrap(), grant["pattern"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("anonymous", "*"), ("group:ops", "*"), (subject, "local/team")]);
    assert_eq!(grants["items"][2]["rights"], json!(["pull"]));
    assert!(server.pantry(&["grant", "rm", subject, "local/team"]).status.success());
    for (arguments, expected) in [
        (["grant", "rm", subject, "local/team"].to_vec(), 5),
        (vec!["grant", "add", "user:nobody", "*", "pull"], 5),
        (vec!["grant", "add", "ada", "*", "pull"], 2),
        (vec!["grant", "add", "anonymous", "local/*", "pull"], 2),
        (vec!["grant", "add", "anonymous", "*", "fly"], 2),
    ] {
        let output = server.pantry(&arguments);
        assert_eq!(code(&output), Some(expected), "{arguments:?}: {}", show(&output));
    }
}

#[test]
fn lists_come_in_pages_and_bodies_are_checked() {
    let server = Server::start();
    let send = |method: Method, path: &str, body: &str| {
        let request = http().request(method, format!("{}{path}", server.url)).bearer_auth(server.token());
        let response = request.body(body.to_owned()).send().unwrap();
        (response.status().as_u16(), response.json::<Value>().unwrap_or(Value::Null))
    };
    for name in ["a", "b", "c", "d", "e"] {
        let (status, _) = send(Method::POST, "/v1/users", &json!({ "name": name }).to_string());
        assert_eq!(status, 201);
    }
    let first = server.admin_get("/v1/users?limit=2");
    assert_eq!((&first["items"][1]["name"], &first["next"]), (&json!("b"), &json!("b")));
    let last = server.admin_get("/v1/users?limit=3&after=b");
    assert_eq!(last["items"][2]["name"], "e");
    assert_eq!(server.admin_get("/v1/users?limit=3&after=c")["next"], Value::Null);
    assert_eq!(server.json(&["user", "list"])["items"].as_array().unwrap().len(), 5);
    for (method, path, body, status, said) in [
        (Method::POST, "/v1/users", "{", 400, "body_invalid"),
        (Method::POST, "/v1/users", r#"{"name":"x","admin":true}"#, 400, "body_invalid"),
        (Method::POST, "/v1/users", r#"{"name":"-"}"#, 400, "body_invalid"),
        (Method::POST, "/v1/users", r#"{"name":"a"}"#, 409, "user_exists"),
        (Method::PATCH, "/v1/users/none", "{}", 404, "user_unknown"),
        (Method::PATCH, "/v1/users/a%20b", "{}", 422, "account_name_invalid"),
        (Method::DELETE, "/v1/users/none", "", 404, "user_unknown"),
        (Method::DELETE, "/v1/grants?subject=anonymous", "", 400, "query_invalid"),
        (Method::DELETE, "/v1/grants?subject=x&pattern=*", "", 400, "query_invalid"),
        (Method::DELETE, "/v1/grants?subject=anonymous&pattern=*", "", 404, "grant_unknown"),
        (
            Method::PUT,
            "/v1/grants",
            r#"{"subject":"anonymous","pattern":"*","rights":[]}"#,
            422,
            "grant_invalid",
        ),
        (Method::DELETE, "/v1/tokens/zzz", "", 404, "token_unknown"),
        (
            Method::POST,
            "/v1/tokens",
            r#"{"name":"t","owner":"a","expires_in_seconds":18446744073709551615}"#,
            422,
            "token_invalid",
        ),
    ] {
        let answer = send(method.clone(), path, body);
        assert_eq!(
            (answer.0, answer.1["code"].as_str()),
            (status, Some(said)),
            "{method} {path} {body}: {answer:?}"
        );
    }
    let large = format!(r#"{{"name":"x","password":"{}"}}"#, "p".repeat(100_000));
    assert_eq!(send(Method::POST, "/v1/users", &large).0, 413);
}

#[test]
fn who_does_not_administer_sees_and_changes_no_accounts() {
    let server = Server::start();
    add(&server, "ada", &[]);
    for path in ["/v1/users", "/v1/users/ada", "/v1/tokens", "/v1/grants"] {
        assert_eq!(server.get(path).0, 401, "{path}");
    }
    for path in ["/v1/users", "/v1/tokens"] {
        let answer = http().post(format!("{}{path}", server.url)).body("{}").send().unwrap();
        assert_eq!(answer.status(), 401, "{path}");
    }
    assert_eq!(http().put(format!("{}/v1/grants", server.url)).body("{}").send().unwrap().status(), 401);
    if !is_root() {
        return skip(
            "who_does_not_administer_sees_and_changes_no_accounts",
            "other users on the socket need root",
        );
    }
    let folder = Account::Plain.folder();
    copy(std::path::Path::new(PANTRY), &folder.path().join("pantry"));
    for arguments in
        [&["user", "list"][..], &["token", "list"], &["grant", "list"], &["user", "disable", "ada"]]
    {
        let output = server.pantry_as(Account::Plain, &folder.path().join("pantry"), arguments);
        assert!(matches!(code(&output), Some(3 | 7)), "{arguments:?}: {}", show(&output));
    }
    assert_eq!(server.json(&["user", "show", "ada"])["disabled"], false);
}
