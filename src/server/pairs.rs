//! Names and values, as a query or a form carries them.
//!
//! The JSON API gets its parameters as types ([`super::extract::Params`]), which stand on the same parser.

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::errors::ApiError;

/// More of them is no request of a client; each takes many times the memory of its text.
const PAIRS_CAP: usize = 256;

/// The pairs in their order. A broken escape stays as it is written, and what is not UTF-8 becomes U+FFFD, so that it
/// equals no name and no password.
///
/// *Source*: the URL standard, section `application/x-www-form-urlencoded`.
pub(super) struct Pairs(Vec<(String, String)>);

impl Pairs {
    /// Reads `a=b&c=d`.
    ///
    /// # Errors
    /// When there are more than any client has to say.
    pub(super) fn read(text: &[u8]) -> Result<Self, ApiError> {
        let pairs: Vec<_> = form_urlencoded::parse(text).into_owned().take(PAIRS_CAP + 1).collect();
        if pairs.len() > PAIRS_CAP {
            let detail = format!("there are more than {PAIRS_CAP} parameters");
            return Err(ApiError::invalid("UNSUPPORTED", detail));
        }
        Ok(Self(pairs))
    }

    /// The first value of this name.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of this name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The query.
impl<S: Sync> FromRequestParts<S> for Pairs {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Self::read(parts.uri.query().unwrap_or_default().as_bytes())
    }
}

/// Names and values of a form: for tests.
#[cfg(any(test, feature = "fault-points"))]
#[doc(hidden)]
#[must_use]
pub fn read_form(text: &str) -> Option<Vec<(String, String)>> {
    Pairs::read(text.as_bytes()).ok().map(|pairs| pairs.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_as_browsers_write_them() {
        let read = Pairs::read(b"scope=a%3Ab&scope=c+d&&empty&x=1=2&%C3%A4=%f0%9f%98%80").unwrap();
        assert_eq!(read.all("scope").collect::<Vec<_>>(), ["a:b", "c d"]);
        assert_eq!((read.one("empty"), read.one("x"), read.one("ä")), (Some(""), Some("1=2"), Some("😀")));
        assert_eq!(read.one("none"), None);
        assert!(Pairs::read(&b"a&".repeat(256)).is_ok() && Pairs::read(&b"a&".repeat(257)).is_err());
    }

    #[test]
    fn what_is_broken_is_no_other_text() {
        for (broken, value) in [("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("a%ffb", "a\u{fffd}b")] {
            let read = Pairs::read(format!("x={broken}").as_bytes()).unwrap();
            assert_eq!(read.one("x"), Some(value), "{broken}");
        }
    }
}
