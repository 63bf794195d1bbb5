//! Who asks.

use axum::extract::{FromRef, FromRequestParts};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, header};

use super::connection::Connection;
use super::errors::{ApiError, ApiResult};
use crate::access::{Access, Action, Principal};

/// The principal behind a request: the peer of the local socket, the owner of a token, or nobody known.
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
        match presented(&parts.headers)? {
            None => Ok(Self(access.anonymous())),
            Some(token) => access.token(&token).map(Self).ok_or_else(ApiError::wrong_credentials),
        }
    }
}

/// The token that the request shows: as a bearer, or as the password of Basic.
fn presented(headers: &HeaderMap) -> ApiResult<Option<String>> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let value = value.to_str().map_err(|_| ApiError::wrong_credentials())?;
    let (scheme, rest) = value.trim().split_once(' ').ok_or_else(ApiError::wrong_credentials)?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(rest.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(ApiError::wrong_credentials());
    }
    let decoded = STANDARD.decode(rest).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.ok_or_else(ApiError::wrong_credentials)?;
    let (_, password) = pair.split_once(':').ok_or_else(ApiError::wrong_credentials)?;
    Ok(Some(password.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        presented(&headers).map_err(|error| error.code().to_owned())
    }

    #[test]
    fn a_token_is_shown_as_bearer_or_as_password() {
        assert_eq!(presented(&HeaderMap::new()).unwrap(), None);
        assert_eq!(read("Bearer pty_x"), Ok(Some("pty_x".to_owned())));
        assert_eq!(read("bearer  pty_x "), Ok(Some("pty_x".to_owned())));
        let basic = format!("Basic {}", STANDARD.encode("admin:pty:x"));
        assert_eq!(read(&basic), Ok(Some("pty:x".to_owned())));
        for bad in ["Basic ???", "Basic", "Digest x", &format!("Basic {}", STANDARD.encode("nocolon"))] {
            assert_eq!(read(bad), Err("unauthorized".to_owned()), "{bad}");
        }
    }
}
