//! What a program asks the proxy for.
//!
//! *Source*: RFC 9110 (`CONNECT`, 9.3.6; fields of one connection, 7.6.1), RFC 9112 (request target, 3.2; message body,
//! 6). Read strictly: what two readers could read differently is refused.

use super::host::Host;

/// Fields that concern one connection only, or the proxy alone.
const OF_ONE_CONNECTION: &[&str] = &[
    "connection",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "host",
    "expect",
];

/// A request that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A tunnel.
    Connect,
    /// One exchange over plain HTTP.
    Plain {
        method: String,
        /// Path and query.
        path: String,
        /// The fields that go on, as lines with their ends.
        fields: Vec<u8>,
        /// Bytes of the body.
        length: u64,
    },
}

/// A request that is answered with a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) status: u16,
    pub(super) why: &'static str,
}

fn bad(why: &'static str) -> Bad {
    Bad { status: 400, why }
}

/// Where the head ends that these bytes begin with, behind its empty line.
pub(super) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// Reads a head, up to and with its empty line.
pub(super) fn parse(head: &[u8]) -> Result<Request, Bad> {
    let head = head.strip_suffix(b"\r\n\r\n").ok_or_else(|| bad("the head has no end"))?;
    let head = std::str::from_utf8(head).map_err(|_| bad("the head is no text"))?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad("the first line is no request"));
    };
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") || !is_token(method) {
        return Err(bad("the first line is no request of HTTP/1.1"));
    }
    let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
    if method == "CONNECT" {
        let (host, port) = authority(target, None).ok_or_else(|| bad("CONNECT needs a host and a port"))?;
        return Ok(Request { host, port, kind: Kind::Connect });
    }
    let Some(rest) = strip_scheme(target, "http://") else {
        return Err(bad(if strip_scheme(target, "https://").is_some() {
            "https goes through CONNECT"
        } else {
            "this is a proxy: name the whole address"
        }));
    };
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority_part, path) = rest.split_at(at);
    let (host, port) = authority(authority_part, Some(80)).ok_or_else(|| bad("the host can't be read"))?;
    if path.contains('#') || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad("the path can't be read"));
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let length = length(&fields)?;
    let listed = listed(&fields);
    let mut kept = Vec::new();
    for (name, value) in &fields {
        let lower = name.to_ascii_lowercase();
        if !OF_ONE_CONNECTION.contains(&lower.as_str()) && !listed.contains(&lower) {
            kept.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
    }
    Ok(Request { host, port, kind: Kind::Plain { method: method.to_owned(), path, fields: kept, length } })
}

fn strip_scheme<'a>(target: &'a str, scheme: &str) -> Option<&'a str> {
    let head = target.get(..scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| &target[scheme.len()..])
}

/// A host and its port, without credentials.
pub(super) fn authority(text: &str, default: Option<u16>) -> Option<(Host, u16)> {
    let colon = text.rfind(':').filter(|colon| !text[*colon..].contains(']'));
    let (host, port) = match colon {
        Some(colon) => {
            let digits = &text[colon + 1..];
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            (&text[..colon], plain.then(|| digits.parse().ok()).flatten()?)
        }
        None => (text, default?),
    };
    // Without brackets the last colon could be part of an address.
    let host = Host::parse(host).filter(|_| !host.contains(':') || host.starts_with('['))?;
    (port != 0).then_some((host, port))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn field(line: &str) -> Result<(&str, &str), Bad> {
    let (name, value) = line.split_once(':').ok_or_else(|| bad("a header has no name"))?;
    let value = value.trim_matches([' ', '\t']);
    let readable = value.chars().all(|c| c == '\t' || !c.is_control());
    if is_token(name) && readable { Ok((name, value)) } else { Err(bad("a header can't be read")) }
}

/// Bytes of the body.
fn length(fields: &[(&str, &str)]) -> Result<u64, Bad> {
    let values = |wanted: &'static str| {
        fields.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value)
    };
    if values("transfer-encoding").next().is_some() {
        return Err(Bad { status: 411, why: "a body needs its length" });
    }
    let mut lengths = values("content-length");
    let Some(first) = lengths.next() else { return Ok(0) };
    let digits = !first.is_empty() && first.bytes().all(|b| b.is_ascii_digit());
    match first.parse() {
        Ok(length) if digits && lengths.next().is_none() => Ok(length),
        _ => Err(bad("the body's length can't be read")),
    }
}

/// The fields that `Connection` names, in lower case.
fn listed(fields: &[(&str, &str)]) -> Vec<String> {
    fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("connection"))
        .flat_map(|(_, value)| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        // Without its length the body's end would be unclear.
        .filter(|name| name != "content-length")
        .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn host(text: &str) -> Host {
        Host::parse(text).expect("a host")
    }

    #[test]
    fn a_tunnel_is_asked_for_by_host_and_port() {
        let read = parse(b"CONNECT Example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n").expect("read");
        assert_eq!(read, Request { host: host("example.org"), port: 443, kind: Kind::Connect });
        let read = parse(b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\n\r\n").expect("read");
        assert_eq!((read.host, read.port), (host("2001:db8::1"), 8443));
    }

    #[test]
    fn what_concerns_one_connection_stays_behind() {
        let head = b"GET http://a.example:81?x=1 HTTP/1.1\r\nHost: other.example\r\nAccept: */*\r\nX-Hop: 1\r\n\
            Connection: keep-alive, X-Hop\r\nProxy-Authorization: secret\r\nProxy-Connection: keep-alive\r\n\r\n";
        let read = parse(head).expect("read");
        assert_eq!((read.host, read.port), (host("a.example"), 81));
        let fields = b"Accept: */*\r\n".to_vec();
        assert_eq!(
            read.kind,
            Kind::Plain { method: "GET".to_owned(), path: "/?x=1".to_owned(), fields, length: 0 }
        );
    }

    #[rstest]
    #[case::length("POST http://a.example/ HTTP/1.1\r\nContent-Length: 5\r\n\r\n", Ok(5))]
    #[case::kept(
        "POST http://a.example/ HTTP/1.1\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\n",
        Ok(5)
    )]
    #[case::chunks("POST http://a.example/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", Err(411))]
    #[case::two(
        "POST http://a.example/ HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        Err(400)
    )]
    #[case::signed("POST http://a.example/ HTTP/1.1\r\nContent-Length: +5\r\n\r\n", Err(400))]
    #[case::list("POST http://a.example/ HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n", Err(400))]
    #[case::huge("POST http://a.example/ HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", Err(400))]
    #[case::origin("GET /simple/ HTTP/1.1\r\nHost: a.example\r\n\r\n", Err(400))]
    #[case::https("GET https://a.example/ HTTP/1.1\r\n\r\n", Err(400))]
    #[case::credentials("GET http://u:p@a.example/ HTTP/1.1\r\n\r\n", Err(400))]
    #[case::no_port("CONNECT a.example HTTP/1.1\r\n\r\n", Err(400))]
    #[case::port_zero("CONNECT a.example:0 HTTP/1.1\r\n\r\n", Err(400))]
    #[case::port_large("CONNECT a.example:65536 HTTP/1.1\r\n\r\n", Err(400))]
    #[case::port_signed("CONNECT a.example:+443 HTTP/1.1\r\n\r\n", Err(400))]
    #[case::bare_address("CONNECT ::1:443 HTTP/1.1\r\n\r\n", Err(400))]
    #[case::number("CONNECT 2130706433:443 HTTP/1.1\r\n\r\n", Err(400))]
    #[case::nothing("\r\n\r\n", Err(400))]
    #[case::version("CONNECT a.example:443 HTTP/2.0\r\n\r\n", Err(400))]
    #[case::fold("GET http://a.example/ HTTP/1.1\r\nA: b\r\n c: d\r\n\r\n", Err(400))]
    #[case::bare_newline("GET http://a.example/ HTTP/1.1\r\nA: b\nHost: c\r\n\r\n", Err(400))]
    #[case::bare_return("GET http://a.example/ HTTP/1.1\r\nA: b\rHost: c\r\n\r\n", Err(400))]
    #[case::name_with_space("GET http://a.example/ HTTP/1.1\r\nA : b\r\n\r\n", Err(400))]
    #[case::fragment("GET http://a.example/#x HTTP/1.1\r\n\r\n", Err(400))]
    #[case::three_spaces("GET http://a.example/ b HTTP/1.1\r\n\r\n", Err(400))]
    fn what_is_unclear_is_refused(#[case] head: &str, #[case] expected: Result<u64, u16>) {
        let read = parse(head.as_bytes()).map(|request| match request.kind {
            Kind::Plain { length, .. } => length,
            Kind::Connect => 0,
        });
        assert_eq!(read.map_err(|bad| bad.status), expected);
    }
}
