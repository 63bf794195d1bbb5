//! The proxies through which the caller reaches other hosts, as its environment names them.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;

use super::super::error::SandboxError;
use super::host::Host;
use super::request;

/// Most characters of a variable that are read.
const MOST_TEXT: usize = 8 * 1024;

/// The proxies of the caller's environment; none by default.
///
/// They are spoken to in the clear (`http://`), with a name and a password where the address has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    https: Option<UpstreamProxy>,
    http: Option<UpstreamProxy>,
    except: Vec<Except>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct UpstreamProxy {
    pub(super) host: Host,
    pub(super) port: u16,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<String>,
}

impl fmt::Debug for UpstreamProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password is nobody's business.
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What is reached without them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Except {
    All,
    Host(Host, Option<u16>),
    /// A name and everything below it.
    Domain(String, Option<u16>),
    Network(IpAddr, u32),
}

impl Upstream {
    /// Reads `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, each in lower case first.
    ///
    /// # Errors
    /// [`SandboxError::Refused`] for a proxy whose address can't be read, or that isn't spoken to by plain HTTP.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, SandboxError> {
        let read = |name: &str| {
            let value = variable(&name.to_ascii_lowercase()).filter(|value| !value.trim().is_empty());
            value.or_else(|| variable(name).filter(|value| !value.trim().is_empty()))
        };
        let proxy = |name: &str| read(name).map(|value| UpstreamProxy::parse(name, value.trim())).transpose();
        let all = proxy("ALL_PROXY")?;
        let except = read("NO_PROXY").unwrap_or_default();
        Ok(Self {
            https: proxy("HTTPS_PROXY")?.or_else(|| all.clone()),
            http: proxy("HTTP_PROXY")?.or(all),
            except: except.split(',').filter_map(|entry| Except::parse(entry.trim())).collect(),
        })
    }

    /// The proxy for a tunnel (`https`) or for plain HTTP to this host, if there is one.
    pub(super) fn of(&self, tunnel: bool, host: &Host, port: u16) -> Option<&UpstreamProxy> {
        let proxy = if tunnel { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !self.except.iter().any(|except| except.fits(host, port)))
    }
}

impl UpstreamProxy {
    fn parse(variable: &str, text: &str) -> Result<Self, SandboxError> {
        let refused = |why: &str| {
            SandboxError::refused(
                variable,
                why,
                "write it as http://host:port or http://name:password@host:port",
            )
        };
        if text.len() > MOST_TEXT {
            return Err(refused("it is too long"));
        }
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(refused("only proxies that speak plain HTTP can be used")),
            None => text,
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, place) = rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let (host, port) =
            request::authority(place, Some(80)).ok_or_else(|| refused("its address can't be read"))?;
        let authorization = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let pair = [decoded(name), b":".to_vec(), decoded(password)].concat();
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        });
        Ok(Self { host, port, authorization })
    }
}

/// Bytes of a text in which `%` and two digits stand for one.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.filter(|_| *first == b'%').and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    bytes
}

impl Except {
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::All);
        }
        if let Some((network, bits)) = entry.split_once('/') {
            return Some(Self::Network(network.parse().ok()?, bits.parse().ok()?));
        }
        let whole = Host::parse(entry.trim_start_matches("*.").trim_start_matches('.'));
        let (host, port) = match whole {
            Some(host) => (host, None),
            None => request::authority(entry.trim_start_matches("*.").trim_start_matches('.'), None)
                .map(|(host, port)| (host, Some(port)))?,
        };
        Some(match host {
            Host::Name(name) => Self::Domain(name, port),
            address @ Host::Address(_) => Self::Host(address, port),
        })
    }

    fn fits(&self, host: &Host, port: u16) -> bool {
        match (self, host) {
            (Self::All, _) => true,
            (Self::Host(own, only), _) => own == host && only.is_none_or(|only| only == port),
            (Self::Domain(domain, only), Host::Name(name)) => {
                let below = name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (below || name == domain) && only.is_none_or(|only| only == port)
            }
            (Self::Network(IpAddr::V4(network), bits), Host::Address(IpAddr::V4(address))) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.checked_shr(32_u32.saturating_sub(*bits)).unwrap_or(0) == 0
            }
            (Self::Network(IpAddr::V6(network), bits), Host::Address(IpAddr::V6(address))) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.checked_shr(128_u32.saturating_sub(*bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Upstream, SandboxError> {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Upstream::from_variables(&move |wanted| {
            pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
        })
    }

    fn of(upstream: &Upstream, tunnel: bool, host: &str) -> Option<String> {
        let host = Host::parse(host).expect("a host");
        upstream.of(tunnel, &host, 443).map(|proxy| format!("{proxy:?}"))
    }

    #[test]
    fn variables_name_the_proxies() {
        let upstream = read(&[
            ("HTTPS_PROXY", "http://us%40er:p%3Aw@proxy.example:3128/"),
            ("ALL_PROXY", "10.0.0.1:8080"),
            ("no_proxy", "localhost, .inner.example,192.168.0.0/16,10.1.1.1,odd.example:8443"),
        ])
        .expect("read");
        assert_eq!(of(&upstream, true, "a.example").as_deref(), Some("proxy.example:3128"));
        assert_eq!(of(&upstream, false, "a.example").as_deref(), Some("10.0.0.1:8080"));
        for direct in ["localhost", "inner.example", "a.inner.example", "192.168.3.4", "10.1.1.1"] {
            assert_eq!(of(&upstream, true, direct), None, "{direct}");
        }
        for through in ["dinner.example", "192.169.0.1", "odd.example", "10.1.1.2"] {
            assert!(of(&upstream, true, through).is_some(), "{through}");
        }
        let authorization = upstream.https.and_then(|proxy| proxy.authorization);
        assert_eq!(authorization.as_deref(), Some("Basic dXNAZXI6cDp3"));
        assert_eq!(read(&[]).expect("nothing"), Upstream::default());
        let all = read(&[("HTTP_PROXY", "http://p.example"), ("NO_PROXY", "*")]).expect("read");
        assert_eq!(of(&all, false, "a.example"), None);
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_its_password() {
        for value in ["socks5://name:secret@p.example:1080", "https://name:secret@p.example", "http://:80"] {
            let refused = read(&[("HTTPS_PROXY", value)]).expect_err("refused");
            assert!(refused.hint().is_some());
            assert!(!format!("{refused} {refused:?}").contains("secret"));
        }
    }
}
