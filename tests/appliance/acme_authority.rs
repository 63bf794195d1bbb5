//! A stand-in for an authority that speaks ACME (RFC 8555): it checks signatures, nonces and addresses, looks for its
//! proof on the port of the server under test (RFC 8737), and signs.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData, SignatureAlgorithm};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::wire;

/// The head of the acmeIdentifier extension, critical, before the digest (RFC 8737, section 3).
const IDENTIFIER: &[u8] = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x1f\x01\x01\xff\x04\x22\x04\x20";

/// The authority; it ends with this.
pub struct Authority {
    shared: Arc<Shared>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

struct Shared {
    address: SocketAddr,
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    down: AtomicBool,
    asked: AtomicUsize,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    nonces: HashSet<String>,
    count: usize,
    /// Public keys by account address.
    accounts: HashMap<String, Value>,
    accounts_made: usize,
    orders: Vec<Order>,
    /// Where proofs are looked for.
    target: Option<SocketAddr>,
    /// From when to when certificates are good, in seconds from now.
    good: (i64, i64),
}

struct Order {
    names: Vec<String>,
    /// A problem each name, `None` while it is not yet looked at.
    looked: Vec<Option<Result<(), String>>>,
    certificate: Option<String>,
}

impl Order {
    fn status(&self) -> &'static str {
        if self.certificate.is_some() {
            "valid"
        } else if self.looked.iter().any(|looked| matches!(looked, Some(Err(_)))) {
            "invalid"
        } else if self.looked.iter().all(|looked| matches!(looked, Some(Ok(())))) {
            "ready"
        } else {
            "pending"
        }
    }
}

type Answer = (u16, Value, Vec<(&'static str, String)>);

impl Authority {
    pub fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let own_key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let own = own.signed_by(&own_key, &issuer).unwrap();
        let private = rustls_pki_types::PrivateKeyDer::Pkcs8(own_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], private)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let books = Books { good: (-3_600, 86_400), ..Books::default() };
        let shared = Arc::new(Shared {
            address: listener.local_addr().unwrap(),
            issuer,
            root_pem,
            down: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
            books: Mutex::new(books),
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let serving = shared.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                tokio::select! {
                    () = serve(serving, listener, Arc::new(tls)) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { shared, _stop: stop }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.shared.books.lock().unwrap()
    }

    pub fn directory(&self) -> String {
        self.shared.url("/directory")
    }

    /// What its certificates are trusted by, its own included.
    pub fn root_pem(&self) -> &str {
        &self.shared.root_pem
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Whether connections are dropped as they come.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }

    /// Proofs are looked for there.
    pub fn look_at(&self, target: SocketAddr) {
        self.books().target = Some(target);
    }

    /// Certificates are good from then to then, in seconds from their signing.
    pub fn sign_for(&self, from: i64, to: i64) {
        self.books().good = (from, to);
    }

    pub fn forget_accounts(&self) {
        self.books().accounts.clear();
    }

    /// Connections that came.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Accounts made, orders, and those of them that came to a certificate.
    pub fn made(&self) -> (usize, usize, usize) {
        let books = self.books();
        let signed = books.orders.iter().filter(|order| order.certificate.is_some()).count();
        (books.accounts_made, books.orders.len(), signed)
    }
}

async fn serve(shared: Arc<Shared>, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        shared.asked.fetch_add(1, Ordering::SeqCst);
        if shared.down.load(Ordering::SeqCst) {
            continue;
        }
        let (shared, acceptor) = (shared.clone(), acceptor.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let answer = service_fn(move |request| answer(shared.clone(), request));
            let io = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await;
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let (status, content, headers) = shared.route(&method, &path, &body);
    let nonce = shared.books.lock().unwrap().nonce();
    let mut response = Response::builder().status(status).header("Replay-Nonce", nonce);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    let content = match content {
        Value::String(text) => text,
        content => content.to_string(),
    };
    Ok(response.body(Full::new(content.into())).unwrap())
}

fn problem(status: u16, kind: &str, detail: &str) -> Answer {
    (status, json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail }), Vec::new())
}

fn decode(text: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text.as_str().unwrap_or("!")).unwrap_or_default()
}

impl Books {
    fn nonce(&mut self) -> String {
        self.count += 1;
        let nonce = format!("nonce-{}", self.count);
        self.nonces.insert(nonce.clone());
        nonce
    }
}

impl Shared {
    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    fn route(self: &Arc<Self>, method: &Method, path: &str, body: &[u8]) -> Answer {
        match (method, path) {
            (&Method::GET, "/directory") => {
                let directory = json!({
                    "newNonce": self.url("/nonce"), "newAccount": self.url("/new-account"),
                    "newOrder": self.url("/new-order"),
                });
                return (200, directory, Vec::new());
            }
            (&Method::HEAD, "/nonce") => return (200, json!(""), Vec::new()),
            (&Method::POST, _) => {}
            _ => return problem(405, "malformed", "no such address"),
        }
        let jws: Value = serde_json::from_slice(body).unwrap_or_default();
        let header: Value = serde_json::from_slice(&decode(&jws["protected"])).unwrap_or_default();
        let payload: Value = serde_json::from_slice(&decode(&jws["payload"])).unwrap_or_default();
        let nonce = header["nonce"].as_str().unwrap_or_default();
        if !self.books.lock().unwrap().nonces.remove(nonce) {
            return problem(400, "badNonce", "the nonce is not one of ours, or was used");
        }
        if header["url"] != self.url(path).as_str() || header["alg"] != "ES256" {
            return problem(401, "unauthorized", "signed for another address, or in another way");
        }
        let kid = header["kid"].as_str().unwrap_or_default().to_owned();
        let key = match path {
            "/new-account" => Some(header["jwk"].clone()),
            _ => self.books.lock().unwrap().accounts.get(&kid).cloned(),
        };
        let Some(key) = key else { return problem(400, "accountDoesNotExist", "no such account") };
        let coordinate = |name: &str| key[name].as_str().unwrap_or_default();
        let public = jsonwebtoken::DecodingKey::from_ec_components(coordinate("x"), coordinate("y")).unwrap();
        let text = |name: &str| jws[name].as_str().unwrap_or_default();
        let signed = format!("{}.{}", text("protected"), text("payload"));
        let algorithm = jsonwebtoken::Algorithm::ES256;
        let good = jsonwebtoken::crypto::verify(text("signature"), signed.as_bytes(), &public, algorithm);
        if !matches!(good, Ok(true)) {
            return problem(401, "unauthorized", "the signature is not that of the account");
        }
        self.signed(path, &payload, &key)
    }

    fn signed(self: &Arc<Self>, path: &str, payload: &Value, key: &Value) -> Answer {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let number =
            |at: usize| parts.get(at).and_then(|part| part.parse::<usize>().ok()).unwrap_or(usize::MAX);
        let mut books = self.books.lock().unwrap();
        match parts[0] {
            "new-account" => {
                assert_eq!(payload["termsOfServiceAgreed"], true);
                assert_eq!(payload["contact"], json!(["mailto:keeper@registry.example"]));
                books.accounts_made += 1;
                let account = self.url(&format!("/account/{}", books.accounts_made));
                books.accounts.insert(account.clone(), key.clone());
                (201, json!({ "status": "valid" }), vec![("Location", account)])
            }
            "new-order" => {
                let names: Vec<String> = payload["identifiers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|identifier| identifier["value"].as_str().unwrap().to_owned())
                    .collect();
                let looked = names.iter().map(|_| None).collect();
                books.orders.push(Order { names, looked, certificate: None });
                let at = books.orders.len() - 1;
                let location = self.url(&format!("/order/{at}"));
                (201, self.order(at, &books.orders[at]), vec![("Location", location)])
            }
            "order" if books.orders.len() > number(1) => {
                (200, self.order(number(1), &books.orders[number(1)]), Vec::new())
            }
            "authorization" => (200, self.authorization(number(1), number(2), &books), Vec::new()),
            "challenge" => {
                let (order, at, key) = (number(1), number(2), key.clone());
                let shared = self.clone();
                // As a real one does: the answer comes first, the look later.
                std::thread::spawn(move || shared.look(order, at, &key));
                (200, self.authorization(number(1), number(2), &books)["challenges"][1].clone(), Vec::new())
            }
            "finalize" if books.orders[number(1)].status() == "ready" => {
                let certificate = self.sign(&decode(&payload["csr"]), &books, number(1));
                books.orders[number(1)].certificate = Some(certificate);
                (200, self.order(number(1), &books.orders[number(1)]), Vec::new())
            }
            "certificate" => {
                let certificate = books.orders[number(1)].certificate.clone().unwrap();
                (
                    200,
                    Value::String(certificate),
                    vec![("Content-Type", "application/pem-certificate-chain".into())],
                )
            }
            _ => problem(403, "orderNotReady", "not now"),
        }
    }

    fn order(&self, at: usize, order: &Order) -> Value {
        let authorizations: Vec<String> =
            (0..order.names.len()).map(|name| self.url(&format!("/authorization/{at}/{name}"))).collect();
        let mut shown = json!({
            "status": order.status(), "authorizations": authorizations,
            "finalize": self.url(&format!("/finalize/{at}")),
        });
        if order.certificate.is_some() {
            shown["certificate"] = json!(self.url(&format!("/certificate/{at}")));
        }
        shown
    }

    fn authorization(&self, order: usize, at: usize, books: &Books) -> Value {
        let entry = &books.orders[order];
        let (status, error) = match &entry.looked[at] {
            None => ("pending", Value::Null),
            Some(Ok(())) => ("valid", Value::Null),
            Some(Err(why)) => ("invalid", problem(400, "tls", why).1),
        };
        let challenge = |kind: &str| {
            json!({
                "type": kind, "status": status, "token": token(order, at), "error": error,
                "url": self.url(&format!("/challenge/{order}/{at}/{kind}")),
            })
        };
        json!({
            "identifier": { "type": "dns", "value": entry.names[at] }, "status": status,
            "challenges": [challenge("http-01"), challenge("tls-alpn-01")],
        })
    }

    /// Looks for the proof of a name.
    fn look(&self, order: usize, at: usize, key: &Value) {
        let name = self.books.lock().unwrap().orders[order].names[at].clone();
        let target = loop {
            if let Some(target) = self.books.lock().unwrap().target {
                break target;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let thumb =
            format!(r#"{{"crv":{},"kty":{},"x":{},"y":{}}}"#, key["crv"], key["kty"], key["x"], key["y"]);
        let thumb = URL_SAFE_NO_PAD.encode(Sha256::digest(thumb));
        let expected = Sha256::digest(format!("{}.{thumb}", token(order, at)));
        let looked = proof(target, &name, &expected);
        self.books.lock().unwrap().orders[order].looked[at] = Some(looked);
    }

    fn sign(&self, csr: &[u8], books: &Books, order: usize) -> String {
        struct Public(Vec<u8>);
        impl PublicKeyData for Public {
            fn der_bytes(&self) -> &[u8] {
                &self.0
            }
            fn algorithm(&self) -> &'static SignatureAlgorithm {
                &rcgen::PKCS_ECDSA_P256_SHA256
            }
        }
        let names = books.orders[order].names.clone();
        for name in &names {
            assert!(contains(csr, name.as_bytes()), "the request is not for {name}");
        }
        // A bit string of a point of P-256, uncompressed.
        let head = b"\x03\x42\x00\x04";
        let at = csr.windows(4).position(|window| window == head).unwrap() + 3;
        let mut params = CertificateParams::new(names).unwrap();
        let now = SystemTime::now();
        let instant = |seconds: i64| {
            let span = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { now - span } else { now + span }
        };
        (params.not_before, params.not_after) = (instant(books.good.0).into(), instant(books.good.1).into());
        let leaf = params.signed_by(&Public(csr[at..at + 65].to_vec()), &self.issuer).unwrap();
        format!("{}{}", leaf.pem(), self.root_pem)
    }
}

fn token(order: usize, at: usize) -> String {
    format!("token-of-order-{order}-name-{at}")
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Connects as RFC 8737 says and looks into the certificate.
fn proof(target: SocketAddr, name: &str, digest: &[u8]) -> Result<(), String> {
    let stream = TcpStream::connect(target).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let shown = wire::unverified(stream, name, &[b"acme-tls/1"]);
    let mut stream = shown.map_err(|error| error.to_string())?;
    if stream.conn.alpn_protocol() != Some(b"acme-tls/1") {
        return Err("acme-tls/1 was not agreed on".to_owned());
    }
    let certificate = stream.conn.peer_certificates().unwrap()[0].to_vec();
    let _ = stream.flush();
    assert!(!matches!(stream.read(&mut [0_u8; 1]), Ok(1..)), "nothing is said after the proof");
    if !contains(&certificate, &[IDENTIFIER, digest].concat()) {
        return Err("the certificate does not hold the digest".to_owned());
    }
    if contains(&certificate, name.as_bytes()) { Ok(()) } else { Err("another name".to_owned()) }
}
