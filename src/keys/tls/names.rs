//! The names that a certificate of our own is for.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::config::Config;

/// Addresses of this machine beyond this many are left out.
const ADDRESSES: usize = 64;

/// What clients may call this server by.
pub(super) struct Wanted {
    listen: IpAddr,
    /// Of the configuration, without a port.
    configured: Vec<String>,
}

impl Wanted {
    pub(super) fn of(config: &Config) -> Self {
        let public = config.public_url.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
        let public = public.as_ref().and_then(http::Uri::host).map(str::to_owned);
        let allowed = config.allowed_hosts.iter().filter_map(|host| {
            host.parse::<http::uri::Authority>().ok().map(|authority| authority.host().to_owned())
        });
        let configured = allowed.chain(public).collect();
        Self { listen: config.listen.ip(), configured }
    }

    /// All of them as they are now: an address of the machine may come and go.
    pub(super) fn all(&self) -> Vec<ServerName<'static>> {
        let mut names: BTreeSet<String> = BTreeSet::from(["localhost".to_owned()]);
        names.extend(self.configured.iter().map(|name| name.trim_matches(['[', ']']).to_ascii_lowercase()));
        if let Some(own) = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()) {
            names.insert(own.to_ascii_lowercase());
        }
        let mut addresses =
            BTreeSet::from([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        if self.listen.is_unspecified() {
            addresses.extend(own_addresses());
        } else {
            addresses.insert(self.listen.to_canonical());
        }
        let named = names.into_iter().filter_map(|name| ServerName::try_from(name).ok());
        named.chain(addresses.into_iter().map(ServerName::from)).collect()
    }

    /// Tells whether a certificate is for all of them.
    pub(super) fn all_in(&self, leaf: &[u8]) -> bool {
        let leaf = CertificateDer::from(leaf);
        let Ok(parsed) = ParsedCertificate::try_from(&leaf) else { return false };
        self.all().iter().all(|name| rustls::client::verify_server_name(&parsed, name).is_ok())
    }
}

/// Tells whether a certificate is for all of these names.
pub(super) fn are_in(names: &[String], leaf: &[u8]) -> bool {
    let leaf = CertificateDer::from(leaf);
    let Ok(parsed) = ParsedCertificate::try_from(&leaf) else { return false };
    names.iter().all(|name| {
        ServerName::try_from(name.as_str())
            .is_ok_and(|name| rustls::client::verify_server_name(&parsed, &name).is_ok())
    })
}

/// The addresses of this machine's interfaces; those that need a zone to be reached are left out.
fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        if let Some(v4) = address.as_sockaddr_in() {
            return Some(IpAddr::V4(v4.ip()));
        }
        let v6 = address.as_sockaddr_in6()?.ip();
        (v6.segments()[0] & 0xffc0 != 0xfe80).then_some(IpAddr::V6(v6))
    };
    interfaces.filter_map(address).take(ADDRESSES).collect()
}
