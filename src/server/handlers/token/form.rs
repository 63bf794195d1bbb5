//! Names and values as a query or a form carries them.
//!
//! *Source*: the URL standard, section `application/x-www-form-urlencoded`.

/// More of them is no request of a client.
const PAIRS_CAP: usize = 256;

/// Reads `a=b&c=d`; `None` when it is not UTF-8, or more than a client has to say.
pub(in crate::server) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts: Vec<&str> = text.split('&').filter(|part| !part.is_empty()).take(PAIRS_CAP + 1).collect();
    if parts.len() > PAIRS_CAP {
        return None;
    }
    parts
        .into_iter()
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decoded(name)?, decoded(value)?))
        })
        .collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|d| u8::try_from(d).ok());
                digit()? << 4 | digit()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The first value of this name.
pub(in crate::server) fn one<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    all(pairs, name).next()
}

/// All values of this name.
pub(in crate::server) fn all<'a>(pairs: &'a [(String, String)], name: &str) -> impl Iterator<Item = &'a str> {
    pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Names and values of a form: for tests.
#[cfg(any(test, feature = "fault-points"))]
#[doc(hidden)]
#[must_use]
pub fn read_form(text: &str) -> Option<Vec<(String, String)>> {
    pairs(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms_are_read_as_browsers_write_them() {
        let read = pairs("scope=a%3Ab&scope=c+d&&empty&x=1=2&%C3%A4=%f0%9f%98%80").unwrap();
        assert_eq!(all(&read, "scope").collect::<Vec<_>>(), ["a:b", "c d"]);
        assert_eq!(
            (one(&read, "empty"), one(&read, "x"), one(&read, "ä")),
            (Some(""), Some("1=2"), Some("😀"))
        );
        assert_eq!(one(&read, "none"), None);
        for bad in ["a=%", "a=%4", "a=%zz", "a=%ff", &"a&".repeat(300)] {
            assert_eq!(pairs(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_form_is_read_without_a_panic(text in ".{0,80}") {
            let _ = pairs(&text);
        }
    }
}
