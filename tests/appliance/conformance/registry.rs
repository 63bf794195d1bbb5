//! The registry that is walked through: how it is reached, who asks, and what must be there after a kill.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use reqwest::blocking::{Body, Response};
use reqwest::{Method, Url, header};
use serde_json::Value;

use super::super::account_commands::piped;
use super::super::support::{PATIENCE, Server, fresh_root, show};
use super::{Algorithm, Client, IMAGE, code, digest};

pub use reqwest::Version;

const PASSWORD: &str = "a password of nobody else";

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Nobody: the server has no accounts.
    None,
    /// A user, whose password goes with every request.
    Basic,
    /// The same user by the token service: asked for credentials, the client fetches a token and asks again.
    Tokens,
}

/// How a registry is reached.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    pub login: Login,
    /// The version of HTTP that is spoken over TLS.
    pub tls: Option<Version>,
}

/// A registry with its client.
pub struct Registry {
    pub mode: Mode,
    pub server: Server,
    client: reqwest::blocking::Client,
    /// The token for each repository and kind of use, as clients keep them.
    tokens: Mutex<HashMap<String, String>>,
    /// What was found at some time.
    found: Mutex<BTreeSet<String>>,
    /// The walks before this one.
    turn: usize,
    folder: tempfile::TempDir,
}

fn start(
    folder: &tempfile::TempDir,
    mode: Mode,
    settings: &[(&str, &str)],
) -> (Server, reqwest::blocking::Client) {
    let accounts = if mode.login == Login::None { "none" } else { "token" };
    let tls = if mode.tls.is_some() { "self_signed" } else { "off" };
    let environment = [&[("PANTRY_AUTH_MODE", accounts), ("PANTRY_TLS_MODE", tls)], settings].concat();
    let server = Server::start_on(&folder.path().join("root"), &environment);
    let mut client = reqwest::blocking::Client::builder().no_proxy().timeout(PATIENCE);
    if let Some(version) = mode.tls {
        let ca = std::fs::read(server.root.join("ca.pem")).unwrap();
        client = client.tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()]);
        if version == Version::HTTP_11 {
            client = client.http1_only();
        }
    }
    (server, client.build().unwrap())
}

impl Registry {
    pub fn new(mode: Mode) -> Self {
        let folder = fresh_root();
        let (server, client) = start(&folder, mode, &[]);
        if mode.login != Login::None {
            let add = ["user", "add", "walker", "--password-stdin"];
            let added = piped(&server, &add, format!("{PASSWORD}\n").as_bytes());
            assert!(added.status.success(), "{}", show(&added));
            let granted = server.pantry(&["grant", "add", "user:walker", "*", "pull,push,delete"]);
            assert!(granted.status.success(), "{}", show(&granted));
        }
        let (tokens, found) = (Mutex::default(), Mutex::default());
        Self { mode, server, client, tokens, found, turn: 0, folder }
    }

    /// A repository of this walk.
    pub fn client(&self, repository: &str) -> Client<'_> {
        let repository = match (self.turn, repository.split_once('/')) {
            (0, _) | (_, None) => repository.to_owned(),
            (turn, Some((root, rest))) => format!("{root}/turn{turn}/{rest}"),
        };
        Client { registry: self, repository }
    }

    /// The next walk finds its repositories empty.
    pub fn turn_over(&mut self) {
        self.turn += 1;
    }

    pub fn request(&self, method: Method, url: Url) -> Request<'_> {
        Request { registry: self, builder: self.client.request(method, url) }
    }

    pub fn ask(&self, method: Method, path: &str) -> Request<'_> {
        self.request(method, Url::parse(&format!("{}{path}", self.server.url)).unwrap())
    }

    /// Gives `local` these settings and no others.
    pub fn set(&self, settings: &Value) {
        let url = format!("{}/v1/repositories/local", self.server.url);
        let put = self.client.put(url).bearer_auth(self.server.token()).json(settings).send().unwrap();
        assert!(put.status().is_success(), "{}", put.text().unwrap());
    }

    /// Ends the server as an operator does, and starts it again.
    pub fn restart_with(&mut self, environment: &[(&str, &str)]) {
        self.server.stop();
        (self.server, self.client) = start(&self.folder, self.mode, environment);
    }

    /// Kills the server, and starts it again.
    pub fn kill(&mut self) {
        self.server.kill();
        (self.server, self.client) = start(&self.folder, self.mode, &[]);
    }

    /// Everything that was there is there after a kill, to the byte, and what was pushed at the last moment too.
    pub fn forgets_nothing_when_killed(&mut self) {
        let mut before = self.holdings();
        assert!(before.len() > 100, "the walk has left {} things", before.len());
        let (name, document) = {
            let client = self.client("local/last");
            let document = client.image(Algorithm::Sha256);
            let bytes = document.to_string().into_bytes();
            assert_eq!(client.put_manifest("v1", IMAGE, &bytes).status(), 201);
            (digest(&bytes), bytes)
        };
        self.kill();
        let client = self.client("local/last");
        client.holds_manifest("v1", &name, IMAGE, &document);
        let image: Value = serde_json::from_slice(&document).unwrap();
        for part in [&image["config"], &image["layers"][0]] {
            let answer = client.get(&format!("blobs/{}", part["digest"].as_str().unwrap()));
            assert_eq!(answer.status(), 200);
            assert_eq!(digest(&answer.bytes().unwrap()), part["digest"].as_str().unwrap());
        }
        let mut after = self.holdings();
        for all in [&mut before, &mut after] {
            all.retain(|path, _| !path.contains("/last/") && !path.contains("_catalog"));
        }
        let lost: Vec<_> = before.iter().filter(|(path, answer)| after.get(*path) != Some(answer)).collect();
        assert!(lost.is_empty(), "changed by a kill: {lost:#?}");
    }

    /// What is there of all that was ever found: status, type, name and content of each answer.
    fn holdings(&self) -> BTreeMap<String, (u16, String, String, String)> {
        let found = self.found.lock().unwrap().clone();
        found
            .into_iter()
            .map(|path| {
                let answer = self.ask(Method::GET, &path).send().unwrap();
                let word = |name| super::header(&answer, name).to_owned();
                let (kind, name) = (word("content-type"), word("docker-content-digest"));
                let status = answer.status().as_u16();
                assert!([200, 404].contains(&status), "{path}: {status} {}", code(answer));
                let bytes = answer.bytes().unwrap();
                let algorithm =
                    if name.starts_with("sha512:") { Algorithm::Sha512 } else { Algorithm::Sha256 };
                // What is not there is said with the number of the request.
                let content = if status == 200 { algorithm.of(&bytes) } else { String::new() };
                assert!(name.is_empty() || name == content, "{path} is not its digest");
                (path, (status, kind, name, content))
            })
            .collect()
    }

    /// Sends it; asked for credentials, sends it again with them.
    fn send(&self, mut request: reqwest::blocking::Request) -> reqwest::Result<Response> {
        if self.mode.login != Login::Tokens {
            if self.mode.login == Login::Basic {
                let pair = base64(&format!("walker:{PASSWORD}"));
                request.headers_mut().insert(header::AUTHORIZATION, format!("Basic {pair}").parse().unwrap());
            }
            return self.client.execute(request);
        }
        let key = use_of(&request);
        let again = request.try_clone();
        let known = self.tokens.lock().unwrap().get(&key).cloned();
        if let Some(token) = known {
            request.headers_mut().insert(header::AUTHORIZATION, token.parse().unwrap());
        }
        let answer = self.client.execute(request)?;
        let (401, Some(mut again)) = (answer.status().as_u16(), again) else { return Ok(answer) };
        let token = self.log_in(&answer);
        again.headers_mut().insert(header::AUTHORIZATION, token.parse().unwrap());
        self.tokens.lock().unwrap().insert(key, token);
        self.client.execute(again)
    }

    /// Fetches what a challenge asks for.
    fn log_in(&self, challenged: &Response) -> String {
        let challenge = super::header(challenged, "www-authenticate");
        let word = |name: &str| {
            let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
            Some(rest.split_once('"')?.0)
        };
        assert!(challenge.starts_with("Bearer "), "{challenge}");
        let mut asked = Url::parse(word("realm").unwrap()).unwrap();
        asked.query_pairs_mut().append_pair("service", word("service").unwrap());
        if let Some(scope) = word("scope") {
            asked.query_pairs_mut().append_pair("scope", scope);
        }
        let answer = self.client.get(asked).basic_auth("walker", Some(PASSWORD)).send().unwrap();
        assert_eq!(answer.status(), 200);
        let made: Value = answer.json().unwrap();
        format!("Bearer {}", made["token"].as_str().unwrap())
    }
}

/// For what a client keeps a token: a repository, and whether it reads, writes or deletes there.
fn use_of(request: &reqwest::blocking::Request) -> String {
    let path = request.url().path();
    let ends = ["/blobs/", "/manifests/", "/tags/", "/referrers/"];
    let end = ends.iter().filter_map(|end| path.find(end)).min().unwrap_or(path.len());
    let kind = match request.method().as_str() {
        "GET" | "HEAD" => "pull",
        "POST" | "PATCH" | "PUT" => "push",
        other => other,
    };
    format!("{}:{kind}", &path[..end])
}

/// A request of whoever asks in this mode.
pub struct Request<'a> {
    registry: &'a Registry,
    builder: reqwest::blocking::RequestBuilder,
}

impl Request<'_> {
    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.builder = self.builder.header(name, value.as_ref());
        self
    }

    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.builder = self.builder.body(body);
        self
    }

    pub fn send(self) -> reqwest::Result<Response> {
        let request = self.builder.build()?;
        let url = request.url();
        let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
        let path = format!("{}{query}", url.path());
        let reads = [Method::GET, Method::HEAD].contains(request.method()) && !path.contains("/uploads/");
        let answer = self.registry.send(request)?;
        let version = self.registry.mode.tls.unwrap_or(Version::HTTP_11);
        assert_eq!(answer.version(), version);
        if reads && answer.status() == 200 {
            self.registry.found.lock().unwrap().insert(path);
        }
        Ok(answer)
    }
}

fn base64(text: &str) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(text)
}
