//! The network modes `socket`, with servers on loopback inside that are served from outside, and `service`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pantry::sandbox::{
    AllowedHost, Cancel, Contact, ContactVerdict, End, HostPattern, Network, Outcome, Outside, Plug, Policy,
    SandboxError, ServiceAddress, StdinBytes, Upstream,
};

use crate::bench::{Bench, case};

const PROXY: u16 = 3128;

/// A server of the test outside: takes one request a connection, keeps it, and gives the answer.
struct Origin {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    fn new(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (kept, end) = (Arc::clone(&seen), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
                let mut bytes = Vec::new();
                let mut buffer = [0; 4096];
                // Longer than one request, so that what should not come would be seen.
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    bytes.extend_from_slice(&buffer[..read]);
                }
                kept.lock().unwrap().push(String::from_utf8(bytes).unwrap());
                let _gone = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, seen, ended, thread: Some(thread) }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _woken = std::net::TcpStream::connect(self.address);
        let _panicked = self.thread.take().unwrap().join();
    }
}

fn allowed(host: &str, port: u16, private: bool) -> AllowedHost {
    AllowedHost { host: HostPattern::parse(host).unwrap(), port, private }
}

fn run_with(bench: &Bench, policy: &Policy, outside: &Outside) -> Outcome {
    bench.sandbox.run_with(policy, StdinBytes::Empty, &Cancel::new().unwrap(), outside).unwrap()
}

/// What the probe gets from the proxy for this request, and whom the run asked for.
fn ask(bench: &Bench, allow: Vec<AllowedHost>, request: &str) -> (String, Vec<Contact>) {
    let policy = bench.policy(&["ask", "3128", request]).proxy(PROXY, allow);
    let outcome = bench.run(&policy);
    assert!(outcome.end.success(), "{:?} {}", outcome.end, outcome.stderr.text());
    (String::from_utf8(outcome.stdout.bytes).unwrap(), outcome.network)
}

fn threads_of_jails() -> Vec<String> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        // A look-up that nobody waits for any more may go on.
        if name.starts_with("jail-") && !name.starts_with("jail-lookup") {
            found.push(name);
        }
    }
    found
}

/// There is no way there, as the network namespace says by this number, or Landlock before it (EACCES).
fn refused(said: &str, errno: i32) -> bool {
    said == format!("errno {errno}") || said == "errno 13"
}

case! {
    fn nothing_but_the_servers_is_reached(bench: &Bench) {
        let origin = Origin::new("");
        let port = origin.port().to_string();
        let dial = |address: &str, port: &str| {
            let outcome = bench.run(&bench.policy(&["dial", address, port]).proxy(PROXY, vec![]).proxy(80, vec![]));
            assert!(outcome.receipt.features.network_namespace);
            outcome.stdout.text().trim().to_owned()
        };
        assert_eq!(dial("127.0.0.1", "3128"), "ok");
        assert_eq!(dial("127.0.0.1", "80"), "ok", "ports of the system are there too");
        assert!(refused(&dial("127.0.0.1", &port), 111), "the host's loopback is another");
        assert_eq!(bench.outside(&["dial", "127.0.0.1", &port]).stdout, b"ok\n", "the control");
        for address in ["192.0.2.1", "169.254.169.254", "10.0.0.1", "2001:db8::1"] {
            assert!(refused(&dial(address, "80"), 101), "{address}");
        }
        let devices = bench.run(&bench.policy(&["cat", "/proc/net/dev"]).proxy(PROXY, vec![]));
        assert_eq!(devices.stdout.text().lines().count(), 3, "loopback and the two lines of the heading");
        // Without the mode not even loopback is there.
        assert!(refused(&bench.says(&["dial", "127.0.0.1", "3128"]), 101));
        assert_eq!(bench.says(&["fds"]), "0 1 2");
        let held = bench.run(&bench.policy(&["fds"]).proxy(PROXY, vec![]));
        assert_eq!(held.stdout.text().trim(), "0 1 2", "no listener is left to the program");
    }
}

case! {
    fn services_of_the_caller_are_reached(bench: &Bench) {
        let origin = Origin::new("over tcp");
        let path = bench.dir.path().join("service.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let unix = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            stream.write_all(b"over a path").unwrap();
        });
        let mut outside = Outside::default();
        outside.services.insert("one".to_owned(), ServiceAddress::Tcp(origin.address));
        outside.services.insert("two".to_owned(), ServiceAddress::Unix(path));
        let ask = |port: &str| {
            let policy = bench.policy(&["ask", port, "x"]).service(1000, "one").service(1001, "two");
            run_with(bench, &policy, &outside).stdout.text()
        };
        assert_eq!(ask("1000"), "over tcp");
        assert_eq!(ask("1001"), "over a path");
        unix.join().unwrap();
        assert_eq!(origin.seen(), ["x"]);
        let unknown = bench.try_run(&bench.policy(&["true"]).service(1000, "one"));
        assert!(matches!(unknown, Err(SandboxError::Refused { .. })), "{unknown:?}");
    }
}

case! {
    fn the_proxy_leads_to_allowed_hosts_alone(bench: &Bench) {
        let origin = Origin::new("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello");
        let port = origin.port();
        let allow = || vec![allowed("127.0.0.1", port, true)];
        let (said, contacts) = ask(bench, allow(), &format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\nhello"));
        assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("hello"), "{said}");
        assert_eq!(origin.seen(), ["hello"]);
        let [contact] = contacts.as_slice() else { panic!("{contacts:?}") };
        assert_eq!((contact.host.as_str(), contact.port, contact.verdict), ("127.0.0.1", port, ContactVerdict::Reached));
        assert_eq!((contact.times, contact.sent_bytes > 0, contact.received_bytes > 0), (1, true, true));

        let plain = format!("GET http://127.0.0.1:{port}/a?b HTTP/1.1\r\nHost: evil.example\r\nX: y\r\n\r\n");
        let behind = format!("GET http://127.0.0.1:{port}/second HTTP/1.1\r\n\r\n");
        let (said, _) = ask(bench, allow(), &(plain + &behind));
        assert!(said.ends_with("hello"), "{said}");
        let expected = format!("GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX: y\r\nConnection: close\r\n\r\n");
        assert_eq!(origin.seen().last(), Some(&expected), "one request, rewritten, and nothing behind it");

        let others = [format!("127.0.0.1:{}", port ^ 1), format!("127.0.0.2:{port}"), "other.example:443".to_owned()];
        for other in others {
            let (said, contacts) = ask(bench, allow(), &format!("CONNECT {other} HTTP/1.1\r\n\r\n"));
            assert!(said.starts_with("HTTP/1.1 403 ") && said.contains("is not among"), "{other}: {said}");
            let [contact] = contacts.as_slice() else { panic!("{contacts:?}") };
            assert_eq!(format!("{}:{}", contact.host, contact.port), other);
            assert_eq!(contact.verdict, ContactVerdict::Refused);
            assert!(!contact.why.is_empty());
        }
        assert_eq!(origin.seen().len(), 2, "none of these was connected");
    }
}

case! {
    fn a_name_that_leads_to_a_private_address_is_refused(bench: &Bench) {
        pantry::sandbox::settle_name_service();
        let origin = Origin::new("hello");
        let port = origin.port();
        let request = format!("CONNECT localhost:{port} HTTP/1.1\r\n\r\nx");
        let (said, contacts) = ask(bench, vec![allowed("localhost", port, false)], &request);
        assert!(said.starts_with("HTTP/1.1 403 ") && said.contains("loopback"), "{said}");
        assert_eq!(contacts[0].verdict, ContactVerdict::Refused);
        assert_eq!(origin.seen(), Vec::<String>::new());
        // The control: the operator's own host may be there.
        let (said, _) = ask(bench, vec![allowed("localhost", port, true)], &request);
        assert!(said.ends_with("hello"), "{said}");
        let (said, contacts) =
            ask(bench, vec![allowed("nowhere.invalid", 443, false)], "CONNECT nowhere.invalid:443 HTTP/1.1\r\n\r\n");
        assert!(said.starts_with("HTTP/1.1 502 "), "{said}");
        assert_eq!(contacts[0].verdict, ContactVerdict::Failed);
    }
}

case! {
    fn what_is_no_request_is_answered_and_ended(bench: &Bench) {
        let long = format!("GET http://a.example/ HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(17_000));
        for request in ["GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "hello\r\n\r\n", &long] {
            let (said, contacts) = ask(bench, vec![allowed("a.example", 80, false)], request);
            assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
            assert_eq!(contacts, []);
        }
    }
}

case! {
    fn threads_and_connections_end_with_the_run(bench: &Bench) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let request = format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n");
        let mut policy = bench.policy(&["hold", "3128", "20", &request]);
        policy = policy.proxy(PROXY, vec![allowed("127.0.0.1", port, true)]);
        let cancel = Cancel::new().unwrap();
        let (mut held, outcome) = std::thread::scope(|scope| {
            let run = scope.spawn(|| bench.sandbox.run(&policy, StdinBytes::Empty, &cancel).unwrap());
            let held: Vec<_> = (0..20).map(|_| listener.accept().unwrap().0).collect();
            assert!(threads_of_jails().len() > 20, "the control: {:?}", threads_of_jails());
            cancel.cancel();
            (held, run.join().unwrap())
        });
        assert_eq!(outcome.end, End::Cancelled);
        assert_eq!(outcome.network.iter().map(|contact| contact.times).sum::<u64>(), 20);
        assert_eq!(threads_of_jails(), Vec::<String>::new());
        for stream in &mut held {
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "its connection has ended");
        }
    }
}

case! {
    fn more_connections_than_places_wait_for_one(bench: &Bench) {
        let begun = Instant::now();
        let mut policy = bench.policy(&["hold", "3128", "100", "x"]).proxy(PROXY, vec![]);
        policy.limits.wall_ms = 1_500;
        let outcome = bench.run(&policy);
        assert_eq!((outcome.end, outcome.stdout.text().as_str()), (End::TimedOut, "holding\n"));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(threads_of_jails(), Vec::<String>::new());
    }
}

case! {
    fn an_upstream_proxy_is_gone_through(bench: &Bench) {
        let upstream = Origin::new("HTTP/1.1 200 Fine\r\n\r\nthrough");
        let address = format!("http://name:word@127.0.0.1:{}", upstream.port());
        let outside = Outside {
            upstream: Upstream::from_variables(&|name| (name == "ALL_PROXY").then(|| address.clone())).unwrap(),
            ..Outside::default()
        };
        let ask = |request: &str| {
            let allow = vec![allowed("index.invalid", 443, false), allowed("index.invalid", 80, false)];
            let outcome = run_with(bench, &bench.policy(&["ask", "3128", request]).proxy(PROXY, allow), &outside);
            String::from_utf8(outcome.stdout.bytes).unwrap()
        };
        let said = ask("CONNECT index.invalid:443 HTTP/1.1\r\nProxy-Authorization: own\r\n\r\n");
        assert_eq!(said, "HTTP/1.1 200 Connection established\r\n\r\nthrough");
        let expected = "CONNECT index.invalid:443 HTTP/1.1\r\nHost: index.invalid:443\r\nProxy-Authorization: Basic bmFtZTp3b3Jk\r\n\r\n";
        assert_eq!(upstream.seen(), [expected]);
        let said = ask("GET http://index.invalid/simple/ HTTP/1.1\r\n\r\n");
        assert!(said.ends_with("through"), "{said}");
        assert!(upstream.seen()[1].starts_with("GET http://index.invalid/simple/ HTTP/1.1\r\n"));
        let said = ask("CONNECT other.invalid:443 HTTP/1.1\r\n\r\n");
        assert!(said.starts_with("HTTP/1.1 403 "), "{said}");
        assert_eq!(upstream.seen().len(), 2, "the list of allowed hosts holds all the same");
    }
}

case! {
    fn a_launch_that_fails_leaves_no_thread(bench: &Bench) {
        let mut policy = bench.policy(&["true"]).proxy(PROXY, vec![]);
        policy.argv = vec!["/bin/missing".to_owned()];
        assert!(bench.try_run(&policy).is_err());
        assert_eq!(threads_of_jails(), Vec::<String>::new());
        assert!(matches!(policy.network, Network::Socket { .. }));
    }
}

case! {
    fn the_caller_plugs_the_network_of_a_service_in_before_the_program_starts(bench: &Bench) {
        let outside = |plug: Plug| Outside { plug: Some(plug), ..Outside::default() };
        let run = |arguments: &[&str], outside: &Outside| {
            let policy = bench.policy(arguments).network(Network::Service);
            bench.sandbox.run_with(&policy, StdinBytes::Empty, &Cancel::new().unwrap(), outside)
        };
        let asked = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&asked);
        let idle = outside(Plug::new(move |_| {
            told.store(true, Ordering::SeqCst);
            Ok(())
        }));
        // The control: with nothing put in, there is loopback alone.
        let alone = run(&["dial", "192.0.2.5", "9"], &idle).unwrap();
        assert_eq!(alone.stdout.text().trim(), format!("errno {}", nix::libc::ENETUNREACH), "{}", alone.stderr.text());
        assert!(asked.load(Ordering::SeqCst));
        let here = run(&["dial", "127.0.0.1", "9"], &idle).unwrap();
        assert_eq!(here.stdout.text().trim(), format!("errno {}", nix::libc::ECONNREFUSED));
        if crate::bench::is_root() {
            // Entering it takes rights that without root only the run's own user namespace gives.
            let address = outside(Plug::new(|namespace| {
                use std::os::fd::AsRawFd as _;
                let at = format!("--net=/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
                let act = ["ip", "addr", "add", "192.0.2.5/32", "dev", "lo"];
                let done = std::process::Command::new("nsenter").arg(&at).args(act).output()?;
                let said = String::from_utf8_lossy(&done.stderr).into_owned();
                if done.status.success() { Ok(()) } else { Err(std::io::Error::other(said)) }
            }));
            let reached = run(&["dial", "192.0.2.5", "9"], &address).unwrap();
            assert_eq!(reached.stdout.text().trim(), format!("errno {}", nix::libc::ECONNREFUSED));
        }
        let torn = outside(Plug::new(|_| Err(std::io::Error::other("no cable"))));
        let refused = run(&["hostname"], &torn).unwrap_err();
        assert!(format!("{refused:?}").contains("no cable"), "{refused:?}");
        let nobody = run(&["hostname"], &Outside::default()).unwrap_err();
        assert_eq!(nobody.code(), "sandbox_policy_refused");
    }
}
