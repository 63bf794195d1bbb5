//! Who asks.

use std::net::IpAddr;

use axum::extract::{FromRef, FromRequestParts};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{Extensions, HeaderMap, header};

use super::connection::Connection;
use super::errors::{ApiError, ApiResult};
use crate::access::{Access, Action, Principal, Refused, Shown};

/// The principal behind a request: the peer of the local socket, whoever showed credentials, or nobody known.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Principal);

impl Caller {
    /// Refuses who may not: with the demand for credentials when none were shown.
    pub(super) fn require(&self, action: Action) -> ApiResult<()> {
        if self.0.may(action) {
            return Ok(());
        }
        match self.0 {
            Principal::Anonymous { .. } => Err(ApiError::unauthorized()),
            _ => Err(ApiError::forbidden()),
        }
    }

    /// Refuses who has to show credentials and has shown none.
    pub(super) fn require_credentials(&self) -> ApiResult<()> {
        if self.0.needs_credentials() { Err(ApiError::unauthorized()) } else { Ok(()) }
    }
}

impl<S> FromRequestParts<S> for Caller
where
    Access: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let access = Access::from_ref(state);
        if let Some(Connection::Local { uid, gid }) = parts.extensions.get::<Connection>() {
            return Ok(Self(access.peer(*uid, *gid)));
        }
        let from = address(&parts.extensions);
        let presented = presented(&parts.headers)?;
        let shown = match &presented {
            Presented::Nothing => return Ok(Self(access.anonymous())),
            Presented::Bearer(token) => Shown::Bearer(token),
            Presented::Basic(user, password) => Shown::Basic { user, password },
        };
        access.identify(shown, from).await.map(Self).map_err(|refused| {
            let code =
                if parts.uri.path().starts_with("/v2") { "TOOMANYREQUESTS" } else { "too_many_attempts" };
            refusal(refused, shown, code)
        })
    }
}

/// The address of the other end, where there is one.
pub(super) fn address(extensions: &Extensions) -> Option<IpAddr> {
    match extensions.get::<Connection>() {
        Some(Connection::Tcp { remote, .. }) => Some(remote.ip()),
        _ => None,
    }
}

/// Why credentials are not taken; `limited` is the code for too many attempts in the form of the path.
pub(super) fn refusal(refused: Refused, shown: Shown<'_>, limited: &'static str) -> ApiError {
    match (refused, shown) {
        (Refused::TooMany { retry_after }, _) => ApiError::too_many_attempts(limited, retry_after),
        (_, Shown::Bearer(_)) => ApiError::wrong_credentials().token_error("invalid_token"),
        (_, Shown::Basic { .. }) => ApiError::wrong_credentials(),
    }
}

/// What the request shows.
#[derive(Clone, PartialEq, Eq)]
enum Presented {
    Nothing,
    Bearer(String),
    Basic(String, String),
}

fn presented(headers: &HeaderMap) -> ApiResult<Presented> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(Presented::Nothing) };
    if values.next().is_some() {
        return Err(ApiError::wrong_credentials());
    }
    let value = value.to_str().map_err(|_| ApiError::wrong_credentials())?;
    let (scheme, rest) = value.trim().split_once(' ').ok_or_else(ApiError::wrong_credentials)?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Presented::Bearer(rest.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(ApiError::wrong_credentials());
    }
    let decoded = STANDARD.decode(rest).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.ok_or_else(ApiError::wrong_credentials)?;
    let (user, password) = pair.split_once(':').ok_or_else(ApiError::wrong_credentials)?;
    // Clients without credentials send an empty pair; that is nobody, not somebody with a wrong password.
    if user.is_empty() && password.is_empty() {
        return Ok(Presented::Nothing);
    }
    Ok(Presented::Basic(user.to_owned(), password.to_owned()))
}

/// What an `Authorization` header shows: nothing, a token, or a user and a password; `None` when it is refused. For
/// tests.
#[cfg(any(test, feature = "fault-points"))]
#[doc(hidden)]
#[must_use]
pub fn read_authorization(value: &[u8]) -> Option<Vec<String>> {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, http::HeaderValue::from_bytes(value).ok()?);
    Some(match presented(&headers).ok()? {
        Presented::Nothing => Vec::new(),
        Presented::Bearer(token) => vec![token],
        Presented::Basic(user, password) => vec![user, password],
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        match presented(&headers) {
            Ok(Presented::Nothing) => Ok("nothing".to_owned()),
            Ok(Presented::Bearer(token)) => Ok(format!("bearer {token}")),
            Ok(Presented::Basic(user, password)) => Ok(format!("basic {user} {password}")),
            Err(error) => Err(error.code().to_owned()),
        }
    }

    #[test]
    fn credentials_are_shown_as_bearer_or_as_basic() {
        assert!(presented(&HeaderMap::new()).unwrap() == Presented::Nothing);
        assert_eq!(read("Bearer pty_x").unwrap(), "bearer pty_x");
        assert_eq!(read("bearer  pty_x ").unwrap(), "bearer pty_x");
        assert_eq!(read(&format!("Basic {}", STANDARD.encode("admin:pty:x"))).unwrap(), "basic admin pty:x");
        assert_eq!(read(&format!("BASIC {}", STANDARD.encode(":"))).unwrap(), "nothing");
        for bad in ["Basic ???", "Basic", "Digest x", &format!("Basic {}", STANDARD.encode("nocolon"))] {
            assert_eq!(read(bad), Err("unauthorized".to_owned()), "{bad}");
        }
    }
}
