//! `/proc` inside: what is masked, what is read-only, each place by itself.

use std::path::Path;

use crate::bench::{Bench, case};

/// Read as empty.
const FILES: [&str; 10] = [
    "interrupts",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "sysrq-trigger",
    "timer_list",
    "timer_stats",
];
/// Empty.
const DIRECTORIES: [&str; 3] = ["acpi", "asound", "scsi"];
/// Kept, and not to be written.
const READ_ONLY: [&str; 4] = ["bus", "fs", "irq", "sys"];

/// Those that this kernel has; what it lacks is said.
fn there<'a>(names: &'a [&'a str]) -> impl Iterator<Item = String> + 'a {
    names.iter().filter_map(|name| {
        let path = format!("/proc/{name}");
        let there = Path::new(&path).exists();
        if !there {
            println!("not on this kernel: {path}");
        }
        there.then_some(path)
    })
}

fn answer(bench: &Bench, arguments: &[&str]) -> String {
    bench.run(&bench.policy(arguments)).stdout.text().trim_end().to_owned()
}

case! {
    fn masked_files_are_empty_and_stay(bench: &Bench) {
        let mounts = bench.says(&["cat", "/proc/self/mountinfo"]);
        let mut seen = 0;
        for path in there(&FILES) {
            seen += 1;
            assert!(mounts.lines().any(|line| line.split(' ').nth(4) == Some(&path)), "{path} is no mount: {mounts}");
            assert_eq!(answer(bench, &["cat", &path]), "", "{path}");
            // Writing is denied by Landlock, or ends in the null device; nothing can take the mask away.
            assert!(["errno 13", "ok"].contains(&answer(bench, &["append", &path]).as_str()), "{path}");
            assert!(["errno 1", "errno 13", "errno 16"].contains(&answer(bench, &["unlink", &path]).as_str()), "{path}");
        }
        assert!(seen >= 4, "the rest of the list is not of this kernel");
        // The control: outside there is something to read.
        assert_ne!(bench.outside(&["cat", "/proc/key-users"]).stdout, b"");
    }
}

case! {
    fn masked_directories_are_empty_and_read_only(bench: &Bench) {
        let mounts = bench.says(&["cat", "/proc/self/mountinfo"]);
        for path in there(&DIRECTORIES) {
            let mount = mounts.lines().find(|line| line.split(' ').nth(4) == Some(&path));
            let options = mount.and_then(|line| line.split(' ').nth(5)).unwrap_or_default();
            assert!(options.starts_with("ro,") && options.contains("noexec"), "{path}: {mount:?}");
            let mut names: Vec<String> = answer(bench, &["ls", &path]).lines().map(str::to_owned).collect();
            names.sort();
            assert_eq!(names, [".", ".."], "{path}");
            assert_eq!(answer(bench, &["write", &format!("{path}/x")]), "errno 30", "{path}");
            assert_ne!(answer(bench, &["rmdir", &path]), "ok", "{path}");
        }
    }
}

case! {
    fn settings_are_read_and_not_written(bench: &Bench) {
        let mounts = bench.says(&["cat", "/proc/self/mountinfo"]);
        for path in there(&READ_ONLY) {
            let mount = mounts.lines().find(|line| line.split(' ').nth(4) == Some(&path));
            let options = mount.and_then(|line| line.split(' ').nth(5)).unwrap_or_default();
            for option in ["ro", "nosuid", "nodev", "noexec"] {
                assert!(options.split(',').any(|one| one == option), "{path}: {mount:?}");
            }
            assert!(answer(bench, &["ls", &path]).lines().count() > 2, "{path} is not masked");
        }
        // Also as the id that owns the run's user namespace, with a right over its network.
        let policy = bench.policy(&["append", "/proc/sys/net/ipv4/ip_forward"]).identity(0, 0);
        let policy = policy.grant("NET_ADMIN".parse().unwrap());
        assert_eq!(bench.run(&policy).stdout.text(), "errno 30\n");
    }
}

case! {
    fn what_tools_read_is_there(bench: &Bench) {
        for path in ["/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/self/maps", "/proc/mounts", "/proc/uptime"] {
            assert!(!answer(bench, &["cat", path]).is_empty(), "{path}");
        }
        assert_eq!(bench.says(&["cat", "/proc/sys/kernel/hostname"]), "pantry");
    }
}
