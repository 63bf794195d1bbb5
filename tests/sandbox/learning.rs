//! Learning runs: what is refused is told, nothing more is let through, and nothing hangs.

use nix::libc;
use pantry::sandbox::{Cancel, Learned, Outcome, Policy, RefusedCall, Sandbox, SeccompProfile, StdinBytes};

use crate::bench::{Bench, case};

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
