//! Whether an address would be out of reach: worked out from the run's network, its grants and Landlock.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::libc;
use rustix::thread::CapabilitySet;

use super::AddressRefusal;
use crate::sandbox::landlock::{self, Tcp};
use crate::sandbox::policy::Policy;

/// The most of a socket address that is read: one of IPv6.
pub(super) const ADDRESS_BYTES: usize = 28;

/// What a run reaches.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    own_network: bool,
    loopback: bool,
    granted: CapabilitySet,
    tcp: Tcp,
    /// Landlock's ABI, where it is used.
    pub(super) landlock_abi: Option<u32>,
}

/// What a call wants of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Out,
    In,
}

impl Way {
    /// Of the calls that name an address: the second argument points at it, the third has its length.
    pub(super) fn of(number: u32) -> Option<Self> {
        match libc::c_long::from(number) {
            libc::SYS_connect => Some(Self::Out),
            libc::SYS_bind => Some(Self::In),
            _ => None,
        }
    }
}

impl Reach {
    pub(super) fn of(policy: &Policy) -> Self {
        Self {
            own_network: !policy.leads_out(),
            loopback: !policy.servers().is_empty(),
            granted: policy.granted(),
            tcp: Tcp::of(policy),
            landlock_abi: None,
        }
    }

    /// Why it is out of reach; none where it isn't, or can't be told. Whether the socket is one of TCP isn't known here.
    pub(super) fn judge(&self, way: Way, address: SocketAddr) -> Option<AddressRefusal> {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        if self.granted.contains(CapabilitySet::NET_ADMIN) {
            // It may set up its network, after which nothing can be told.
            return None;
        }
        let (ports, refused) = match way {
            Way::Out => {
                let here = self.loopback && (ip.is_loopback() || ip.is_unspecified());
                (&self.tcp.connect, (self.own_network && !here).then_some(AddressRefusal::NoNetwork))
            }
            Way::In => {
                let may = self.granted.contains(CapabilitySet::NET_BIND_SERVICE);
                let low = self.own_network && (1..1024).contains(&port) && !may;
                (&self.tcp.bind, low.then_some(AddressRefusal::LowPort))
            }
        };
        let held = self.landlock_abi.is_some_and(|abi| abi >= landlock::TCP);
        let shut = held && ports.as_ref().is_some_and(|ports| !ports.contains(&port));
        refused.or(shut.then_some(AddressRefusal::Landlock))
    }
}

/// The address of an internet family in the bytes of a `struct sockaddr`; none for other families.
pub(super) fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip: IpAddr = match i32::from(family) {
        libc::AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sandbox::policy::Network;

    fn judged(
        network: Network,
        grants: &[&str],
        abi: Option<u32>,
        way: Way,
        to: &str,
    ) -> Option<AddressRefusal> {
        let mut policy = Policy::new(vec![], vec!["/x".to_owned()]).network(network);
        policy.grants = grants.iter().map(|grant| grant.parse().unwrap()).collect();
        let mut reach = Reach::of(&policy);
        reach.landlock_abi = abi;
        reach.judge(way, to.parse().unwrap())
    }

    #[test]
    fn what_is_out_of_reach_follows_from_network_grants_and_landlock() {
        let none = Network::None;
        let (no_network, low, shut) =
            (Some(AddressRefusal::NoNetwork), Some(AddressRefusal::LowPort), Some(AddressRefusal::Landlock));
        assert_eq!(judged(none.clone(), &[], Some(6), Way::Out, "192.0.2.1:443"), no_network);
        assert_eq!(judged(none.clone(), &[], None, Way::Out, "[::1]:443"), no_network);
        assert_eq!(judged(none.clone(), &["NET_ADMIN"], None, Way::Out, "192.0.2.1:443"), None);
        assert_eq!(judged(none.clone(), &[], Some(6), Way::In, "127.0.0.1:80"), low);
        assert_eq!(judged(none.clone(), &[], Some(6), Way::In, "127.0.0.1:8080"), shut);
        assert_eq!(judged(none.clone(), &[], Some(3), Way::In, "127.0.0.1:8080"), None);
        assert_eq!(judged(none, &["NET_BIND_SERVICE"], Some(6), Way::In, "127.0.0.1:80"), None);
        assert_eq!(judged(Network::Host, &[], Some(6), Way::Out, "192.0.2.1:443"), None);
        let named = ["network-client=tcp:443"];
        assert_eq!(judged(Network::Host, &named, Some(6), Way::Out, "192.0.2.1:443"), None);
        assert_eq!(judged(Network::Host, &named, Some(6), Way::Out, "192.0.2.1:80"), shut);
    }

    #[test]
    fn addresses_are_read_as_the_kernel_reads_them() {
        let mut four = [0; 16];
        four[0..2].copy_from_slice(&u16::try_from(libc::AF_INET).unwrap().to_ne_bytes());
        four[2..8].copy_from_slice(&[1, 187, 192, 0, 2, 1]);
        assert_eq!(parse(&four), Some("192.0.2.1:443".parse().unwrap()));
        let mut six = [0; 28];
        six[0..2].copy_from_slice(&u16::try_from(libc::AF_INET6).unwrap().to_ne_bytes());
        (six[3], six[23]) = (53, 1);
        assert_eq!(parse(&six), Some("[::1]:53".parse().unwrap()));
        assert_eq!(parse(&six[..20]), None);
        assert_eq!(parse(&[1, 0, b'/', 0, 0, 0, 0, 0]), None);
    }
}
