//! The sentences, word for word.

use std::path::PathBuf;

use super::super::network::AllowedHost;
use super::super::policy::{Identity, Limits};
use super::super::receipt::{Features, RootKind};
use super::*;

fn receipt() -> Receipt {
    let held = |limit, enforced_by| Enforced { limit, enforced_by };
    Receipt {
        limits: EnforcedLimits {
            memory: held(128 << 20, Enforcement::Watchdog),
            processes: held(128, Enforcement::Cgroup1),
            cpu: held(150, Enforcement::Cgroup2),
            wall: held(90_000, Enforcement::Watchdog),
            open_files: held(1024, Enforcement::Rlimit),
            file_size: held(64 << 20, Enforcement::Rlimit),
            output: held(u64::MAX, Enforcement::None),
        },
        kernel: "6.1.0".to_owned(),
        root_mode: false,
        features: Features {
            user_namespace: true,
            network_namespace: false,
            seccomp: true,
            landlock_abi: Some(4),
            session_keyring: true,
            own_executable: Some(OwnExecutable::ReadOnlyMount),
            root: Some(RootKind::Clone),
        },
        ownership_emulated: true,
        grants: vec!["CHOWN".parse().unwrap()],
        peak_memory_bytes: Some((34 << 20) + (512 << 10)),
        host_uid: 1000,
        notes: vec!["memory was sampled".to_owned()],
    }
}

#[test]
fn a_policy_is_told_whole() {
    let mut policy =
        Policy::new(vec!["/srv/root".into()], vec!["/bin/sh".into(), "-c".into(), "echo \x1b[31m".into()])
            .input("/etc/hosts", "/etc/hosts")
            .data("/home/ada/work", "/work")
            .output("/out", "/srv/out")
            .env("SECRET", "hunter2");
    assert_eq!(
        policy.in_words(),
        [
            r"Runs /bin/sh -c 'echo \u{1b}[31m' in / on host pantry.",
            "Its root is /srv/root, read-only.",
            "Reads /etc/hosts, which is /etc/hosts outside.",
            "Writes /work, which is /home/ada/work outside.",
            "Writes /tmp: 64 MiB in 16384 files in memory, gone at the end.",
            "Leaves /out: 16 MiB in 4096 files, copied to /srv/out at the end.",
            "Has no network.",
            "Is user 65532 and group 65532; outside an id that owns nothing, or the caller's own.",
            "Is granted nothing.",
            "Has the variables HOME, LANG, PATH, SECRET.",
            "May use 128 MiB of memory, 128 processes, 1 CPU, 3 min of time, 1024 open files a process, 64 MiB a file, 16 MiB of output.",
        ]
    );
    policy.root = vec!["/a".into(), PathBuf::from("/b")];
    policy.identity = Identity { uid: 0, gid: 0, host_base: Some(1000), host_group: Some(4242) };
    policy.network = Network::Host;
    policy.grants = vec!["network-client=tcp:443".parse().unwrap(), "KILL".parse().unwrap()];
    policy.limits = Limits { processes: 1, cpu_percent: 50, wall_ms: 0, ..Limits::command() };
    policy.require = Require { wall: Enforcement::None, ..Require::publishing() };
    policy.stdio = Stdio::Inherit;
    policy.env.clear();
    policy.inputs.clear();
    policy.data.clear();
    policy.tmpfs.clear();
    policy.outputs.clear();
    assert_eq!(
        policy.in_words()[1..],
        [
            "Its root is 2 layers, read-only, the lowest first: /a, /b.",
            "Uses the host's network.",
            "Is user 0 and group 0; outside user 1000 and group 4242, where started by root.",
            "Is granted network-client=tcp:443, KILL.",
            "Is told that a file's owner changed when nothing did.",
            "Has no environment.",
            "May use 2 GiB of memory, 1 process, 0.5 CPU, unlimited time, 4096 open files a process, 16 GiB a file.",
            "Requires memory by watchdog, processes by watchdog, or stronger.",
        ]
    );
}

#[test]
fn servers_on_loopback_are_told_with_what_they_lead_to() {
    let hosts: Vec<AllowedHost> =
        vec![serde_json::from_value(serde_json::json!({ "host": "index.example", "port": 443 })).unwrap()];
    let policy = Policy::new(vec![], vec![]).proxy(3128, hosts).service(80, "cache");
    let words = policy.in_words();
    assert!(words.contains(&"Its root is empty.".to_owned()), "{words:?}");
    assert!(words.contains(&"Reaches 127.0.0.1:3128, a proxy to index.example:443.".to_owned()), "{words:?}");
    assert!(words.contains(&"Reaches 127.0.0.1:80, the service cache.".to_owned()), "{words:?}");
    assert!(words.contains(&"Has no other network.".to_owned()), "{words:?}");
}

#[test]
fn a_receipt_is_told_whole() {
    assert_eq!(
        receipt().in_words(),
        [
            "Memory: 128 MiB, held by watchdog; it used up to 34.5 MiB.",
            "Processes: 128, held by cgroup1.",
            "Processor: 1.5 CPUs, held by cgroup2.",
            "Time: 90 s, held by watchdog.",
            "Open files: 1024 a process, held by rlimit.",
            "File size: 64 MiB, held by rlimit.",
            "Output: unlimited.",
            "Linux 6.1.0: users of its own, a filter of system calls, Landlock ABI 4.",
            "Started without root; outside it was user 1000.",
            "Is granted CHOWN.",
            "Changes of a file's owner were pretended.",
            "Note: memory was sampled.",
        ]
    );
}

#[test]
fn an_end_names_what_was_reached() {
    let limits = receipt().limits;
    for (end, with, without) in [
        (End::Exited(3), "exited with 3", "exited with 3"),
        (End::Signaled(11), "was killed by SIGSEGV", "was killed by SIGSEGV"),
        (End::Signaled(42), "was killed by signal 42", "was killed by signal 42"),
        (End::TimedOut, "ran out of its time of 90 s", "ran out of its time"),
        (End::Cancelled, "was cancelled", "was cancelled"),
        (End::Denied, "was killed by the filter of system calls", "was killed by the filter of system calls"),
        (End::LimitHit(Limit::Memory), "hit its limit of memory of 128 MiB", "hit its limit of memory"),
        (End::LimitHit(Limit::Processes), "hit its limit of processes of 128", "hit its limit of processes"),
        (
            End::LimitHit(Limit::Cpu),
            "hit its limit of processor time of 1.5 CPUs",
            "hit its limit of processor time",
        ),
        (
            End::LimitHit(Limit::Files),
            "hit a limit of its output directories",
            "hit a limit of its output directories",
        ),
    ] {
        assert_eq!(end.in_words(Some(&limits)), with);
        assert_eq!(end.in_words(None), without);
    }
}

#[test]
fn amounts_are_told_in_the_unit_that_fits() {
    assert_eq!(
        [0, 1023, 1024, 1536, 1 << 30].map(bytes),
        ["0 bytes", "1023 bytes", "1 KiB", "1.5 KiB", "1 GiB"]
    );
    assert_eq!([1, 25, 100, 250, 400].map(cpus), ["0.01 CPU", "0.25 CPU", "1 CPU", "2.5 CPUs", "4 CPUs"]);
    assert_eq!([1, 1500, 2000, 60_000, 7_200_000].map(time), ["1 ms", "1500 ms", "2 s", "1 min", "2 h"]);
    let long = "x".repeat(LONGEST + 5);
    assert!(shown(&long).ends_with("x…") && shown(&long).chars().count() == LONGEST + 1);
}
