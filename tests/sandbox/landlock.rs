//! What Landlock alone denies: each act is shown to work without it.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::chown;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;

use fs_err as fs;
use pantry::sandbox::{Cancel, Network, Outcome, Policy, Sandbox, StdinBytes};

use crate::bench::{Bench, case, is_root};

/// The outside id of runs that have one.
const ID: u32 = 1_700_000;

/// The ABI that runs use here; none where this kernel has no Landlock.
fn abi(bench: &Bench) -> Option<u32> {
    let abi = bench.run(&bench.policy(&["true"])).receipt.features.landlock_abi;
    if abi.is_none() {
        println!("skipped: this kernel has no Landlock that can be used");
    }
    abi
}

fn run(sandbox: &Sandbox, policy: &Policy) -> Outcome {
    sandbox.run(policy, StdinBytes::Empty, &Cancel::new().unwrap()).unwrap()
}

/// What the probe prints with Landlock and, where tests can switch it off, without.
fn both(bench: &Bench, policy: &Policy, stdin: impl Fn() -> StdinBytes) -> (String, Option<String>) {
    let said = |sandbox: &Sandbox| {
        let outcome = sandbox.run(policy, stdin(), &Cancel::new().unwrap()).unwrap();
        outcome.stdout.text().trim_end().to_owned()
    };
    #[cfg(feature = "fault-points")]
    let without = Some(said(&bench.sandbox.clone().landlock_at_most(0)));
    #[cfg(not(feature = "fault-points"))]
    let without = None;
    (said(&bench.sandbox), without)
}

/// Denied with this error by Landlock, and by nothing else.
fn only_landlock_denies(bench: &Bench, policy: &Policy, stdin: impl Fn() -> StdinBytes, errno: i32) {
    let (with, without) = both(bench, policy, stdin);
    assert_eq!(with, format!("errno {errno}"), "{:?}", policy.argv);
    if let Some(without) = without {
        assert_eq!(without, "ok", "{:?} without Landlock", policy.argv);
    }
}

/// A file of the run's own id, outside of everything that the run is given.
fn own_file(bench: &Bench, policy: &mut Policy) -> PathBuf {
    let file = bench.dir.path().join("own-file");
    fs::write(&file, "kept").unwrap();
    policy.identity.host_base = Some(ID);
    if is_root() {
        chown(&file, Some(ID), Some(ID)).unwrap();
    }
    file
}

case! {
    fn a_file_handed_in_for_reading_is_not_opened_for_writing(bench: &Bench) {
        if abi(bench).is_none() { return; }
        let mut policy = bench.policy(&["append", "/dev/stdin"]);
        let file = own_file(bench, &mut policy);
        let stdin = || StdinBytes::File(std::fs::File::open(&file).unwrap());
        only_landlock_denies(bench, &policy, stdin, 13);
        // For what it was handed in for it is opened again.
        policy.argv = bench.argv(&["cat", "/dev/stdin"]);
        let outcome = bench.sandbox.run(&policy, stdin(), &Cancel::new().unwrap()).unwrap();
        assert_eq!(outcome.stdout.text(), "kept");
        // So are the other streams. As root the pipe behind them is somebody else's to the program, by its mode.
        assert_eq!(bench.says(&["stderragain"]), if is_root() { "errno 13" } else { "ok" });
    }
}

case! {
    fn nothing_is_written_in_proc(bench: &Bench) {
        if abi(bench).is_none() { return; }
        let nothing = || StdinBytes::Empty;
        // With it a program makes itself dearer to the kernel than its init and everybody else.
        only_landlock_denies(bench, &bench.policy(&["append", "/proc/self/oom_score_adj"]), nothing, 13);
        only_landlock_denies(bench, &bench.policy(&["append", "/proc/self/mem"]), nothing, 13);
        only_landlock_denies(bench, &bench.policy(&["append", "/proc/self/comm"]), nothing, 13);
        assert_eq!(bench.says(&["cat", "/proc/self/oom_score_adj"]), "1000");
    }
}

case! {
    fn without_a_network_no_port_is_taken(bench: &Bench) {
        if abi(bench).is_none_or(|abi| abi < 4) { return; }
        only_landlock_denies(bench, &bench.policy(&["bind", "8080"]), || StdinBytes::Empty, 13);
        let (with, without) = both(bench, &bench.policy(&["connectto", "80"]), || StdinBytes::Empty);
        assert_eq!(with, "errno 13");
        if let Some(without) = without {
            assert_eq!(without, "errno 101", "there is nothing to reach without it too");
        }
    }
}

case! {
    fn on_the_hosts_network_abstract_sockets_are_out_of_reach(bench: &Bench) {
        if abi(bench).is_none_or(|abi| abi < 6) { return; }
        let name = format!("pantry-test-{}", std::process::id());
        let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let policy = bench.policy(&["unixto", &format!("@{name}")]).network(Network::Host);
        only_landlock_denies(bench, &policy, || StdinBytes::Empty, 1);
    }
}

case! {
    fn the_init_is_not_signalled(bench: &Bench) {
        if abi(bench).is_none_or(|abi| abi < 6) { return; }
        only_landlock_denies(bench, &bench.policy(&["signalinit"]), || StdinBytes::Empty, 1);
    }
}

case! {
    fn what_ordinary_programs_do_with_files_works(bench: &Bench) {
        let data = bench.writable_dir("data", ID);
        let mut policy = bench.policy(&[]).data(&data, "/data").output("/output", bench.dir.path().join("taken"));
        policy.identity.host_base = Some(ID);
        for place in ["/tmp", "/data", "/output"] {
            policy.argv = bench.argv(&["usefiles", place]);
            assert_eq!(run(&bench.sandbox, &policy).stdout.text(), "done\n", "{place}");
            fs::remove_dir_all(bench.dir.path().join("taken")).unwrap();
        }
    }
}

#[cfg(feature = "fault-points")]
case! {
    fn every_abi_does_what_it_can_and_the_receipt_says_which(bench: &Bench) {
        let Some(abi) = abi(bench) else { return };
        for at_most in 0..=8 {
            let sandbox = bench.sandbox.clone().landlock_at_most(at_most);
            let outcome = run(&sandbox, &bench.policy(&["usefiles", "/tmp"]));
            assert_eq!(outcome.stdout.text(), "done\n", "ABI {at_most}");
            let used = (at_most > 1).then(|| at_most.min(abi));
            assert_eq!(outcome.receipt.features.landlock_abi, used, "ABI {at_most}");
            let score = run(&sandbox, &bench.policy(&["append", "/proc/self/oom_score_adj"]));
            assert_eq!(score.stdout.text(), if used.is_some() { "errno 13\n" } else { "ok\n" }, "ABI {at_most}");
            let bind = run(&sandbox, &bench.policy(&["bind", "8080"]));
            let held = used.is_some_and(|abi| abi >= 4);
            assert_eq!(bind.stdout.text(), if held { "errno 13\n" } else { "ok\n" }, "ABI {at_most}");
        }
    }
}

case! {
    fn the_receipt_says_the_abi_that_this_kernel_has(bench: &Bench) {
        use ::landlock::{ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, Scope};
        let has = |ask: &dyn Fn(Ruleset) -> Result<Ruleset, ::landlock::RulesetError>| {
            ask(Ruleset::default().set_compatibility(CompatLevel::HardRequirement)).is_ok()
        };
        let least = if has(&|rules| rules.scope(Scope::from_all(ABI::V6))) {
            6
        } else if has(&|rules| rules.handle_access(AccessFs::from_all(ABI::V5))) {
            5
        } else if has(&|rules| rules.handle_access(AccessNet::from_all(ABI::V4))) {
            4
        } else if has(&|rules| rules.handle_access(AccessFs::from_all(ABI::V3))) {
            3
        } else if has(&|rules| rules.handle_access(AccessFs::from_all(ABI::V2))) {
            2
        } else {
            0
        };
        let used = bench.run(&bench.policy(&["true"])).receipt.features.landlock_abi;
        match used {
            None => assert_eq!(least, 0),
            Some(abi) if least < 6 => assert_eq!(abi, least),
            Some(abi) => assert!((6..=7).contains(&abi), "{abi}"),
        }
    }
}
