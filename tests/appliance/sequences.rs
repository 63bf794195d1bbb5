//! Clients that Debian has not, by their sequences of requests: the order, the headers, the forms of queries and the
//! way to a token are those that the programs were seen to send. What is asserted is what they rely on.
//!
//! Each page names the version that was watched. All of it happens in a repository that only its user may see, so that
//! each sequence has its challenge in it.

#[path = "sequences/containerd.rs"]
mod containerd;
#[path = "sequences/cosign.rs"]
mod cosign;
#[path = "sequences/crane.rs"]
mod crane;
#[path = "sequences/helm.rs"]
mod helm;
#[path = "sequences/oras.rs"]
mod oras;
#[path = "sequences/regctl.rs"]
mod regctl;

use base64::Engine as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::private::{PASSWORD, server};
use super::support::{Server, show};
use super::wire::{Way, Wire, connect};

/// Where all of it happens; `ada` may do everything in it, and nobody else anything.
const REPOSITORY: &str = "local/private";

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCTETS: (&str, &str) = ("Content-Type", "application/octet-stream");

/// A server on which `ada` may also delete, reached in that way.
fn private(way: Way) -> Server {
    let server = server(&[way.setting()]);
    let granted = server.pantry(&["grant", "add", "user:ada", REPOSITORY, "pull,push,delete"]);
    assert!(granted.status.success(), "{}", show(&granted));
    server
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Bytes that are nobody else's.
fn bytes(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(|_| next()).collect()
}

/// What follows the head of a request.
#[derive(Clone, Copy)]
enum Body<'a> {
    /// Nothing, and no word of it.
    Nothing,
    /// All at once, with its length.
    Whole(&'a [u8]),
    /// In chunks, without a length.
    Stream(&'a [u8]),
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// The value of a header that is there once.
    fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let (_, value) = found.next().unwrap_or_else(|| panic!("no {name} in {:?}", self.headers));
        assert!(found.next().is_none(), "{name} twice in {:?}", self.headers);
        value
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(key, _)| key == name)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of the one error that it tells, as JSON.
    fn code(&self) -> String {
        assert!(self.header("content-type").starts_with("application/json"), "{self:?}");
        self.json()["errors"][0]["code"].as_str().unwrap().to_owned()
    }
}

/// What a challenge names.
struct Challenge {
    realm: String,
    service: String,
    scope: Option<String>,
    error: Option<String>,
}

impl Challenge {
    fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 401, "{answer:?}");
        let text = answer.header("www-authenticate");
        let rest = text.strip_prefix("Bearer ").unwrap_or_else(|| panic!("{text}"));
        let value = |name: &str| {
            let (_, after) = rest.split_once(&format!("{name}=\""))?;
            after.split_once('"').map(|(value, _)| value.to_owned())
        };
        let (realm, service) = (value("realm").unwrap(), value("service").unwrap());
        Self { realm, service, scope: value("scope"), error: value("error") }
    }
}

/// A client that talks over one connection, as long as the server keeps it.
struct Client<'a> {
    server: &'a Server,
    agent: &'static str,
    wire: Option<Box<dyn Wire>>,
    /// What it shows with each request.
    authorization: Option<String>,
}

impl<'a> Client<'a> {
    fn new(server: &'a Server, agent: &'static str) -> Self {
        Self { server, agent, wire: None, authorization: None }
    }

    fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers, Body::Nothing)
    }

    fn head(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("HEAD", path, headers, Body::Nothing)
    }

    /// One request and its answer.
    fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: Body<'_>) -> Answer {
        let mut wire = self.wire.take().unwrap_or_else(|| connect(self.server));
        let sent = self.send(wire.as_mut(), method, target, headers, body);
        let answer = read_answer(wire.as_mut(), method == "HEAD");
        // A server may answer before it has read everything; then the answer counts.
        if !(sent.is_err() || answer.headers.contains(&("connection".to_owned(), "close".to_owned()))) {
            self.wire = Some(wire);
        }
        answer
    }

    fn send(
        &self,
        wire: &mut dyn Wire,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> std::io::Result<()> {
        let path = self.path(target);
        let more = self.authorization.iter().map(|value| ("Authorization", value.as_str()));
        let mut lines = vec![
            format!("{method} {path} HTTP/1.1"),
            "Host: localhost".to_owned(),
            format!("User-Agent: {}", self.agent),
        ];
        lines.extend(headers.iter().copied().chain(more).map(|(name, value)| format!("{name}: {value}")));
        lines.extend(match body {
            // Go's client says so for these methods also when nothing follows.
            Body::Nothing if matches!(method, "POST" | "PUT" | "PATCH") => {
                Some("Content-Length: 0".to_owned())
            }
            Body::Nothing => None,
            Body::Whole(bytes) => Some(format!("Content-Length: {}", bytes.len())),
            Body::Stream(_) => Some("Transfer-Encoding: chunked".to_owned()),
        });
        write!(wire, "{}\r\n\r\n", lines.join("\r\n"))?;
        match body {
            Body::Nothing => {}
            Body::Whole(bytes) => wire.write_all(bytes)?,
            Body::Stream(bytes) => {
                for piece in bytes.chunks(32 * 1024) {
                    write!(wire, "{:x}\r\n", piece.len())?;
                    wire.write_all(piece)?;
                    wire.write_all(b"\r\n")?;
                }
                wire.write_all(b"0\r\n\r\n")?;
            }
        }
        wire.flush()
    }

    /// The path and query of a target, which may be an address of this server as an answer gave it.
    fn path(&self, target: &str) -> String {
        if target.starts_with('/') {
            return target.to_owned();
        }
        let rest = target.split_once("://").unwrap_or_else(|| panic!("{target} is no address")).1;
        let (host, path) = rest.split_once('/').unwrap();
        assert!(host == "localhost" || host == self.server.address(), "{target} leads elsewhere");
        format!("/{path}")
    }

    /// Basic, as it stands in a header.
    fn basic() -> String {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("ada:{PASSWORD}"));
        format!("Basic {pair}")
    }

    /// Gets a token by GET, for these scopes or for that of the challenge, and shows it from now on.
    fn token_by_get(&mut self, challenge: &Challenge, query: &str) {
        let target = format!("{}?{query}", challenge.realm);
        self.authorization = None;
        let answer = self.get(&target, &[("Authorization", &Self::basic())]);
        self.take_token(&answer);
    }

    /// The same by a form.
    fn token_by_post(&mut self, challenge: &Challenge, form: &str) {
        self.authorization = None;
        let kind = ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8");
        let answer = self.ask("POST", &challenge.realm, &[kind], Body::Whole(form.as_bytes()));
        self.take_token(&answer);
    }

    fn take_token(&mut self, answer: &Answer) {
        assert_eq!(answer.status, 200, "{answer:?}");
        let body = answer.json();
        let token = body["token"].as_str().unwrap();
        assert_eq!(body["access_token"], token);
        // Clients that find less take sixty seconds.
        assert!(body["expires_in"].as_u64().unwrap() >= 60, "{body}");
        self.authorization = Some(format!("Bearer {token}"));
    }
}

/// A scope as it stands in a query.
fn scope(repository: &str, actions: &str) -> String {
    format!("repository:{repository}:{actions}").replace(':', "%3A").replace('/', "%2F").replace(',', "%2C")
}

/// Adds to whatever query a location has.
fn with_digest(location: &str, digest: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={}", digest.replace(':', "%3A"))
}

/// Reads the head of an answer, and what its head says that follows.
fn read_answer(wire: &mut dyn Wire, of_head: bool) -> Answer {
    let mut answer = read_head(wire);
    if of_head || matches!(answer.status, 204 | 304) {
        return answer;
    }
    assert!(!answer.has("transfer-encoding"), "bodies have a length: {answer:?}");
    let length: usize = answer.header("content-length").parse().unwrap();
    answer.body = vec![0; length];
    wire.read_exact(&mut answer.body).unwrap();
    answer
}

/// Reads a head, byte by byte, so that nothing is taken of what follows.
fn read_head(wire: &mut dyn Wire) -> Answer {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        wire.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} after {head:?}"));
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Answer { status, headers, body: Vec::new() }
}
