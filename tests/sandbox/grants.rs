//! Named grants: what each gives, and that without it nothing of it is there.

use std::net::{Ipv4Addr, TcpListener};

use nix::libc;
use pantry::sandbox::{Capability, Grant, Network, Policy, SandboxError, SeccompProfile};

use crate::bench::{Bench, case};

fn granted(policy: Policy, names: &[&str]) -> Policy {
    names.iter().fold(policy, |policy, name| policy.grant(name.parse().unwrap()))
}

/// What the probe prints without a grant and with it.
fn told(bench: &Bench, arguments: &[&str], grant: &str) -> (String, String) {
    let policy = bench.policy(arguments);
    let with = bench.run(&granted(policy.clone(), &[grant])).stdout.text().trim_end().to_owned();
    (bench.run(&policy).stdout.text().trim_end().to_owned(), with)
}

fn sets(status: &str) -> Vec<(String, u64)> {
    let lines = status.lines().filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"));
    lines.map(|(set, bits)| (set.to_owned(), u64::from_str_radix(bits, 16).unwrap())).collect()
}

fn all_sets(bits: u64) -> Vec<(String, u64)> {
    ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|set| (set.to_owned(), bits)).to_vec()
}

case! {
    fn each_capability_is_there_when_granted_and_alone(bench: &Bench) {
        for capability in Capability::all() {
            let policy = granted(bench.policy(&["cat", "/proc/self/status"]), &[capability.name()]);
            let outcome = bench.run(&policy);
            assert_eq!(sets(&outcome.stdout.text()), all_sets(capability.bit()), "{}", capability.name());
            assert_eq!(outcome.receipt.grants, policy.grants);
        }
        assert_eq!(sets(&bench.says(&["cat", "/proc/self/status"])), all_sets(0));
    }
}

case! {
    fn grants_reach_neither_the_init_nor_get_lost_in_children(bench: &Bench) {
        let names = ["NET_ADMIN", "CHOWN", "SYS_CHROOT"];
        let bits = Capability::all().filter(|one| names.contains(&one.name())).fold(0, |all, one| all | one.bit());
        let policy = granted(bench.policy(&["statusofchild"]), &names);
        assert_eq!(sets(&bench.run(&policy).stdout.text()), all_sets(bits));
        // The init drops its own while the program starts.
        let init = |_| bench.run(&granted(bench.policy(&["cat", "/proc/1/status"]), &names)).stdout.text();
        let none = |status: &String| {
            sets(status).iter().all(|(set, bits)| set == "Bnd" || *bits == 0)
        };
        assert!((0..20).map(init).any(|status| none(&status)), "{}", init(0));
        // Those of the host are as before: the run's are of its own user namespace.
        let outside = std::fs::read_to_string("/proc/self/status").unwrap();
        let shown = sets(&outside);
        bench.run(&policy);
        assert_eq!(sets(&std::fs::read_to_string("/proc/self/status").unwrap()), shown);
    }
}

case! {
    fn id_0_inside_has_what_is_granted_and_no_more(bench: &Bench) {
        let policy = bench.policy(&["cat", "/proc/self/status"]).identity(0, 0);
        assert_eq!(sets(&bench.run(&policy).stdout.text()), all_sets(0));
        let kill = Capability::all().find(|one| one.name() == "KILL").unwrap();
        assert_eq!(sets(&bench.run(&granted(policy, &["KILL"])).stdout.text()), all_sets(kill.bit()));
    }
}

case! {
    fn what_is_granted_can_be_done(bench: &Bench) {
        let refused = "errno 13".to_owned();
        assert_eq!(told(bench, &["bind", "80"], "NET_BIND_SERVICE"), (refused.clone(), "ok".to_owned()));
        // A raw socket of the internet's control messages, as ping has it.
        let socket = libc::SYS_socket.to_string();
        let raw = ["syscall", &socket, "2", "3", "1"];
        assert_eq!(told(bench, &raw, "NET_RAW"), ("errno 1".to_owned(), "ok".to_owned()));
        assert_eq!(told(bench, &["chroot", "/tmp"], "SYS_CHROOT"), ("errno 1".to_owned(), "ok".to_owned()));
        assert_eq!(told(bench, &["shutfile"], "DAC_OVERRIDE"), (refused.clone(), "ok".to_owned()));
        assert_eq!(told(bench, &["shutfile"], "file-control"), (refused, "ok".to_owned()));
        // Setting up its own network, loopback alone, and using it.
        let (without, with) = told(bench, &["loup"], "NET_ADMIN");
        assert!(without.starts_with("errno 1\n"), "{without}");
        assert_eq!(with, "ok\nok\nok");
        // With the ports of others still shut: one grant is not another.
        assert_eq!(told(bench, &["bind", "80"], "NET_RAW").1, "errno 13");
    }
}

case! {
    fn what_is_granted_goes_no_further_than_the_jail(bench: &Bench) {
        let everything: Vec<&str> = Capability::all().map(Capability::name).collect();
        let with = |arguments: &[&str]| {
            bench.run(&granted(bench.policy(arguments), &everything)).stdout.text().trim_end().to_owned()
        };
        // Mounts stay read-only, the kernel's settings too, and what needs SYS_ADMIN is denied by the filter.
        assert_eq!(with(&["write", "/x"]), "errno 30");
        assert_eq!(with(&["append", "/proc/sys/kernel/hostname"]), "errno 13");
        assert_eq!(with(&["append", "/proc/sys/net/ipv4/ip_forward"]), "errno 30");
        for (call, arguments, what) in [
            (libc::SYS_mount, ["0", "0", "0"], "mount"),
            (libc::SYS_unshare, ["0x10000000", "0", "0"], "unshare"),
            (libc::SYS_socket, ["17", "3", "0"], "a packet socket"),
            (libc::SYS_socket, ["16", "3", "12"], "the packet filter's socket"),
            (libc::SYS_socket, ["16", "3", "9"], "the audit socket"),
        ] {
            let call = call.to_string();
            let [first, second, third] = arguments;
            assert_eq!(with(&["syscall", &call, first, second, third]), "errno 1", "{what}");
        }
        assert_eq!(with(&["chmod", "4755"]), "errno 1");
        assert_eq!(with(&["killinit"]), "alive");
        assert_eq!(with(&["openinit"]), "errno 13\nerrno 13\nerrno 13\nerrno 13\nerrno 1");
    }
}

case! {
    fn package_managers_see_owners_change(bench: &Bench) {
        let number = libc::SYS_fchownat.to_string();
        let call = ["syscall", &number, "-100", "0", "1", "1", "0"];
        let outcome = bench.run(&granted(bench.policy(&call).profile(SeccompProfile::Command), &["package-management"]));
        assert_eq!(outcome.stdout.text(), "ok\n");
        assert!(outcome.receipt.ownership_emulated);
        assert_ne!(bench.says(&call), "ok");
    }
}

case! {
    fn the_hosts_network_is_held_to_the_named_ports(bench: &Bench) {
        let local = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (listener, other, free) = (local(), local(), local());
        let port = |of: &TcpListener| of.local_addr().unwrap().port().to_string();
        let free = { let port = port(&free); drop(free); port };
        let grants = [format!("network-client=tcp:{}", port(&listener)), format!("network-server={free}")];
        let named: Vec<&str> = grants.iter().map(String::as_str).collect();
        let policy = |arguments: &[&str]| bench.policy(arguments).network(Network::Host);
        match bench.try_run(&granted(policy(&["connectto", &port(&listener)]), &named)) {
            Err(SandboxError::Refused { why, .. }) => {
                assert!(why.contains("Landlock"), "{why}");
                println!("skipped: {why}");
                return;
            }
            answer => assert_eq!(answer.unwrap().stdout.text(), "ok\n"),
        }
        let said = |arguments: &[&str]| bench.run(&granted(policy(arguments), &named)).stdout.text();
        assert_eq!(said(&["connectto", &port(&other)]), "errno 13\n");
        assert_eq!(said(&["bind", &free]), "ok\n");
        assert_eq!(said(&["bind", "0"]), "errno 13\n");
        // The control: unnamed, the host's network is the host's.
        assert_eq!(bench.run(&policy(&["connectto", &port(&other)])).stdout.text(), "ok\n");
    }
}

#[cfg(feature = "fault-points")]
case! {
    fn ports_that_cannot_be_held_are_a_failed_launch(bench: &Bench) {
        let policy = granted(bench.policy(&["true"]).network(Network::Host), &["network-client=tcp:443"]);
        let sandbox = bench.sandbox.clone().landlock_at_most(3);
        let ran = sandbox.run(&policy, pantry::sandbox::StdinBytes::Empty, &pantry::sandbox::Cancel::new().unwrap());
        match ran {
            Err(SandboxError::Setup { step, .. }) => assert!(step.contains("granted ports"), "{step}"),
            Err(SandboxError::Refused { why, .. }) => assert!(why.contains("Landlock"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

case! {
    fn what_can_not_be_granted_is_refused_before_launch(bench: &Bench) {
        for (grant, network) in [
            ("NET_ADMIN", Network::Host),
            ("NET_RAW", Network::Host),
            ("NET_BIND_SERVICE", Network::Host),
            ("network-client=tcp:443", Network::None),
            ("network-server=80", Network::None),
        ] {
            let refused = bench.try_run(&granted(bench.policy(&["true"]).network(network), &[grant])).unwrap_err();
            assert_eq!(refused.code(), "sandbox_policy_refused", "{grant}");
            assert!(refused.to_string().contains(grant) && refused.hint().is_some(), "{refused}");
        }
        assert!("SYS_ADMIN".parse::<Grant>().is_err_and(|error| error.to_string().contains("never granted")));
    }
}

case! {
    fn locked_securebits_stay_as_they_are_also_for_who_may_set_them(bench: &Bench) {
        let set = |bits: &str| {
            let prctl = libc::SYS_prctl.to_string();
            let arguments = ["syscall", &prctl, &libc::PR_SET_SECUREBITS.to_string(), bits];
            told(bench, &arguments, "SETPCAP").1
        };
        // The control: all but KEEP_CAPS itself are set and locked, and may be set to what they are.
        assert_eq!(set("0xef"), "ok");
        for bits in ["0", "0xee", "0xed", "0xaf", "0x6f"] {
            assert_eq!(set(bits), "errno 1", "{bits}");
        }
    }
}
