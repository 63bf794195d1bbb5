//! Learning runs: what is refused is told, nothing more is let through, and nothing hangs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use pantry::sandbox::{
    AddressRefusal, Cancel, End, ExecOptions, Learned, Network, Outcome, PathRefusal, Policy, RefusedCall,
    Sandbox, SeccompProfile, StdinBytes, Stdio as Streams, exec_with,
};

use crate::bench::{Bench, case, is_root, open_up};

/// Set in the process that is to call `exec_with`: the policy and the helper.
const POLICY: &str = "PANTRY_TEST_LEARNING_POLICY";
const HELPER: &str = "PANTRY_TEST_LEARNING_HELPER";

fn run(sandbox: &Sandbox, policy: &Policy) -> Outcome {
    sandbox.clone().learning().run(policy, StdinBytes::Empty, &Cancel::new().unwrap()).unwrap()
}

/// What a program printed and what was learned of it; it has to end well.
fn learned(bench: &Bench, arguments: &[&str]) -> (String, Learned) {
    let outcome = run(&bench.sandbox, &bench.policy(arguments));
    assert!(outcome.end.success(), "{arguments:?}: {:?} {}", outcome.end, outcome.stderr.text());
    (outcome.stdout.text().trim_end().to_owned(), outcome.learned.unwrap())
}

case! {
    fn refused_calls_are_told_by_name_with_what_made_the_difference(bench: &Bench) {
        let told = |number: libc::c_long, first: &str, second: &str| {
            let (said, learned) = learned(bench, &["syscall", &number.to_string(), first, second]);
            let call = learned.calls.into_iter().next_back().unwrap();
            assert_eq!(said, format!("errno {}", call.errno));
            assert_eq!(learned.paths, []);
            call
        };
        let call = |name: &str, number: libc::c_long, errno: i32, detail: Option<&str>| RefusedCall {
            name: name.to_owned(),
            number: u32::try_from(number).unwrap(),
            detail: detail.map(str::to_owned),
            errno,
            times: 1,
        };
        assert_eq!(told(libc::SYS_ptrace, "0", "0"), call("ptrace", libc::SYS_ptrace, 1, None));
        assert_eq!(told(libc::SYS_chroot, "0", "0"), call("chroot", libc::SYS_chroot, 1, None));
        assert_eq!(told(libc::SYS_clone3, "0", "0"), call("clone3", libc::SYS_clone3, 38, None));
        assert_eq!(told(1000, "0", "0"), call("call 1000", 1000, 38, None));
        let vsock = Some("AF_VSOCK, SOCK_STREAM, protocol 0");
        assert_eq!(told(libc::SYS_socket, "40", "1"), call("socket", libc::SYS_socket, 1, vsock));
        assert_eq!(told(libc::SYS_ioctl, "0", "0x5412"), call("ioctl", libc::SYS_ioctl, 1, Some("TIOCSTI")));
        let user = Some("CLONE_NEWUSER");
        assert_eq!(told(libc::SYS_clone, "0x10000011", "0"), call("clone", libc::SYS_clone, 1, user));
    }
}

case! {
    fn what_is_refused_is_counted_and_what_is_not_is_not_listed(bench: &Bench) {
        let (said, both) = learned(bench, &["chmod", "4755"]);
        assert_eq!(said, "errno 1");
        assert_eq!(both.in_words(), ["chmod (mode 4755) ×1: refused with EPERM; no grant gives setuid and setgid bits; leave them out of the mode"]);
        let (said, nothing) = learned(bench, &["chmod", "0755"]);
        assert_eq!((said.as_str(), nothing), ("ok", Learned::default()));
        let (_, meddled) = learned(bench, &["meddle", "1"]);
        assert_eq!(meddled.calls.iter().map(|call| call.times).sum::<u64>(), 8);
        // In forked children too.
        let (_, died) = learned(bench, &["statusofchild"]);
        assert_eq!(died.calls, []);
        // The control: an ordinary run tells nothing.
        assert_eq!(bench.run(&bench.policy(&["chmod", "4755"])).learned, None);
    }
}

case! {
    fn ownership_that_is_answered_without_acting_is_not_listed(bench: &Bench) {
        let number = libc::SYS_fchownat.to_string();
        let policy = bench.policy(&["syscall", &number, "-100", "0", "1", "1", "0"]).profile(SeccompProfile::Build);
        let outcome = run(&bench.sandbox, &policy);
        assert_eq!(outcome.stdout.text(), "ok\n");
        assert_eq!(outcome.learned.unwrap(), Learned::default());
        assert!(outcome.receipt.ownership_emulated);
    }
}

case! {
    fn the_receipt_says_that_it_was_a_learning_run(bench: &Bench) {
        let outcome = run(&bench.sandbox, &bench.policy(&["true"]));
        assert!(outcome.receipt.notes.iter().any(|note| note.starts_with("a learning run")), "{:?}", outcome.receipt);
        let ordinary = bench.run(&bench.policy(&["true"]));
        assert!(!ordinary.receipt.notes.iter().any(|note| note.contains("learning")));
    }
}

fn paths(learned: &Learned) -> Vec<(&str, &str, PathRefusal)> {
    learned.paths.iter().map(|path| (path.path.as_str(), path.call.as_str(), path.why)).collect()
}

case! {
    fn refused_paths_are_told_with_the_reason(bench: &Bench) {
        let shut = bench.root.join("etc/shut");
        fs_err::write(&shut, "").unwrap();
        fs_err::set_permissions(&shut, std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
        std::os::unix::fs::symlink("/etc/release", bench.root.join("link")).unwrap();
        std::os::unix::fs::symlink("/../../../tmp/there", bench.root.join("out")).unwrap();
        let read_only = PathRefusal::ReadOnly;
        // Somebody else's file on such a mount is refused for its mode, which the kernel looks at first.
        let existing = if is_root() { 13 } else { 30 };
        for (arguments, said, expected) in [
            (["write", "/etc/new"], 30, Some(("/etc/new", "openat", read_only))),
            (["write", "etc/../etc/./release"], 30, Some(("/etc/release", "openat", read_only))),
            (["append", "/link"], existing, Some(("/link", "openat", read_only))),
            (["write", "/missing/new"], 2, Some(("/missing/new", "openat", read_only))),
            (["unlink", "/etc/release"], 30, Some(("/etc/release", "unlink", read_only))),
            (["rmdir", "/etc/"], 30, Some(("/etc", "rmdir", read_only))),
            (["cat", "/etc/shut"], 13, Some(("/etc/shut", "openat", PathRefusal::NoPermission))),
            (["execute", "/etc/release"], 13, Some(("/etc/release", "execve", PathRefusal::NoPermission))),
            (["write", "/tmp/new"], 0, None),
            (["write", "/out"], 0, None),
            (["append", "/dev/null"], 0, None),
            (["append", "/etc/missing"], 2, None),
            (["execute", "/etc/missing"], 2, None),
            (["cat", "/etc/release"], 0, None),
        ] {
            let outcome = run(&bench.sandbox, &bench.policy(&arguments));
            let answer = outcome.stdout.text();
            match said {
                0 => assert!(!answer.contains("errno"), "{arguments:?}: {answer}"),
                said => assert_eq!(answer, format!("errno {said}\n"), "{arguments:?}"),
            }
            let learned = outcome.learned.unwrap();
            assert_eq!(paths(&learned), expected.into_iter().collect::<Vec<_>>(), "{arguments:?}");
            assert_eq!((learned.unread, learned.calls), (0, vec![]), "{arguments:?}");
        }
        let mut policy = bench.policy(&["write", "../etc/relative"]);
        policy.cwd = "/tmp".into();
        let learned = run(&bench.sandbox, &policy).learned.unwrap();
        assert_eq!(paths(&learned), [("/etc/relative", "openat", read_only)]);
    }
}

case! {
    fn places_of_proc_are_told_by_what_guards_them(bench: &Bench) {
        let learned_of = |sandbox: &Sandbox, arguments: &[&str]| {
            run(sandbox, &bench.policy(arguments)).learned.unwrap()
        };
        let own = ["append", "/proc/self/oom_score_adj"];
        let landlock = bench.run(&bench.policy(&["true"])).receipt.features.landlock_abi.is_some();
        let expected = landlock.then_some(("openat", PathRefusal::Landlock));
        let told = learned_of(&bench.sandbox, &own);
        assert_eq!(told.paths.iter().map(|path| (path.call.as_str(), path.why)).next(), expected);
        #[cfg(feature = "fault-points")]
        assert_eq!(learned_of(&bench.sandbox.clone().landlock_at_most(0), &own), Learned::default());
        let setting = learned_of(&bench.sandbox, &["append", "/proc/sys/kernel/hostname"]);
        assert_eq!(paths(&setting), [("/proc/sys/kernel/hostname", "openat", PathRefusal::ReadOnly)]);
        if Path::new("/proc/timer_list").exists() {
            let masked = learned_of(&bench.sandbox, &["cat", "/proc/timer_list"]);
            assert_eq!(paths(&masked), [("/proc/timer_list", "openat", PathRefusal::Masked)]);
        }
        assert_eq!(learned_of(&bench.sandbox, &["cat", "/proc/self/status"]), Learned::default());
    }
}

case! {
    fn addresses_out_of_reach_are_told(bench: &Bench) {
        let told = |arguments: &[&str]| {
            let learned = run(&bench.sandbox, &bench.policy(arguments)).learned.unwrap();
            assert_eq!((&learned.calls, &learned.paths, learned.unread), (&vec![], &vec![], 0));
            let all = learned.addresses.into_iter();
            all.map(|one| (one.address.to_string(), one.call, one.why, one.times)).collect::<Vec<_>>()
        };
        let one = |address: &str, call: &str, why: AddressRefusal| vec![(address.to_owned(), call.to_owned(), why, 1)];
        let out = |address: &str| one(address, "connect", AddressRefusal::NoNetwork);
        assert_eq!(told(&["dial", "192.0.2.1", "443"]), out("192.0.2.1:443"));
        assert_eq!(told(&["dial", "2001:db8::1", "443"]), out("[2001:db8::1]:443"));
        assert_eq!(told(&["bind", "80"]), one("0.0.0.0:80", "bind", AddressRefusal::LowPort));
        let abi = bench.run(&bench.policy(&["true"])).receipt.features.landlock_abi;
        let shut = one("0.0.0.0:8080", "bind", AddressRefusal::Landlock);
        assert_eq!(told(&["bind", "8080"]), if abi.is_some_and(|abi| abi >= 4) { shut } else { vec![] });
        // The control: with the host's network nothing is out of reach.
        let policy = bench.policy(&["bind", "0"]).network(Network::Host);
        assert_eq!(run(&bench.sandbox, &policy).learned, Some(Learned::default()));
    }
}

case! {
    fn ordinary_programs_do_in_a_learning_run_what_they_do_in_any(bench: &Bench) {
        let data = bench.writable_dir("data", 3_000_000);
        open_up(bench.dir.path());
        let mut policy = bench.policy(&["usefiles", "/data"]).data(data, "/data");
        policy.identity.host_base = Some(3_000_000);
        let outcome = run(&bench.sandbox, &policy);
        assert_eq!(outcome.stdout.text(), "done\n");
        assert_eq!(paths(&outcome.learned.unwrap()), []);
    }
}

case! {
    fn ten_thousand_different_refusals_are_listed_within_bounds(bench: &Bench) {
        let (said, learned) = learned(bench, &["refusals", "10000"]);
        assert_eq!(said, "done");
        assert_eq!((learned.calls.len(), learned.paths.len()), (256, 256));
        assert_eq!(learned.left_out, 2 * (10_000 - 256));
        assert_eq!(learned.paths[7].path, "/7\\u{1b}", "what it shows can't drive a terminal");
    }
}

case! {
    fn paths_that_change_while_they_are_read_harm_nobody(bench: &Bench) {
        let (said, learned) = learned(bench, &["race", "3000"]);
        assert_eq!(said, "done");
        assert!(learned.unread >= 3000, "addresses where nothing is: {learned:?}");
        for path in &learned.paths {
            assert!(path.path.starts_with('/') && path.path.len() < 5000, "{path:?}");
        }
    }
}

case! {
    fn callers_that_die_while_they_are_answered_leave_nothing_waiting(bench: &Bench) {
        let (said, learned) = learned(bench, &["dierefused", "100"]);
        assert_eq!(said, "done");
        let refused = learned.calls.iter().find(|call| call.name == "ptrace").unwrap();
        assert!(refused.times > 100, "{refused:?}");
    }
}

case! {
    fn a_learning_run_ends_with_its_clock_and_when_it_is_cancelled(bench: &Bench) {
        let mut policy = bench.policy(&["refusedforever"]);
        policy.limits.wall_ms = 500;
        let begun = Instant::now();
        let outcome = run(&bench.sandbox, &policy);
        assert_eq!(outcome.end, End::TimedOut);
        assert!(outcome.learned.unwrap().calls.iter().any(|call| call.name == "ptrace" && call.times > 10));
        policy.limits.wall_ms = 20_000;
        let cancel = Cancel::new().unwrap();
        let other = cancel.clone();
        let outcome = std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                other.cancel();
            });
            bench.sandbox.clone().learning().run(&policy, StdinBytes::Empty, &cancel).unwrap()
        });
        assert_eq!(outcome.end, End::Cancelled);
        // One that never began has learned nothing.
        let outcome = bench.sandbox.clone().learning().run(&policy, StdinBytes::Empty, &cancel).unwrap();
        assert_eq!((outcome.end, outcome.learned), (End::Cancelled, Some(Learned::default())));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}

/// Not a case by itself: the process in which `exec_with` is called. Without its variables it has nothing to do.
#[test]
fn the_learning_process() {
    let (Ok(policy), Ok(helper)) = (std::env::var(POLICY), std::env::var(HELPER)) else { return };
    let policy: Policy = serde_json::from_str(&policy).unwrap();
    let status = exec_with(&policy, &ExecOptions { helper: Some(helper.into()), learn: true }).unwrap();
    println!("{}", status.learned.unwrap().in_words().join("\n"));
    std::process::exit(status.code);
}

case! {
    fn a_command_with_the_callers_own_streams_learns_too(bench: &Bench) {
        let policy = bench.policy(&["chroot", "/tmp"]).profile(SeccompProfile::Command).stdio(Streams::Inherit);
        let output = Command::new("env")
            .arg("--block-signal=HUP,INT,QUIT,USR1,USR2,ALRM,TERM,WINCH")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "learning::the_learning_process", "--nocapture", "-q"])
            .env(POLICY, serde_json::to_string(&policy).unwrap())
            .env(HELPER, &bench.helper)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("errno 1\nchroot ×1: refused with EPERM; the grant SYS_CHROOT allows it\n"), "{said}");
    }
}

/// Learning runs are for authors at home: no other part than the command line may ask for one.
#[test]
fn nothing_but_the_command_line_asks_for_learning_runs() {
    fn asking(dir: &Path, found: &mut Vec<String>) {
        for entry in fs_err::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                asking(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs_err::read_to_string(&path).unwrap();
                if [".learning()", "exec_with(", "ExecOptions"].iter().any(|door| text.contains(door)) {
                    let from = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
                    found.push(from.display().to_string());
                }
            }
        }
    }
    let mut found = Vec::new();
    asking(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let doors = |path: &&String| path.starts_with("src/sandbox") || path.starts_with("src/cli/");
    assert!(found.iter().any(|path| path.starts_with("src/sandbox")), "{found:?}");
    assert!(found.iter().all(|path| doors(&path)), "{found:?}");
}
