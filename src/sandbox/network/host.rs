//! Hosts as they are named: in a policy, and in a request.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::super::error::SandboxError;

/// A host that somebody asks for: a name in lower case, or an address.
///
/// A name whose last part is a number is none (some resolvers take `127.1` and `0x7f.1` for addresses).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Host {
    Name(String),
    Address(IpAddr),
}

impl Host {
    /// Reads a name, an IPv4 address of four numbers, or an IPv6 address, in brackets or not.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            return inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(|ip| Self::Address(ip.into()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Address(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let last = name.rsplit('.').next().unwrap_or_default();
        let number = last.bytes().all(|b| b.is_ascii_digit())
            || last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
        (name.len() <= 253 && name.split('.').all(label) && !number).then_some(Self::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A host of a policy: a name, an address, or `*.` and a name for everything below that name (not itself).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Host(Host),
    Below(String),
}

impl HostPattern {
    /// Reads one.
    ///
    /// # Errors
    /// [`SandboxError::Refused`] for anything else, such as other wildcards, a port, or letters beyond ASCII.
    pub fn parse(text: &str) -> Result<Self, SandboxError> {
        let parsed = match text.strip_prefix("*.") {
            Some(domain) => match Host::parse(domain) {
                // Below a single label lies half the world.
                Some(Host::Name(name)) if name.contains('.') => Some(Pattern::Below(name)),
                _ => None,
            },
            None => Host::parse(text).map(Pattern::Host),
        };
        parsed.map(Self).ok_or_else(|| {
            SandboxError::refused(
                format!("host {text:?}"),
                "it is neither a name, nor an address, nor `*.` and a name with a dot",
                "write the name alone (international names as `xn--…`), and the port beside it",
            )
        })
    }

    /// Whether it stands for all hosts of a domain.
    pub(crate) fn is_domain(&self) -> bool {
        matches!(self.0, Pattern::Below(_))
    }

    /// The address that it is, if it is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match &self.0 {
            Pattern::Host(Host::Address(address)) => Some(*address),
            _ => None,
        }
    }

    pub(crate) fn matches(&self, host: &Host) -> bool {
        match (&self.0, host) {
            (Pattern::Host(own), host) => own == host,
            (Pattern::Below(domain), Host::Name(name)) => {
                name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            (Pattern::Below(_), Host::Address(_)) => false,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pattern::Host(host) => host.fmt(f),
            Pattern::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = SandboxError;

    fn try_from(text: String) -> Result<Self, SandboxError> {
        Self::parse(&text)
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Files.Example.org", "files.example.org")]
    #[case("files.example.org.", "files.example.org")]
    #[case("*.example.org", "*.example.org")]
    #[case("10.0.0.1", "10.0.0.1")]
    #[case("::1", "[::1]")]
    #[case("[::1]", "[::1]")]
    #[case("index", "index")]
    fn hosts_are_read_and_written(#[case] text: &str, #[case] shown: &str) {
        let pattern = HostPattern::parse(text).expect("a host");
        assert_eq!(pattern.to_string(), shown);
        assert_eq!(HostPattern::parse(shown).expect("the same"), pattern);
    }

    #[rstest]
    #[case("")]
    #[case("*")]
    #[case("*.")]
    #[case("*.org")]
    #[case("*.10.0.0.1")]
    #[case("a.*.org")]
    #[case("a*.org")]
    #[case("example.org:443")]
    #[case("https://example.org")]
    #[case("user@example.org")]
    #[case("127.1")]
    #[case("2130706433")]
    #[case("0x7f.0.0.0x1")]
    #[case("0x7f000001")]
    #[case("010.0.0.1")]
    #[case("a..b")]
    #[case("-a.org")]
    #[case("a b.org")]
    #[case("bücher.example")]
    #[case("a%2eb")]
    #[case("[10.0.0.1]")]
    #[case("[fe80::1%eth0]")]
    fn anything_else_is_refused(#[case] text: &str) {
        assert!(HostPattern::parse(text).is_err_and(|error| error.hint().is_some()));
    }

    #[rstest]
    #[case("example.org", "example.org", true)]
    #[case("example.org", "a.example.org", false)]
    #[case("*.example.org", "a.example.org", true)]
    #[case("*.example.org", "a.b.example.org", true)]
    #[case("*.example.org", "example.org", false)]
    #[case("*.example.org", "badexample.org", false)]
    #[case("*.example.org", "example.org.evil.net", false)]
    #[case("10.0.0.1", "10.0.0.1", true)]
    #[case("10.0.0.1", "::ffff:10.0.0.1", false)]
    fn a_pattern_fits_what_it_says(#[case] pattern: &str, #[case] host: &str, #[case] fits: bool) {
        let (pattern, host) = (HostPattern::parse(pattern).expect("read"), Host::parse(host).expect("read"));
        assert_eq!(pattern.matches(&host), fits);
    }
}
