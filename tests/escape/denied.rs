//! Calls that a program may not make, and what is out of its reach. Each act is shown to work outside first, where
//! that does no harm.

use nix::libc;
use pantry::sandbox::{Cancel, End, Network, Outcome, Policy, SandboxError, StdinBytes};

use crate::bench::{Bench, case};

/// An act as a system call: name, number and arguments, whether it works outside for anybody, what it answers inside.
type Act = (&'static str, Vec<i64>, bool, i32);

/// Calls that make or enter namespaces.
fn namespaces() -> Vec<Act> {
    let new_user = i64::from(libc::CLONE_NEWUSER);
    vec![
        ("unshare(user)", vec![libc::SYS_unshare, new_user], true, 1),
        ("unshare(net)", vec![libc::SYS_unshare, i64::from(libc::CLONE_NEWNET)], false, 1),
        ("setns", vec![libc::SYS_setns, 0, 0], false, 1),
        ("clone(user)", vec![libc::SYS_clone, new_user | i64::from(libc::SIGCHLD)], true, 1),
        ("clone3", vec![libc::SYS_clone3, 0, 0], false, 38),
    ]
}

/// Calls that mount, or change the root.
fn mounting() -> Vec<Act> {
    vec![
        ("mount", vec![libc::SYS_mount, 0, 0, 0, 0, 0], false, 1),
        ("umount2", vec![libc::SYS_umount2, 0, 0], false, 1),
        ("fsopen", vec![libc::SYS_fsopen, 0, 0], false, 1),
        ("open_tree", vec![libc::SYS_open_tree, -100, 0, 0], false, 1),
        ("move_mount", vec![libc::SYS_move_mount, 0, 0, 0, 0, 0], false, 1),
        ("pivot_root", vec![libc::SYS_pivot_root, 0, 0], false, 1),
        ("chroot", vec![libc::SYS_chroot, 0], false, 1),
    ]
}

/// Calls that look into other processes.
fn other_processes() -> Vec<Act> {
    vec![
        ("ptrace(traceme)", vec![libc::SYS_ptrace, 0, 0, 0, 0], true, 1),
        ("process_vm_readv", vec![libc::SYS_process_vm_readv, 0, 0, 0, 0, 0, 0], false, 1),
    ]
}

/// Calls on keyrings, which no namespace confines.
fn keyrings() -> Vec<Act> {
    vec![
        ("keyctl(get session)", vec![libc::SYS_keyctl, 0, -3, 1], true, 1),
        ("add_key", vec![libc::SYS_add_key, 0, 0, 0, 0, 0], false, 1),
        ("request_key", vec![libc::SYS_request_key, 0, 0, 0, 0], false, 1),
    ]
}

/// Calls into parts of the kernel that no ordinary program needs.
fn kernel_surface() -> Vec<Act> {
    vec![
        ("io_uring_setup", vec![libc::SYS_io_uring_setup, 0, 0], false, 1),
        ("io_uring_enter", vec![libc::SYS_io_uring_enter, -1, 0, 0, 0, 0, 0], false, 1),
        ("bpf", vec![libc::SYS_bpf, 0, 0, 0], false, 1),
        ("perf_event_open", vec![libc::SYS_perf_event_open, 0, 0, -1, -1, 0], false, 1),
        ("userfaultfd", vec![libc::SYS_userfaultfd, 1], false, 1),
        ("fanotify_init", vec![libc::SYS_fanotify_init, 0x200, 0], false, 1),
        ("open_by_handle_at", vec![libc::SYS_open_by_handle_at, -100, 0, 0], false, 1),
        ("syslog", vec![libc::SYS_syslog, 10, 0, 0], false, 1),
        ("kexec_load", vec![libc::SYS_kexec_load, 0, 0, 0, 0], false, 1),
        ("personality(READ_IMPLIES_EXEC)", vec![libc::SYS_personality, 0x0040_0000], true, 1),
        ("openat2", vec![libc::SYS_openat2, -100, 0, 0, 0], false, 38),
        ("an unknown call", vec![1000], false, 38),
    ]
}

/// Calls that make sockets.
fn sockets() -> Vec<Act> {
    vec![
        ("socket(dccp by its kind)", vec![libc::SYS_socket, 2, 6, 0], false, 1),
        ("socket(sctp by its kind)", vec![libc::SYS_socket, 2, 5, 0], false, 1),
        ("socket(packet by its kind)", vec![libc::SYS_socket, 2, 10, 0], false, 1),
        ("socket(unix)", vec![libc::SYS_socket, 1, 1, 0], true, 0),
        ("socket(inet)", vec![libc::SYS_socket, 2, 1, 0], true, 0),
        ("socket(inet6, udp)", vec![libc::SYS_socket, 10, 2, 17], true, 0),
        ("socket(netlink, route)", vec![libc::SYS_socket, 16, 3, 0], true, 0),
        ("socket(netlink, generic)", vec![libc::SYS_socket, 16, 3, 16], true, 1),
        ("socket(netlink, uevent)", vec![libc::SYS_socket, 16, 3, 15], true, 1),
        ("socket(alg)", vec![libc::SYS_socket, 38, 5, 0], false, 1),
        ("socket(vsock)", vec![libc::SYS_socket, 40, 1, 0], false, 1),
        ("socket(packet)", vec![libc::SYS_socket, 17, 3, 0], false, 1),
        ("socket(vsock with high bits)", vec![libc::SYS_socket, 0x1_0000_0028, 1, 0], false, 1),
    ]
}

fn answer(text: &str) -> i32 {
    match text.trim().lines().last() {
        Some("ok") => 0,
        Some(line) => line.strip_prefix("errno ").and_then(|errno| errno.parse().ok()).unwrap_or(-1),
        None => -1,
    }
}

/// Each act outside, where it has to work if it works for anybody, and inside.
fn answer_as_said(bench: &Bench, acts: &[Act]) {
    for (name, numbers, outside, inside) in acts {
        let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        let mut arguments = vec!["syscall"];
        arguments.extend(words.iter().map(String::as_str));
        let there = answer(&String::from_utf8_lossy(&bench.outside(&arguments).stdout));
        if *outside {
            assert_eq!(there, 0, "{name} works outside");
        } else {
            // With wrong arguments or without the right: but the call is another answer than the filter's.
            println!("control {name}: {there} outside");
        }
        assert_eq!(answer(&bench.says(&arguments)), *inside, "{name} inside");
    }
}

case! {
    fn no_namespace_is_made_or_entered(bench: &Bench) {
        answer_as_said(bench, &namespaces());
    }
}

case! {
    fn nothing_is_mounted_and_no_root_changed(bench: &Bench) {
        answer_as_said(bench, &mounting());
    }
}

case! {
    fn no_other_process_is_looked_into(bench: &Bench) {
        answer_as_said(bench, &other_processes());
    }
}

case! {
    fn keyrings_are_out_of_reach(bench: &Bench) {
        answer_as_said(bench, &keyrings());
        assert!(bench.run(&bench.policy(&["true"])).receipt.features.session_keyring, "and a keyring of its own");
    }
}

case! {
    fn the_kernels_further_doors_are_shut(bench: &Bench) {
        answer_as_said(bench, &kernel_surface());
    }
}

case! {
    fn only_common_sockets_are_there(bench: &Bench) {
        answer_as_said(bench, &sockets());
    }
}

case! {
    fn a_learning_run_refuses_what_any_run_refuses(bench: &Bench) {
        let learning = bench.sandbox.clone().learning();
        let said = |arguments: &[&str]| {
            let cancel = Cancel::new().unwrap();
            learning.run(&bench.policy(arguments), StdinBytes::Empty, &cancel).unwrap()
        };
        let acts = [namespaces(), mounting(), other_processes(), keyrings(), kernel_surface(), sockets()];
        for (name, numbers, _, inside) in acts.iter().flatten() {
            let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            let mut arguments = vec!["syscall"];
            arguments.extend(words.iter().map(String::as_str));
            let outcome = said(&arguments);
            assert_eq!(answer(&outcome.stdout.text()), *inside, "{name}");
            let told = outcome.learned.unwrap().calls.iter().map(|call| call.errno).next().unwrap_or(0);
            assert_eq!(told, *inside, "{name} is told");
        }
        for mode in ["int80", "x32"] {
            assert_eq!(said(&[mode]).end, End::Denied, "{mode}");
        }
        // The listener is not among what the program has, nor is anything else of ours.
        assert_eq!(said(&["fds"]).stdout.text().trim(), "0 1 2");
    }
}

case! {
    fn foreign_architectures_are_killed(bench: &Bench) {
        for mode in ["int80", "x32"] {
            assert_eq!(bench.run(&bench.policy(&[mode])).end, End::Denied, "{mode}");
        }
        if !bench.outside(&["int80"]).status.success() {
            println!("control int80: this kernel runs no 32-bit calls");
        }
    }
}

case! {
    fn special_modes_are_denied(bench: &Bench) {
        assert_eq!(bench.says(&["chmod", "0755"]), "ok");
        assert_eq!(bench.says(&["chmod", "4755"]), "errno 1");
        assert_eq!(bench.says(&["chmod", "2755"]), "errno 1");
        let made = libc::O_CREAT | libc::O_WRONLY;
        let arguments = ["syscall".to_owned(), libc::SYS_openat.to_string(), "-100".into(), "0".into(), made.to_string(), "0x9ed".into()];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_eq!(bench.says(&arguments), "errno 1", "the filter answers before the bad address does");
    }
}

case! {
    fn the_init_is_out_of_reach(bench: &Bench) {
        let said = bench.says(&["openinit"]);
        let answers: Vec<&str> = said.lines().collect();
        assert_eq!(answers, ["errno 13", "errno 13", "errno 13", "errno 13", "errno 1"]);
        assert_eq!(bench.says(&["killinit"]), "alive");
        assert_eq!(bench.says(&["meddle", "1"]), ["errno 1"; 8].join("\n"));
        // The control: of itself it may ask all but what concerns its whole user, whose the init is.
        let own = "ok\nok\nok\nok\nok\nerrno 1\nok\nerrno 1";
        assert_eq!(bench.says(&["meddle", "0"]), own);
        // It may stop and kill everything else there is, and the end is told all the same.
        let outcome = bench.run(&bench.policy(&["killall"]));
        assert!(outcome.end.success(), "{:?}", outcome.end);
    }
}

case! {
    fn an_init_that_is_lost_after_the_start_ends_the_run_and_is_no_fault_of_the_host(bench: &Bench) {
        let policy = bench.policy(&["sleep"]);
        // Between executing the program and telling so there is a moment in which the end is a failed set-up.
        let outcome = (0..50).find_map(|_| run_and_kill_the_init(bench, &policy).ok()).expect("a run that began");
        assert_eq!(outcome.end, End::Signaled(9));
        assert!(outcome.receipt.notes.iter().any(|note| note.contains("init ended")), "{:?}", outcome.receipt);
    }
}

fn run_and_kill_the_init(bench: &Bench, policy: &Policy) -> Result<Outcome, SandboxError> {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| bench.try_run(policy));
        while !run.is_finished() {
            if let Some(init) = init_of(bench.probe.as_bytes()) {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(init), nix::sys::signal::Signal::SIGKILL)
                    .unwrap();
                break;
            }
            std::thread::yield_now();
        }
        run.join().unwrap()
    })
}

/// The parent of the process that has executed this program and waits, seen from outside.
fn init_of(program: &[u8]) -> Option<i32> {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace();
        if line.starts_with(program) && fields.next() == Some("S") {
            return fields.next()?.parse().ok();
        }
    }
    None
}

case! {
    fn executables_cannot_be_reopened_for_writing(bench: &Bench) {
        // As root the file is somebody else's; without root it is the id's own, busy while it runs, and read-only.
        let expected = if crate::bench::is_root() { "errno 13\nerrno 13" } else { "errno 26\nerrno 26" };
        assert_eq!(bench.says(&["exehole"]), expected);
        let other = bench.root.join("bin/other");
        fs_err::copy(bench.root.join(&bench.probe[1..]), &other).unwrap();
        let expected = if crate::bench::is_root() { "errno 13" } else { "errno 30" };
        assert_eq!(bench.says(&["append", "/bin/other"]), expected);
        // The control: its owner may, outside.
        assert_eq!(bench.outside(&["append", other.to_str().unwrap()]).stdout, b"ok\n");
    }
}

case! {
    fn no_address_is_reached_without_a_network(bench: &Bench) {
        let devices = bench.says(&["cat", "/proc/net/dev"]);
        let names: Vec<&str> = devices.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
        assert_eq!(names, ["lo"]);
        let host = bench.run(&bench.policy(&["cat", "/proc/net/dev"]).network(Network::Host));
        let there = String::from_utf8(bench.outside(&["cat", "/proc/net/dev"]).stdout).unwrap();
        assert_eq!(host.stdout.text().lines().count(), there.lines().count(), "the host's network, asked for");
        assert!(!host.receipt.features.network_namespace);
    }
}

case! {
    fn ownership_is_emulated_for_builds_only(bench: &Bench) {
        let call = libc::SYS_fchownat.to_string();
        let arguments = ["syscall", &call, "-100", "0", "0", "0", "0"];
        let plain = bench.run(&bench.policy(&arguments));
        assert_ne!(answer(&plain.stdout.text()), 0);
        assert!(!plain.receipt.ownership_emulated);
        let build = bench.run(&bench.policy(&arguments).profile(pantry::sandbox::SeccompProfile::Build));
        assert_eq!(answer(&build.stdout.text()), 0);
        assert!(build.receipt.ownership_emulated);
    }
}
