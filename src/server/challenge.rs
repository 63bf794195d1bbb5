//! How somebody is asked for credentials: where tokens are made, for which service, and for what.
//!
//! One challenge an answer: clients that find two take the last, the first, or both one over the other. Below `/v2/` it
//! is `Bearer`, which every client of registries follows with a password or without; elsewhere it is `Basic`. Basic
//! is taken everywhere all the same.
//!
//! *Source*: RFC 7235; RFC 6750, section 3; the token authentication of the `distribution` project.

use axum::extract::Request;
use axum::response::Response;
use http::{HeaderValue, Method, Uri, header};

use super::connection::Connection;
use super::guard::authority_of;
use super::handlers::v2::API_VERSION;
use super::v2_path::Target;
use crate::access::TOKEN_SERVICE;

/// Where tokens are made.
pub(super) const TOKEN_PATH: &str = "/v2/token";

/// That credentials are asked for; travels in the answer's extensions until the challenge is written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Challenge {
    /// `invalid_token` or `insufficient_scope`: some clients forget a token only when they are told so.
    pub(super) error: Option<&'static str>,
}

/// What the challenge needs of a request, kept while it is answered; all of it is cheap to keep.
pub(super) struct Asked {
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    secure: bool,
}

impl Asked {
    pub(super) fn of(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: authority_of(request).and_then(|host| HeaderValue::from_str(host).ok()),
            secure: request.extensions().get::<Connection>().is_some_and(Connection::is_secure),
        }
    }

    /// Writes the challenge into an answer that asks for credentials.
    pub(super) fn answer(&self, response: &mut Response, public_url: Option<&str>) {
        let Some(challenge) = response.extensions_mut().remove::<Challenge>() else { return };
        let path = self.uri.path();
        let value = if path == "/v2" || path.starts_with("/v2/") && path != TOKEN_PATH {
            // Old clients take a challenge for one of a registry only with this beside it.
            response.headers_mut().insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
            self.bearer(challenge, public_url)
        } else {
            "Basic realm=\"pantry\", charset=\"UTF-8\"".to_owned()
        };
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
    }

    fn bearer(&self, challenge: Challenge, public_url: Option<&str>) -> String {
        let realm = match (public_url, self.host.as_ref().and_then(|host| host.to_str().ok())) {
            (Some(url), _) => format!("{url}{TOKEN_PATH}"),
            (None, Some(host)) => {
                format!("{}://{host}{TOKEN_PATH}", if self.secure { "https" } else { "http" })
            }
            (None, None) => TOKEN_PATH.to_owned(),
        };
        let mut value = format!("Bearer realm=\"{realm}\",service=\"{TOKEN_SERVICE}\"");
        if let Some(scope) = self.scope() {
            value = format!("{value},scope=\"{scope}\"");
        }
        if let Some(error) = challenge.error {
            value = format!("{value},error=\"{error}\"");
        }
        value
    }

    /// What a token must be for, so that this request passes.
    fn scope(&self) -> Option<String> {
        let (name, actions) = match Target::parse(self.uri.path().strip_prefix("/v2/")?)? {
            Target::Base | Target::Extensions { name: None } => return None,
            Target::Catalogue => return Some("registry:catalog:*".to_owned()),
            Target::Tags { name }
            | Target::Referrers { name, .. }
            | Target::Extensions { name: Some(name) } => (name, "pull"),
            Target::Uploads { name } | Target::Upload { name, .. } => (name, "pull,push"),
            Target::Manifest { name, .. } | Target::Blob { name, .. } => match self.method {
                Method::PUT | Method::POST | Method::PATCH => (name, "pull,push"),
                Method::DELETE => (name, "pull,delete"),
                _ => (name, "pull"),
            },
        };
        // Written between quotes, and nothing but what a name can be.
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"/._-".contains(&b);
        (name.len() <= 255 && name.bytes().all(plain)).then(|| format!("repository:{name}:{actions}"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::response::IntoResponse as _;

    fn challenged(method: Method, path: &str, error: Option<&'static str>, public: Option<&str>) -> String {
        let request = Request::builder().method(method).uri(path).header("host", "localhost:7721");
        let asked = Asked::of(&request.body(Body::empty()).unwrap());
        let mut response = http::StatusCode::UNAUTHORIZED.into_response();
        response.extensions_mut().insert(Challenge { error });
        asked.answer(&mut response, public);
        response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().to_owned()
    }

    #[test]
    fn the_challenge_names_realm_service_and_scope() {
        let here = "Bearer realm=\"http://localhost:7721/v2/token\",service=\"pantry\"";
        let repo = "local/team/app";
        for (method, path, rest) in [
            (Method::GET, "/v2".to_owned(), ""),
            (Method::GET, "/v2/".to_owned(), ""),
            (Method::GET, "/v2/_catalog".to_owned(), ",scope=\"registry:catalog:*\""),
            (Method::HEAD, format!("/v2/{repo}/manifests/1"), ",scope=\"repository:local/team/app:pull\""),
            (
                Method::PUT,
                format!("/v2/{repo}/manifests/1"),
                ",scope=\"repository:local/team/app:pull,push\"",
            ),
            (
                Method::DELETE,
                format!("/v2/{repo}/blobs/x"),
                ",scope=\"repository:local/team/app:pull,delete\"",
            ),
            (
                Method::DELETE,
                format!("/v2/{repo}/blobs/uploads/1"),
                ",scope=\"repository:local/team/app:pull,push\"",
            ),
            (
                Method::POST,
                format!("/v2/{repo}/blobs/uploads/"),
                ",scope=\"repository:local/team/app:pull,push\"",
            ),
            (Method::GET, "/v2/%22,x=%22/manifests/1".to_owned(), ""),
            (Method::GET, "/v2/nothing".to_owned(), ""),
        ] {
            assert_eq!(challenged(method, &path, None, None), format!("{here}{rest}"), "{path}");
        }
    }

    #[test]
    fn errors_are_told_and_the_public_url_is_the_realm() {
        let value = challenged(Method::GET, "/v2/", Some("invalid_token"), Some("https://pantry.example"));
        assert_eq!(
            value,
            "Bearer realm=\"https://pantry.example/v2/token\",service=\"pantry\",error=\"invalid_token\""
        );
        for path in ["/v1/status", "/v2/token", "/metrics"] {
            assert!(challenged(Method::GET, path, None, None).starts_with("Basic realm="), "{path}");
        }
    }
}
