//! The demand for credentials in `WWW-Authenticate`.
//!
//! *Source*: RFC 9110, section 11.6.1; Docker's token specification.

/// How a registry wants to be shown credentials.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token, which is to be had at `realm`.
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// The first challenge of a header's value that is known here; a token before a password.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut basic = None;
        let mut rest = value.trim_start();
        while !rest.is_empty() {
            let end = rest.find([' ', ',']).unwrap_or(rest.len());
            let (scheme, after) = rest.split_at(end);
            let (parameters, after) = parameters(after);
            if scheme.eq_ignore_ascii_case("bearer") {
                let find =
                    |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, v)| v.clone());
                if let Some(realm) = find("realm") {
                    return Some(Self::Bearer { realm, service: find("service") });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
            rest = after;
        }
        basic
    }
}

/// The `key=value` pairs of one challenge, and what follows it.
fn parameters(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let trimmed = rest.trim_start_matches([' ', '\t', ',']);
        let end = trimmed.find(['=', ' ', ',']).unwrap_or(trimmed.len());
        let (key, after) = trimmed.split_at(end);
        let Some(after) = after.strip_prefix('=') else { return (found, trimmed) };
        let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
            unquoted(quoted)
        } else {
            let end = after.find([',', ' ']).unwrap_or(after.len());
            (after[..end].to_owned(), &after[end..])
        };
        found.push((key.to_ascii_lowercase(), value));
        rest = after;
    }
}

fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[allow(clippy::unnecessary_wraps)] // as the parser gives it
    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
    }

    #[test]
    fn a_token_is_preferred_wherever_it_stands() {
        let text = r#"Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push",error="x""#;
        assert_eq!(Challenge::parse(text), bearer("https://a/t", Some("s")));
        let both = r#"Basic realm="x, y", Bearer service=s, realm="http://b""#;
        assert_eq!(Challenge::parse(both), bearer("http://b", Some("s")));
        assert_eq!(Challenge::parse(r#"basic realm="\"q\"""#), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Basic"), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Negotiate abc=="), None);
        assert_eq!(Challenge::parse("Bearer service=x"), None);
        assert_eq!(Challenge::parse(""), None);
    }

    proptest! {
        #[test]
        fn no_text_hangs_or_panics(text in ".{0,200}") {
            let _ = Challenge::parse(&text);
        }

        #[test]
        fn what_is_quoted_comes_back(realm in "[ -~]{1,60}", service in "[ -~]{1,60}") {
            let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let text = format!(r#"Bearer realm="{}",service="{}""#, quote(&realm), quote(&service));
            prop_assert_eq!(Challenge::parse(&text), bearer(&realm, Some(&service)));
        }
    }
}
