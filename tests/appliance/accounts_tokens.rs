//! Users, API tokens, grants and the token service, over HTTP against a server that asks for credentials.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::blocking::{RequestBuilder, Response};
use serde_json::Value;
use sha2::Sha256;

use super::accounts::Account;
use super::support::{Server, Start, http};

/// The password of `fay`, who stands in the file.
const PASSWORD: &str = "password of fay";

/// A server with one user from a file.
struct World {
    server: Server,
    url: String,
    file: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("htpasswd");
        std::fs::write(&file, format!("fay:{}\n", bcrypt::hash(PASSWORD, 4).unwrap())).unwrap();
        let bundle = Account::Caller.bundle();
        let environment = [
            ("PANTRY_LISTEN", "127.0.0.1:0"),
            ("PANTRY_AUTH_MODE", "token"),
            ("PANTRY_AUTH_HTPASSWD", file.to_str().unwrap()),
            ("PANTRY_AUTH_TOKEN_TTL_SECONDS", "60"),
            ("PANTRY_BUNDLE_LAYOUT", bundle.to_str().unwrap()),
        ];
        let server = Start { bare: true, environment: &environment, ..Start::default() }.fresh();
        let url = server.url.clone();
        server.until_healthy();
        Self { server, url, file: folder }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        http().get(format!("{}{path}", self.url))
    }

    fn fay(&self, path: &str) -> Response {
        self.get(path).basic_auth("fay", Some(PASSWORD)).send().unwrap()
    }

    /// A token of the token service for `fay`.
    fn bearer(&self, scope: &str) -> Value {
        let answer = self.fay(&format!("/v2/token?service=pantry&scope={scope}&offline_token=true"));
        assert_eq!(answer.status(), 200);
        answer.json().unwrap()
    }
}

/// The same token as if it had been made an hour ago: signed with the server's own key.
fn aged(token: &str, server: &Server) -> String {
    let mut parts = token.split('.');
    let (header, claims) = (parts.next().unwrap(), parts.next().unwrap());
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    for claim in ["exp", "nbf", "iat"] {
        claims[claim] = (claims[claim].as_u64().unwrap() - 3600).into();
    }
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let key = std::fs::read_to_string(server.root.join("keys/token-signing-key")).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(key.trim_end().as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn challenge(answer: &Response) -> String {
    assert_eq!(answer.status(), 401);
    answer.headers()["www-authenticate"].to_str().unwrap().to_owned()
}

#[test]
fn a_user_of_the_file_logs_in_by_basic_and_by_token() {
    let world = World::new();
    assert_eq!(world.fay("/v2/").status(), 200);
    let plain = challenge(&world.get("/v2/").send().unwrap());
    assert_eq!(plain, format!("Bearer realm=\"{}/v2/token\",service=\"pantry\"", world.url));
    let made = world.bearer("repository:local/a:pull,push");
    assert_eq!((&made["scope"], &made["expires_in"]), (&Value::from(""), &Value::from(60)));
    let token = made["token"].as_str().unwrap();
    assert_eq!(world.get("/v2/").bearer_auth(token).send().unwrap().status(), 200);
    // Nothing is granted to fay: what is there and what is not are told alike.
    for path in ["/v2/pantry/base/tags/list", "/v2/pantry/none/tags/list"] {
        assert_eq!(world.fay(path).status(), 404, "{path}");
        assert_eq!(world.get(path).bearer_auth(token).send().unwrap().status(), 404, "{path}");
    }
    assert_eq!(world.fay("/v1/status").status(), 403);
    // A token that has expired is told so, and a new one comes by the refresh token.
    let old = aged(token, &world.server);
    let told = challenge(&world.get("/v2/").bearer_auth(&old).send().unwrap());
    assert!(told.ends_with("error=\"invalid_token\""), "{told}");
    let refresh = made["refresh_token"].as_str().unwrap();
    let form = format!("grant_type=refresh_token&refresh_token={refresh}");
    let answer = http().post(format!("{}/v2/token", world.url)).body(form).send().unwrap();
    let answer: Value = answer.json().unwrap();
    let fresh = answer["access_token"].as_str().unwrap();
    assert_eq!(world.get("/v2/").bearer_auth(fresh).send().unwrap().status(), 200);
    // Taken out of the file, the user, the token and the refresh token are worth nothing.
    std::fs::write(world.file.path().join("htpasswd"), "").unwrap();
    super::support::until("the file is read again", || world.fay("/v2/").status() == 401);
    assert_eq!(world.get("/v2/").bearer_auth(fresh).send().unwrap().status(), 401);
}

#[test]
fn wrong_passwords_are_delayed_limited_and_noted() {
    let world = World::new();
    assert_eq!(world.fay("/v2/").status(), 200);
    let wrong = |password: &str| world.get("/v2/").basic_auth("fay", Some(password)).send().unwrap();
    let began = Instant::now();
    assert_eq!(wrong("wrong password 0").status(), 401);
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    let mut limited = None;
    for one in 1..20 {
        let answer = wrong(&format!("wrong password {one}"));
        if answer.status() == 429 {
            limited = Some((one, answer));
            break;
        }
        assert_eq!(answer.status(), 401);
    }
    let (after, answer) = limited.unwrap();
    assert!((8..12).contains(&after), "limited after {after}");
    assert!(answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 60);
    let body: Value = answer.json().unwrap();
    assert_eq!(body["errors"][0]["code"], "TOOMANYREQUESTS");
    // Who was right a short while ago is not in its way, nor is an unknown name told apart.
    assert_eq!(world.fay("/v2/").status(), 200);
    let began = Instant::now();
    assert_eq!(world.get("/v2/").basic_auth("nobody", Some("x")).send().unwrap().status(), 401);
    assert!(began.elapsed() >= Duration::from_millis(500));
    super::support::until("the audit log names the failures", || {
        let log = world.server.admin_get("/v1/audit?limit=200").to_string();
        log.contains("access.login") && log.contains("user:fay") && log.contains("user:nobody")
    });
    let log = world.server.whole_log();
    for secret in ["wrong password", PASSWORD, &STANDARD.encode(format!("fay:{PASSWORD}"))] {
        assert!(!log.contains(secret), "a secret stands in the log");
    }
}
