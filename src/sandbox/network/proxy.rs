//! The proxy: one connection of a program, from its request to its end.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::Shutdown;

use super::super::cancel::Cancel;
use super::contact::{ContactVerdict, Contacts};
use super::host::Host;
use super::io::{self, Halt};
use super::lookup::{self, Unknown};
use super::relay::{self, Budget, Upload};
use super::request::{self, Kind, Request};
use super::upstream::{Upstream, UpstreamProxy};
use super::{AllowedHost, address};

/// Most bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// For a program to send it.
const HEAD_TIME: Duration = Duration::from_secs(10);
const LOOKUP_TIME: Duration = Duration::from_secs(10);
/// For each address, of which so many are tried.
const CONNECT_TIME: Duration = Duration::from_secs(5);
const MOST_TRIES: usize = 4;
/// For an upstream proxy to answer.
const UPSTREAM_TIME: Duration = Duration::from_secs(30);
/// For a program to take the answer that refuses it.
const FAREWELL_TIME: Duration = Duration::from_secs(1);
/// Most bytes that a proxy carries for a run, both ways together.
const MOST_BYTES: u64 = 2 << 30;
/// Most names whose addresses are kept.
const MOST_NAMES: usize = 256;

/// A proxy of one run.
#[derive(Debug)]
pub(super) struct Proxy {
    allow: Vec<AllowedHost>,
    upstream: Upstream,
    contacts: Arc<Contacts>,
    budget: Budget,
    /// What names have led to: for this run they lead nowhere else.
    known: Mutex<BTreeMap<String, Vec<IpAddr>>>,
}

/// Why a request is not served.
#[derive(Debug)]
enum Refusal {
    /// The policy forbids it: 403.
    Forbidden(String),
    /// It is allowed and can't be done: 502.
    Failed(String),
    /// The run ends, or the program is gone: nobody hears an answer.
    Over,
}

fn halted(halt: Halt, doing: &str) -> Refusal {
    match halt {
        Halt::Stopped => Refusal::Over,
        Halt::Late => Refusal::Failed(format!("{doing}: it took too long")),
        Halt::Failed(errno) => Refusal::Failed(format!("{doing}: {errno}")),
    }
}

impl Proxy {
    pub(super) fn new(allow: Vec<AllowedHost>, upstream: Upstream, contacts: Arc<Contacts>) -> Self {
        Self { allow, upstream, contacts, budget: Budget::new(MOST_BYTES), known: Mutex::default() }
    }

    /// Serves one connection.
    pub(super) fn serve(&self, program: &OwnedFd, stop: &Cancel) {
        let Ok((head, rest)) = read_head(program, stop, Instant::now() + HEAD_TIME) else {
            answer(program, 400, "the request's head is too long, or did not come in time", stop);
            return;
        };
        let request = match request::parse(&head) {
            Ok(request) => request,
            Err(bad) => return answer(program, bad.status, bad.why, stop),
        };
        let (host, port) = (&request.host, request.port);
        let (verdict, status, why) = match self.open(&request, stop) {
            Ok((peer, first, sent)) => {
                self.contacts.note(host, port, ContactVerdict::Reached, "");
                let carried = carry(program, &peer, &request.kind, (&first, &rest), &self.budget, stop);
                self.contacts.count(host, port, sent + carried.sent, carried.received);
                return;
            }
            Err(Refusal::Over) => return,
            Err(Refusal::Forbidden(why)) => (ContactVerdict::Refused, 403, why),
            Err(Refusal::Failed(why)) => (ContactVerdict::Failed, 502, why),
        };
        self.contacts.note(host, port, verdict, &why);
        answer(program, status, &format!("{host}:{port}: {why}"), stop);
    }

    /// Connects to where a request leads; gives the socket, what came over it already for the program, and how much
    /// went over it.
    fn open(&self, request: &Request, stop: &Cancel) -> Result<(OwnedFd, Vec<u8>, u64), Refusal> {
        let (host, port) = (&request.host, request.port);
        let private = self.allowed(host, port)?;
        if let Host::Address(address) = host {
            address::check(*address, private).map_err(|what| Refusal::Forbidden(format!("it is {what}")))?;
        }
        let tunnel = request.kind == Kind::Connect;
        if let Some(upstream) = self.upstream.of(tunnel, host, port) {
            return through(upstream, request, stop);
        }
        let addresses = self.addresses(host, private, stop)?;
        let peer = connect(&addresses, port, stop)?;
        let sent = match &request.kind {
            Kind::Connect => 0,
            Kind::Plain { .. } => {
                let head = plain_head(request, None);
                io::write(&peer, &head, Instant::now() + HEAD_TIME, stop)
                    .map_err(|halt| halted(halt, "send the request"))?;
                head.len() as u64
            }
        };
        let first = if tunnel { ESTABLISHED.to_vec() } else { Vec::new() };
        Ok((peer, first, sent))
    }

    /// Whether a host is allowed; if so, whether it may be a private one.
    fn allowed(&self, host: &Host, port: u16) -> Result<bool, Refusal> {
        let named: Vec<&AllowedHost> =
            self.allow.iter().filter(|allowed| allowed.host.matches(host)).collect();
        let mut fitting = named.iter().filter(|allowed| allowed.port == port).peekable();
        if fitting.peek().is_none() {
            let what = if named.is_empty() { "the host" } else { "this port of the host" };
            return Err(Refusal::Forbidden(format!("{what} is not among those that this run may reach")));
        }
        // Several entries may fit; none of them takes back what another gives.
        Ok(fitting.any(|allowed| allowed.private))
    }

    /// The addresses of a host, all of them checked.
    fn addresses(&self, host: &Host, private: bool, stop: &Cancel) -> Result<Vec<IpAddr>, Refusal> {
        let name = match host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let addresses = if let Some(addresses) = known { addresses } else { self.look_up(name, stop)? };
        // One that is forbidden taints the name: it is not for the program to choose among them.
        for address in &addresses {
            address::check(*address, private)
                .map_err(|what| Refusal::Forbidden(format!("the name leads to {what}")))?;
        }
        Ok(addresses)
    }

    /// The addresses of a name that was not looked up before.
    fn look_up(&self, name: &str, stop: &Cancel) -> Result<Vec<IpAddr>, Refusal> {
        let found =
            lookup::addresses(name, Instant::now() + LOOKUP_TIME, stop).map_err(|unknown| match unknown {
                Unknown::Stopped => Refusal::Over,
                Unknown::Because(why) => Refusal::Failed(format!("look up the name: {why}")),
            })?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_NAMES {
            return Ok(found);
        }
        // Whoever came first counts, so that the name leads to one place.
        Ok(known.entry(name.to_owned()).or_insert(found).clone())
    }
}

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

fn connect(addresses: &[IpAddr], port: u16, stop: &Cancel) -> Result<OwnedFd, Refusal> {
    let mut last = Refusal::Failed("the name has no address".to_owned());
    for address in addresses.iter().take(MOST_TRIES) {
        match io::connect(SocketAddr::new(*address, port), Instant::now() + CONNECT_TIME, stop) {
            Ok(peer) => return Ok(peer),
            Err(halt) => last = halted(halt, "connect"),
        }
        if matches!(last, Refusal::Over) {
            break;
        }
    }
    Err(last)
}

/// Connects by way of a proxy of the caller's.
fn through(
    upstream: &UpstreamProxy,
    request: &Request,
    stop: &Cancel,
) -> Result<(OwnedFd, Vec<u8>, u64), Refusal> {
    let addresses = match &upstream.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => {
            let found = lookup::addresses(name, Instant::now() + LOOKUP_TIME, stop);
            found.map_err(|unknown| match unknown {
                Unknown::Stopped => Refusal::Over,
                Unknown::Because(why) => Refusal::Failed(format!("look up the upstream proxy: {why}")),
            })?
        }
    };
    let peer = connect(&addresses, upstream.port, stop).map_err(|refusal| match refusal {
        Refusal::Failed(why) => Refusal::Failed(format!("the upstream proxy: {why}")),
        other => other,
    })?;
    let until = Instant::now() + UPSTREAM_TIME;
    let failed = |halt| halted(halt, "ask the upstream proxy");
    if let Kind::Plain { .. } = request.kind {
        let head = plain_head(request, Some(upstream));
        io::write(&peer, &head, until, stop).map_err(failed)?;
        return Ok((peer, Vec::new(), head.len() as u64));
    }
    let place = format!("{}:{}", request.host, request.port);
    let mut ask = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n");
    if let Some(authorization) = &upstream.authorization {
        ask.extend(["Proxy-Authorization: ", authorization, "\r\n"]);
    }
    ask.push_str("\r\n");
    io::write(&peer, ask.as_bytes(), until, stop).map_err(failed)?;
    let (head, rest) = read_head(&peer, stop, until).map_err(failed)?;
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    match status {
        Some(200..=299) if line.starts_with("HTTP/1.") => Ok((peer, [ESTABLISHED, &rest].concat(), 0)),
        Some(status) => Err(Refusal::Failed(format!("the upstream proxy answered {status}"))),
        None => Err(Refusal::Failed("the upstream proxy's answer can't be read".to_owned())),
    }
}

/// The head of a plain request as it goes on: to the server, or to an upstream proxy.
fn plain_head(request: &Request, upstream: Option<&UpstreamProxy>) -> Vec<u8> {
    let Kind::Plain { method, path, fields, .. } = &request.kind else { return Vec::new() };
    let host = match request.port {
        80 => request.host.to_string(),
        port => format!("{}:{port}", request.host),
    };
    let target = if upstream.is_some() { format!("http://{host}{path}") } else { path.clone() };
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
    head.extend_from_slice(fields);
    if let Some(authorization) = upstream.and_then(|upstream| upstream.authorization.as_ref()) {
        head.extend_from_slice(format!("Proxy-Authorization: {authorization}\r\n").as_bytes());
    }
    // One request a connection: the next one may be for another host, and is checked for itself.
    head.extend_from_slice(b"Connection: close\r\n\r\n");
    head
}

/// Carries what belongs to one request; `first` is what the program gets first, `rest` what it sent behind its head.
fn carry(
    program: &OwnedFd,
    peer: &OwnedFd,
    kind: &Kind,
    (first, rest): (&[u8], &[u8]),
    budget: &Budget,
    stop: &Cancel,
) -> relay::Carried {
    let until = Instant::now() + HEAD_TIME;
    let (rest, upload) = match kind {
        Kind::Connect => (rest, Upload::Any),
        Kind::Plain { length, .. } => {
            let most = usize::try_from(*length).unwrap_or(usize::MAX).min(rest.len());
            (&rest[..most], Upload::Body(length - most as u64))
        }
    };
    let begun = io::write(program, first, until, stop).and_then(|()| io::write(peer, rest, until, stop));
    if begun.is_err() || !budget.take(rest.len()) {
        return relay::Carried::default();
    }
    let carried = relay::carry(program, peer, upload, budget, stop);
    relay::Carried { sent: carried.sent + rest.len() as u64, ..carried }
}

/// Reads a head; gives it with its empty line, and what came behind it.
fn read_head(from: &OwnedFd, stop: &Cancel, until: Instant) -> Result<(Vec<u8>, Vec<u8>), Halt> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = io::read(from, &mut buffer, until, stop)?;
        if read == 0 {
            return Err(Halt::Failed(rustix::io::Errno::CONNRESET));
        }
        bytes.extend_from_slice(&buffer[..read]);
        if let Some(end) = request::end_of_head(&bytes) {
            let rest = bytes.split_off(end);
            if bytes.len() <= HEAD_BYTES {
                return Ok((bytes, rest));
            }
        }
        if bytes.len() > HEAD_BYTES {
            return Err(Halt::Failed(rustix::io::Errno::MSGSIZE));
        }
    }
}

/// Tells a program why not, and waits a moment until it has read that.
fn answer(program: &OwnedFd, status: u16, why: &str, stop: &Cancel) {
    let reason = match status {
        403 => "Forbidden",
        411 => "Length Required",
        502 => "Bad Gateway",
        _ => "Bad Request",
    };
    let text = format!("pantry: {why}\n");
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    let until = Instant::now() + FAREWELL_TIME;
    if io::write(program, answer.as_bytes(), until, stop).is_err() {
        return;
    }
    // Closed with bytes unread, the answer could be lost on the way.
    let _gone = rustix::net::shutdown(program, Shutdown::Write);
    let mut buffer = [0; 4096];
    for _ in 0..64 {
        if !matches!(io::read(program, &mut buffer, until, stop), Ok(1..)) {
            return;
        }
    }
}
