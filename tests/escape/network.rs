//! What is reached over sockets, and which sockets there are.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use pantry::sandbox::{Cancel, End, StdinBytes};

use crate::bench::{Bench, case};

const UNIX: u32 = 1;
const INET: u32 = 2;
const INET6: u32 = 10;
const NETLINK: u32 = 16;
const STREAM: u32 = 1;
const DGRAM: u32 = 2;

/// Family, kind, protocol and the answer of every socket that the probe tried.
fn tried(said: &str) -> Vec<[u32; 4]> {
    said.lines()
        .map(|line| {
            let numbers: Vec<u32> = line.split(' ').map(|word| word.parse().unwrap()).collect();
            numbers.try_into().unwrap()
        })
        .collect()
}

case! {
    fn socket_families_kinds_and_protocols_are_few(bench: &Bench) {
        let inside = tried(&bench.says(&["families"]));
        assert!(inside.len() > 1500);
        for [family, kind, protocol, answer] in &inside {
            let place = format!("family {family}, kind {kind}, protocol {protocol}");
            let of_filter = match (*family, *kind) {
                (UNIX, _) => true,
                (INET | INET6, STREAM) => matches!(protocol, 0 | 6),
                (INET, DGRAM) => matches!(protocol, 0 | 1 | 17),
                (INET6, DGRAM) => matches!(protocol, 0 | 17 | 58),
                (NETLINK, _) => *protocol == 0,
                _ => false,
            };
            if !of_filter {
                assert_eq!(*answer, 1, "{place}");
            }
        }
        let opens = |sockets: &[[u32; 4]], wanted: [u32; 3]| {
            sockets.iter().any(|[f, k, p, answer]| [*f, *k, *p] == wanted && *answer == 0)
        };
        for wanted in [[UNIX, 1, 0], [UNIX, 2, 0], [UNIX, 5, 0], [INET, 1, 0], [INET, 2, 17], [INET6, 1, 6], [NETLINK, 3, 0]] {
            assert!(opens(&inside, wanted), "{wanted:?} is what every program uses");
        }
        // The control: outside, the generic and the diagnostic protocols of netlink are anybody's.
        let outside = tried(&String::from_utf8_lossy(&bench.outside_plain(&["families"]).stdout));
        for protocol in [4, 16] {
            assert!(opens(&outside, [NETLINK, 3, protocol]), "netlink {protocol} outside");
        }
    }
}

case! {
    fn the_families_behind_the_page_cache_bugs_are_denied(bench: &Bench) {
        let call = nix::libc::SYS_socket.to_string();
        let pair = nix::libc::SYS_socketpair.to_string();
        // ALG; netlink XFRM, NETFILTER, GENERIC, CRYPTO; KEY, RXRPC, RDS, SMC, KCM, TIPC, CAN, XDP, PACKET, VSOCK.
        for (family, kind, protocol) in [
            (38, 5, 0), (16, 3, 6), (16, 3, 12), (16, 3, 16), (16, 3, 21), (15, 3, 2), (33, 2, 2), (21, 5, 0),
            (43, 1, 0), (41, 2, 0), (30, 1, 0), (29, 3, 1), (44, 3, 0), (17, 3, 768), (40, 1, 0),
        ] {
            for high in [0_u64, 1 << 32, 1 << 63] {
                let numbers = [family | high, kind, protocol].map(|number| format!("{number:#x}"));
                for call in [&call, &pair] {
                    let arguments = ["syscall", call, &numbers[0], &numbers[1], &numbers[2]];
                    assert_eq!(bench.says(&arguments), "errno 1", "{arguments:?}");
                }
            }
        }
        // The control: outside somebody may have netlink's generic protocol, of which one is chosen above.
        assert_eq!(bench.outside(&["syscall", &call, "16", "3", "16"]).stdout, b"ok\n");
    }
}

case! {
    fn the_machines_host_is_not_reached_by_vsock(bench: &Bench) {
        // A network namespace does not confine it, so the filter must.
        let call = nix::libc::SYS_socket.to_string();
        for kind in ["1", "2", "5"] {
            assert_eq!(bench.says(&["syscall", &call, "40", kind, "0"]), "errno 1");
            assert_eq!(bench.says(&["syscall", &call, "0x7fffffff00000028", kind, "0"]), "errno 1");
        }
        let outside = bench.outside(&["syscall", &call, "40", "1", "0"]).stdout;
        println!("control: outside it answers {}", String::from_utf8_lossy(&outside).trim());
        assert_ne!(outside, b"errno 1\n");
    }
}

case! {
    fn neither_the_metadata_service_nor_the_host_is_reached(bench: &Bench) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        // The control: there is a listener, and outside it is reached.
        assert_eq!(bench.outside(&["connect", "127.0.0.1", &port]).stdout, b"stream 0\ndatagram 0\n");
        for (host, port) in [
            ("127.0.0.1", port.as_str()), ("169.254.169.254", "80"), ("169.254.170.2", "80"), ("100.100.100.200", "80"),
            ("192.0.0.192", "80"), ("10.0.0.1", "53"), ("192.0.2.1", "443"), ("0.0.0.0", port.as_str()),
        ] {
            let said = bench.says(&["connect", host, port]);
            // Landlock answers before the network namespace does, where it knows of TCP.
            let refused = ["stream 101\ndatagram 101", "stream 13\ndatagram 101"];
            assert!(refused.contains(&said.as_str()), "{host}: {said}");
        }
        for host in ["::1", "fd00:ec2::254", "2001:db8::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"] {
            let said = bench.says(&["connect", host, "80"]);
            // The address is not to be had, or no way leads there.
            assert!(said.lines().all(|line| [" 101", " 99", " 13"].iter().any(|end| line.ends_with(end))), "{host}: {said}");
        }
    }
}

/// Starts a listener inside on an abstract name, and does something while it listens.
fn while_listening(bench: &Bench, name: &str, act: impl FnOnce()) {
    let id = 1_700_100;
    let mark = bench.writable_dir("mark", id);
    let mut policy = bench.policy(&["listen", name, "/data/ready"]).data(&mark, "/data");
    policy.identity.host_base = Some(id);
    let cancel = Cancel::new().unwrap();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| bench.sandbox.run(&policy, StdinBytes::Empty, &cancel).unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !mark.join("ready").exists() && Instant::now() < deadline && !run.is_finished() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let listens = mark.join("ready").exists() && !run.is_finished();
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        cancel.cancel();
        assert_eq!(run.join().unwrap().end, End::Cancelled);
        assert!(listens, "the listener inside was there");
        acted.unwrap();
    });
}

case! {
    fn abstract_sockets_belong_to_one_run(bench: &Bench) {
        let name = format!("pantry-escape-{}", std::process::id());
        while_listening(bench, &name, || {
            assert_eq!(bench.says(&["join", &name]), "connect 111", "from another run");
            assert_eq!(bench.outside(&["join", &name]).stdout, b"connect 111\n", "from outside");
        });
        // The control: one that listens outside is reached outside, and from no run.
        let mark = bench.dir.path().join("outside-ready");
        let mut listener = std::process::Command::new(bench.root.join(&bench.probe[1..]))
            .args(["listen", &name, mark.to_str().unwrap()])
            .spawn()
            .unwrap();
        while !mark.exists() {
            assert!(listener.try_wait().unwrap().is_none(), "the listener outside ended");
            std::thread::sleep(Duration::from_millis(2));
        }
        let (there, here) = (bench.outside(&["join", &name]).stdout, bench.says(&["join", &name]));
        listener.kill().unwrap();
        listener.wait().unwrap();
        assert_eq!(there, b"connect 0\n");
        assert_eq!(here, "connect 111");
    }
}
