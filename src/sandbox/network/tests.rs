use rstest::rstest;

use super::*;

fn host(text: &str, port: u16) -> AllowedHost {
    AllowedHost { host: HostPattern::parse(text).expect("a host"), port, private: false }
}

fn policy() -> Policy {
    Policy::new(vec!["/srv/root".into()], vec!["/bin/true".to_owned()])
}

fn outside() -> Outside {
    let address = ServiceAddress::Unix("/run/cache.sock".into());
    Outside { services: [("cache".to_owned(), address)].into(), ..Outside::default() }
}

#[test]
fn servers_are_plain_data_and_older_launch_files_are_read() {
    let policy = policy().proxy(3128, vec![host("*.example.org", 443)]).service(80, "cache");
    assert!(check(&policy, &outside()).is_ok());
    let json = serde_json::to_value(&policy).expect("written");
    assert_eq!(
        json["network"],
        serde_json::json!({"mode": "socket", "servers": [
            {"port": 3128, "serve": {"kind": "proxy", "allow": [{"host": "*.example.org", "port": 443, "private": false}]}},
            {"port": 80, "serve": {"kind": "service", "name": "cache"}}]})
    );
    assert_eq!(serde_json::from_value::<Policy>(json).expect("read"), policy);
    for older in ["none", "host"] {
        let read: super::super::policy::Network =
            serde_json::from_value(serde_json::json!({"mode": older})).expect("read");
        assert_eq!(serde_json::to_value(read).expect("written")["mode"], older);
    }
}

#[rstest]
#[case::port_zero(policy().proxy(0, vec![]))]
#[case::port_twice(policy().proxy(1, vec![]).service(1, "cache"))]
#[case::too_many((1..=9).fold(policy(), |policy, port| policy.proxy(port, vec![])))]
#[case::unknown_service(policy().service(1, "other"))]
#[case::too_many_hosts(policy().proxy(1, vec![host("a.example", 443); 65]))]
#[case::host_port_zero(policy().proxy(1, vec![host("a.example", 0)]))]
#[case::private_domain(policy().proxy(1, vec![AllowedHost { private: true, ..host("*.a.example", 1) }]))]
#[case::private_address(policy().proxy(1, vec![host("10.0.0.1", 80)]))]
#[case::metadata(policy().proxy(1, vec![AllowedHost { private: true, ..host("169.254.169.254", 80) }]))]
fn servers_that_cannot_be_are_refused_with_a_hint(#[case] policy: Policy) {
    let refused = check(&policy, &outside());
    let Err(SandboxError::Refused { what, why, hint }) = refused else { panic!("{refused:?}") };
    assert!(what.starts_with("network.servers") && !why.is_empty() && !hint.is_empty());
}

#[test]
fn as_many_as_fit_are_taken() {
    let policy = (1..=8).fold(policy(), |policy, port| policy.proxy(port, vec![host("a.example", 443); 64]));
    assert!(check(&policy, &outside()).is_ok());
}
