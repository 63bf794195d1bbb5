//! Which addresses a proxy may lead to.
//!
//! *Source*: the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890 and its successors), RFC 6052 for
//! addresses that embed another one, and the addresses at which clouds serve their metadata.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Anybody's.
    Public,
    /// Of somebody's own network: for hosts that the operator named.
    Own(&'static str),
    /// For nobody.
    Never(&'static str),
    /// Stands for the IPv4 address in its last 32 bits.
    Mapped,
    /// Leads through a translator to the IPv4 address in its last 32 bits, which must be public (RFC 6052, 3.1).
    Translated,
}

use Class::{Mapped, Never, Own, Translated};

const METADATA: Class = Never("a cloud's metadata service");

/// The first row that fits counts. What is reserved for documentation is no row: nobody's network is there, and closed
/// networks lead the names of outside hosts to such addresses.
const V4: &[(Ipv4Addr, u32, Class)] = &[
    (Ipv4Addr::new(169, 254, 169, 254), 32, METADATA),
    (Ipv4Addr::new(100, 100, 100, 200), 32, METADATA),
    (Ipv4Addr::new(168, 63, 129, 16), 32, METADATA),
    (Ipv4Addr::new(192, 0, 0, 192), 32, METADATA),
    (Ipv4Addr::UNSPECIFIED, 8, Never("an unspecified address")),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Own("a private address")),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Own("an address behind a carrier's translator")),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Own("a loopback address")),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Never("a link-local address")),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Own("a private address")),
    (Ipv4Addr::new(192, 0, 0, 0), 24, Never("an address for protocols")),
    (Ipv4Addr::new(192, 88, 99, 0), 24, Never("a 6to4 relay")),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Own("a private address")),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Never("an address for benchmarks")),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Never("a multicast address")),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Never("a reserved address")),
];

/// The first row that fits counts; what none fits and is not in `2000::/3` is nobody's.
const V6: &[(Ipv6Addr, u32, Class)] = &[
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128, METADATA),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, METADATA),
    (Ipv6Addr::LOCALHOST, 128, Own("a loopback address")),
    (Ipv6Addr::UNSPECIFIED, 128, Never("an unspecified address")),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, Mapped),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96, Translated),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, Never("a translator's local address")),
    // Teredo, benchmarks, ORCHID and the like.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, Never("an address for protocols")),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, Never("a 6to4 address")),
    (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3, Class::Public),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Own("a unique local address")),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Never("a link-local address")),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Never("a multicast address")),
];

/// The class of an address; for one that embeds another, of that one.
pub(crate) fn class(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(address) => V4
            .iter()
            .find(|(network, bits, _)| (address.to_bits() ^ network.to_bits()) >> (32 - bits) == 0)
            .map_or(Class::Public, |(.., class)| *class),
        IpAddr::V6(address) => {
            let row = V6
                .iter()
                .find(|(network, bits, _)| (address.to_bits() ^ network.to_bits()) >> (128 - bits) == 0);
            let [.., a, b, c, d] = address.octets();
            let embedded = || class(IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
            match row.map(|(.., class)| *class) {
                Some(Mapped) => embedded(),
                Some(Translated) if embedded() != Class::Public => {
                    Never("a translated address of somebody's own network")
                }
                Some(Translated) => Class::Public,
                Some(other) => other,
                None => Never("an address that nobody was given"),
            }
        }
    }
}

/// Whether a proxy may lead there; if not, what the address is.
pub(crate) fn check(address: IpAddr, private: bool) -> Result<(), &'static str> {
    match class(address) {
        Class::Public => Ok(()),
        Own(_) if private => Ok(()),
        Own(what) | Never(what) => Err(what),
        Mapped | Translated => Err("an address that embeds another"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::public("1.1.1.1", true, true)]
    #[case::below_private("9.255.255.255", true, true)]
    #[case::above_private("11.0.0.0", true, true)]
    #[case::private_a("10.0.0.1", false, true)]
    #[case::private_b("172.16.0.1", false, true)]
    #[case::private_b_end("172.31.255.255", false, true)]
    #[case::above_private_b("172.32.0.0", true, true)]
    #[case::private_c("192.168.255.1", false, true)]
    #[case::carrier("100.64.0.1", false, true)]
    #[case::carrier_end("100.127.255.255", false, true)]
    #[case::above_carrier("100.128.0.0", true, true)]
    #[case::loopback("127.255.0.1", false, true)]
    #[case::this_network("0.0.0.0", false, false)]
    #[case::this_network_end("0.255.255.255", false, false)]
    #[case::link_local("169.254.1.1", false, false)]
    #[case::metadata("169.254.169.254", false, false)]
    #[case::metadata_in_carrier_range("100.100.100.200", false, false)]
    #[case::metadata_in_public_range("168.63.129.16", false, false)]
    #[case::metadata_in_protocol_range("192.0.0.192", false, false)]
    #[case::protocols("192.0.0.9", false, false)]
    #[case::documentation_1("192.0.2.1", true, true)]
    #[case::documentation_2("198.51.100.1", true, true)]
    #[case::documentation_3("203.0.113.1", true, true)]
    #[case::relay("192.88.99.1", false, false)]
    #[case::benchmarks("198.19.255.255", false, false)]
    #[case::multicast("224.0.0.1", false, false)]
    #[case::reserved("240.0.0.1", false, false)]
    #[case::broadcast("255.255.255.255", false, false)]
    #[case::public_6("2606:4700::1111", true, true)]
    #[case::loopback_6("::1", false, true)]
    #[case::unspecified_6("::", false, false)]
    #[case::mapped_public("::ffff:1.1.1.1", true, true)]
    #[case::mapped_loopback("::ffff:127.0.0.1", false, true)]
    #[case::mapped_private("::ffff:10.1.2.3", false, true)]
    #[case::mapped_metadata("::ffff:169.254.169.254", false, false)]
    #[case::compatible("::10.0.0.1", false, false)]
    #[case::compatible_public("::1.1.1.1", false, false)]
    #[case::nat64_public("64:ff9b::1.1.1.1", true, true)]
    #[case::nat64_private("64:ff9b::10.0.0.1", false, false)]
    #[case::nat64_loopback("64:ff9b::7f00:1", false, false)]
    #[case::nat64_metadata("64:ff9b::169.254.169.254", false, false)]
    #[case::nat64_local("64:ff9b:1::1.1.1.1", false, false)]
    #[case::nat64_between("64:ff9b:0:1::1.1.1.1", false, false)]
    #[case::six_to_four("2002:a00:1::1", false, false)]
    #[case::teredo("2001:0:4136:e378:8000:63bf:3fff:fdd2", false, false)]
    #[case::benchmarks_6("2001:2::1", false, false)]
    #[case::orchid("2001:20::1", false, false)]
    #[case::above_protocols("2001:200::1", true, true)]
    #[case::documentation_6("2001:db8::1", true, true)]
    #[case::documentation_6_new("3fff:fff::1", true, true)]
    #[case::discard("100::1", false, false)]
    #[case::segments("5f00::1", false, false)]
    #[case::unique_local("fd12:3456::1", false, true)]
    #[case::unique_local_low("fc00::1", false, true)]
    #[case::metadata_6("fd00:ec2::254", false, false)]
    #[case::metadata_6_other("fd20:ce::254", false, false)]
    #[case::link_local_6("fe80::1", false, false)]
    #[case::site_local("fec0::1", false, false)]
    #[case::multicast_6("ff02::1", false, false)]
    #[case::unallocated("4000::1", false, false)]
    fn addresses_are_told_apart(#[case] address: &str, #[case] anybody: bool, #[case] operator: bool) {
        let address: IpAddr = address.parse().expect("an address");
        assert_eq!(check(address, false).is_ok(), anybody, "{:?}", class(address));
        assert_eq!(check(address, true).is_ok(), operator, "{:?}", class(address));
    }

    #[test]
    fn rows_are_networks() {
        for (network, bits, _) in V4 {
            assert_eq!(network.to_bits().checked_shl(*bits).unwrap_or(0), 0, "{network}/{bits}");
        }
        for (network, bits, _) in V6 {
            assert_eq!(network.to_bits().checked_shl(*bits).unwrap_or(0), 0, "{network}/{bits}");
        }
    }
}
