//! Refuses requests that a foreign web page made somebody's browser send.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, Method, header};

use super::challenge::Asked;
use super::connection::{Connection, MAX_HEADERS};
use super::errors::ApiError;
use crate::config::Config;

/// By which names this server may be called.
pub(super) struct Guard {
    /// Host names in lower case, without a port.
    names: Vec<String>,
    listen: IpAddr,
    /// `scheme://host[:port]` in lower case.
    public_origin: Option<String>,
    /// Where clients are sent for tokens.
    public_url: Option<String>,
}

impl Guard {
    pub(super) fn new(config: &Config) -> Self {
        let mut names: Vec<String> =
            config.allowed_hosts.iter().map(|name| name.to_ascii_lowercase()).collect();
        let public = config.public_url.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
        let public_origin = public.as_ref().and_then(|url| {
            let authority = url.authority()?;
            names.push(authority.host().to_ascii_lowercase());
            Some(format!("{}://{authority}", url.scheme_str()?).to_ascii_lowercase())
        });
        Self { names, listen: config.listen.ip(), public_origin, public_url: config.public_url.clone() }
    }

    /// Tells whether a `Host` names this server; `local` is the address that the connection came in on.
    fn knows(&self, authority: &str, local: Option<IpAddr>) -> bool {
        let Some(host) = host_of(authority) else { return false };
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // An address can't be bound anew to another machine as a name can, but it must be one of ours.
            let address = address.to_canonical();
            return address.is_loopback()
                || address == self.listen
                || local.is_some_and(|local| local.to_canonical() == address);
        }
        host.eq_ignore_ascii_case("localhost")
            || self.names.iter().any(|name| host.eq_ignore_ascii_case(name))
    }

    /// Tells whether an `Origin` is this very server, called by the name that the request calls it by.
    ///
    /// A page that came in the clear is none of a server that speaks TLS; one that came by TLS can be ours behind a
    /// proxy that ends it.
    fn is_ours(&self, origin: &str, authority: &str, tls: bool) -> bool {
        let origin = origin.to_ascii_lowercase();
        let same_host = origin
            .strip_prefix("https://")
            .or_else(|| origin.strip_prefix("http://").filter(|_| !tls))
            .is_some_and(|host| host == authority.to_ascii_lowercase());
        same_host || self.public_origin.as_ref() == Some(&origin)
    }

    /// Checks a request that came over TCP.
    fn check(
        &self,
        method: &Method,
        path: &str,
        authority: Option<&str>,
        headers: &HeaderMap,
        local: Option<IpAddr>,
        tls: bool,
    ) -> Result<(), ApiError> {
        let authority = authority.filter(|authority| self.knows(authority, local));
        let authority = authority.ok_or_else(ApiError::host_not_allowed)?;
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let open = path == "/health" || path == "/v2" || path.starts_with("/v2/");
        if reads && open {
            return Ok(());
        }
        let mut origins = headers.get_all(header::ORIGIN).iter().peekable();
        let foreign = if origins.peek().is_some() {
            !origins.all(|origin| origin.to_str().is_ok_and(|origin| self.is_ours(origin, authority, tls)))
        } else {
            headers.get_all("sec-fetch-site").iter().any(|site| site == "cross-site")
        };
        if foreign { Err(ApiError::origin_not_allowed()) } else { Ok(()) }
    }
}

/// The host of `host[:port]`; `None` when it is neither that nor an address in brackets.
fn host_of(authority: &str) -> Option<&str> {
    let host_end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(host_end);
    let port_is_well_formed = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    (!host.is_empty() && port_is_well_formed && !host.contains(['@', '/', ' '])).then_some(host)
}

/// What the request calls this server: the one `Host`, or the authority of an absolute form.
pub(super) fn authority_of(request: &Request) -> Option<&str> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.as_str());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    hosts.next().is_none().then_some(host)
}

/// A target has so many bytes at most: the longest that is of use names a manifest with its tags.
const MAX_TARGET_BYTES: usize = 16 * 1024;

/// Refuses what is longer than any request of use, by whichever protocol it came.
fn bounds(request: &Request) -> Result<(), ApiError> {
    let uri = request.uri();
    let target = uri.path().len() + uri.query().map_or(0, str::len);
    if target > MAX_TARGET_BYTES {
        return Err(ApiError::target_too_long(MAX_TARGET_BYTES));
    }
    if request.headers().len() > MAX_HEADERS {
        return Err(ApiError::too_many_headers(MAX_HEADERS));
    }
    Ok(())
}

/// The layer: requests over the local socket come from no browser and pass.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    if let Err(refusal) = bounds(&request) {
        return refusal.into_response();
    }
    let (local, tls) = match request.extensions().get::<Connection>() {
        Some(Connection::Local { .. }) => return next.run(request).await,
        Some(Connection::Tcp { local, tls, .. }) => (local.map(|local| local.ip()), *tls),
        None => (None, false),
    };
    let authority = authority_of(&request);
    match guard.check(request.method(), request.uri().path(), authority, request.headers(), local, tls) {
        Ok(()) => {
            // The name is one of ours, so it may stand in a challenge.
            let asked = Asked::of(&request);
            let mut response = next.run(request).await;
            asked.answer(&mut response, guard.public_url.as_deref());
            response
        }
        Err(refusal) => refusal.into_response(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Guard {
        Guard {
            names: vec!["pantry.example".to_owned(), "host.docker.internal".to_owned()],
            listen: "192.0.2.7".parse().unwrap(),
            public_origin: Some("https://pantry.example".to_owned()),
            public_url: None,
        }
    }

    #[test]
    fn only_our_own_names_are_known() {
        let local = Some("198.51.100.3".parse().unwrap());
        for good in [
            "127.0.0.1:7721",
            "127.8.8.8",
            "[::1]:7721",
            "[::1]",
            "localhost",
            "LOCALHOST:1",
            "192.0.2.7:7721",
            "198.51.100.3:7721",
            "[::ffff:127.0.0.1]",
            "pantry.example",
            "Pantry.Example:443",
            "host.docker.internal:80",
        ] {
            assert!(sample().knows(good, local), "{good}");
        }
        for bad in [
            "",
            ":80",
            "evil.example",
            "evil.example:7721",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "203.0.113.9",
            "user@localhost",
            "localhost:x",
            "[::1",
            "[::2]",
            "pantry.example.",
            "a localhost",
        ] {
            assert!(!sample().knows(bad, local), "{bad}");
        }
    }

    fn check(
        method: &Method,
        path: &str,
        host: Option<&str>,
        headers: &[(&'static str, &str)],
    ) -> Option<String> {
        let headers = headers
            .iter()
            .map(|&(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        let refused = sample().check(method, path, host, &headers.collect(), None, false);
        refused.err().map(|error| error.code().to_owned())
    }

    #[test]
    fn a_request_of_a_foreign_page_is_refused() {
        let host = Some("localhost:7721");
        let origin = Some("origin_not_allowed".to_owned());
        let post = |headers: &[_]| check(&Method::POST, "/v1/installed", host, headers);
        assert_eq!(post(&[]), None);
        assert_eq!(post(&[("origin", "http://localhost:7721")]), None);
        assert_eq!(post(&[("origin", "https://pantry.example")]), None);
        assert_eq!(post(&[("origin", "http://localhost:3000")]), origin);
        assert_eq!(post(&[("origin", "null")]), origin);
        assert_eq!(post(&[("origin", "http://localhost:7721"), ("origin", "http://evil.example")]), origin);
        assert_eq!(post(&[("sec-fetch-site", "cross-site")]), origin);
        assert_eq!(post(&[("sec-fetch-site", "same-origin")]), None);
        let foreign = [("origin", "http://evil.example")];
        assert_eq!(check(&Method::GET, "/v1/installed", host, &foreign), origin);
        assert_eq!(check(&Method::OPTIONS, "/v2/", host, &foreign), origin);
        assert_eq!(check(&Method::PUT, "/v2/local/a/manifests/1", host, &foreign), origin);
        assert_eq!(check(&Method::GET, "/v2/local/a/manifests/1", host, &foreign), None);
        assert_eq!(check(&Method::GET, "/health", host, &foreign), None);
        assert_eq!(check(&Method::GET, "/v2x", host, &foreign), origin);
    }

    #[test]
    fn a_page_in_the_clear_is_none_of_a_server_that_speaks_tls() {
        let ours = |origin: &str, tls| sample().is_ours(origin, "localhost:7721", tls);
        assert!(ours("https://localhost:7721", true) && ours("https://localhost:7721", false));
        assert!(ours("http://localhost:7721", false) && !ours("http://localhost:7721", true));
    }

    #[test]
    fn a_request_that_names_another_server_is_refused() {
        let refused = Some("host_not_allowed".to_owned());
        assert_eq!(check(&Method::GET, "/v2/", Some("evil.example"), &[]), refused);
        assert_eq!(check(&Method::GET, "/health", None, &[]), refused);
    }

    proptest! {
        #[test]
        fn any_host_is_read_without_a_panic(host in ".{0,40}") {
            let _ = sample().knows(&host, None);
        }

        #[test]
        fn no_name_that_merely_contains_ours_is_known(before in "[a-z0-9.-]{0,9}", after in "[a-z.-]{1,9}") {
            prop_assume!(!after.trim_matches('.').is_empty());
            let host = format!("{before}localhost.{after}");
            prop_assert!(!sample().knows(&host, None));
        }
    }
}
