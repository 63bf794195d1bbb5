//! Files: mounts, devices, executables, what a root may hold, and what could be left open.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use fs_err as fs;
use pantry::sandbox::SandboxError;

use crate::bench::{Bench, case, is_root, open_up};

case! {
    fn no_mount_is_changed_and_only_scratch_is_written(bench: &Bench) {
        let input = bench.dir.path().join("input");
        fs::create_dir(&input).unwrap();
        let data = bench.writable_dir("data", 1_700_200);
        let mut policy = bench.policy(&["mounts"]).input(&input, "/in").input("/etc/hostname", "/etc/hostname");
        policy = policy.data(&data, "/data").output("/output", bench.dir.path().join("taken"));
        policy.identity.host_base = Some(1_700_200);
        let outcome = bench.run(&policy);
        assert!(outcome.end.success(), "{:?}", outcome.end);
        let said = outcome.stdout.text();
        let mut written = Vec::new();
        for line in said.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [at, kind, made, remounted, taken, covered] = words.as_slice() else { panic!("{line}") };
            assert_eq!([*remounted, *taken, *covered], ["1"; 3], "remount, umount and mount at {line}");
            match *made {
                "0" => written.push((*at, *kind)),
                errno => assert!(["30", "13", "2", "1"].contains(&errno), "{line}"),
            }
        }
        assert!(said.lines().count() > 15, "{said}");
        written.sort_unstable();
        let devices = ["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"];
        let masks = ["/proc/kcore", "/proc/keys", "/proc/kmsg", "/proc/sched_debug", "/proc/latency_stats", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/interrupts", "/proc/key-users", "/proc/timer_stats"];
        for (at, kind) in &written {
            let device = *kind == "file" && (devices.contains(at) || masks.contains(at));
            assert!(device || ["/data", "/dev/shm", "/output", "/tmp"].contains(at), "{at} was written");
        }
        for at in ["/data", "/dev/shm", "/output", "/tmp"] {
            assert!(written.contains(&(at, "dir")), "the control: {at} is to be written; {written:?}");
        }
        // What was written into the masks went nowhere.
        assert_eq!(fs::read_dir(&input).unwrap().count(), 0);
    }
}

case! {
    fn devices_cannot_be_made(bench: &Bench) {
        let data = bench.writable_dir("data", 1_700_201);
        for dir in ["/tmp", "/dev/shm", "/data"] {
            let mut policy = bench.policy(&["nodes", dir]).data(&data, "/data");
            policy.identity.host_base = Some(1_700_201);
            assert_eq!(bench.run(&policy).stdout.text(), "char 1\nblock 1\nfifo 0\n", "{dir}");
        }
        // As emulated for builds the call seems to work for owners only, not for devices.
        let build = bench.policy(&["nodes", "/tmp"]).profile(pantry::sandbox::SeccompProfile::Build);
        assert_eq!(bench.run(&build).stdout.text(), "char 1\nblock 1\nfifo 0\n");
        if is_root() {
            let control = bench.dir.path().join("control");
            fs::create_dir(&control).unwrap();
            let there = bench.outside(&["nodes", control.to_str().unwrap()]).stdout;
            assert!(there.starts_with(b"char 0\n"), "{}", String::from_utf8_lossy(&there));
        }
    }
}

/// A copy of the probe in the root, changed by a command.
fn special_copy(bench: &Bench, name: &str, command: &[&str]) -> (std::path::PathBuf, bool) {
    let path = bench.root.join("bin").join(name);
    fs::copy(bench.root.join(&bench.probe[1..]), &path).unwrap();
    let changed = Command::new(command[0]).args(&command[1..]).arg(&path).output();
    (path, changed.is_ok_and(|changed| changed.status.success()))
}

case! {
    fn setuid_and_setgid_files_of_a_root_give_nothing(bench: &Bench) {
        let (path, set) = special_copy(bench, "becomes-root", &["chmod", "6755"]);
        assert!(set && fs::metadata(&path).unwrap().permissions().mode() & 0o6000 == 0o6000);
        let mut policy = bench.policy(&["ids"]);
        policy.argv[0] = "/bin/becomes-root".into();
        let said = bench.run(&policy).stdout.text();
        assert!(said.starts_with("65532 65532 65532 pid 2"), "{said}");
        if is_root() {
            // The control: outside the file makes an ordinary id root.
            open_up(bench.dir.path());
            let there = Command::new("setpriv").args(["--reuid=61234", "--regid=61234", "--clear-groups"]).arg(&path).arg("ids").output();
            let there = there.unwrap();
            let said = String::from_utf8_lossy(&there.stdout).into_owned();
            assert!(said.starts_with("61234 0 "), "{said} {}", String::from_utf8_lossy(&there.stderr));
        }
    }
}

case! {
    fn file_capabilities_of_a_root_give_nothing(bench: &Bench) {
        let path = bench.root.join("bin/has-rights");
        fs::copy(bench.root.join(&bench.probe[1..]), &path).unwrap();
        // Version 2, effective, CAP_CHOWN permitted.
        let chown = [0x0200_0001_u32, 1, 0, 0, 0].map(u32::to_le_bytes).concat();
        let given = rustix::fs::setxattr(&path, "security.capability", &chown, rustix::fs::XattrFlags::empty());
        if is_root() {
            given.unwrap();
            // The control: outside an ordinary id has them then.
            open_up(bench.dir.path());
            let there = Command::new("setpriv")
                .args(["--reuid=61234", "--regid=61234", "--clear-groups"])
                .arg(&path)
                .args(["cat", "/proc/self/status"])
                .output()
                .unwrap();
            let there = String::from_utf8_lossy(&there.stdout).into_owned();
            assert!(there.contains("CapEff:\t0000000000000001"), "{there}");
        } else {
            assert!(given.is_err(), "only root can give files capabilities");
        }
        let mut policy = bench.policy(&["cat", "/proc/self/status"]);
        policy.argv[0] = "/bin/has-rights".into();
        let outcome = bench.run(&policy);
        let said = outcome.stdout.text();
        assert!(outcome.end.success(), "{:?} {}", outcome.end, outcome.stderr.text());
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert!(said.contains(&format!("{set}:\t0000000000000000")), "{set} in {said}");
        }
        assert!(said.contains("NoNewPrivs:\t1"), "{said}");
    }
}

case! {
    fn the_program_that_starts_jails_is_never_overwritten(bench: &Bench) {
        // CVE-2019-5736: a root whose program is the runtime's own, by link and by script.
        let before = fs::read(&bench.helper).unwrap();
        symlink("/proc/self/exe", bench.root.join("bin/itself")).unwrap();
        fs::write(bench.root.join("bin/script"), "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(bench.root.join("bin/script"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let programs = [
            ["/proc/self/exe", "true"],
            ["/bin/itself", "__jail"],
            ["/bin/script", "true"],
            ["/proc/self/exe", "__extract"],
        ];
        for [program, argument] in programs {
            let mut policy = bench.policy(&[argument]);
            policy.argv[0] = program.into();
            // Ours, in the jail, with no right and nothing to do; or not found. Never a hang, never a change.
            match bench.try_run(&policy) {
                Ok(outcome) => assert!(matches!(outcome.end, pantry::sandbox::End::Exited(_)), "{program}: {:?}", outcome.end),
                Err(SandboxError::Setup { step, .. }) => assert!(step.contains("execute"), "{program}: {step}"),
                Err(error) => panic!("{program}: {error}"),
            }
        }
        // Named as an input it is read-only, and its own file in /proc leads to the same mount.
        let own = bench.sandbox.own_executable().unwrap();
        let policy = bench.policy(&["append", "/bin/own"]).input(&own, "/bin/own");
        let said = bench.run(&policy).stdout.text();
        assert!(["errno 30\n", "errno 13\n", "errno 26\n"].contains(&said.as_str()), "{said}");
        // The init runs it all the time, and nothing of the init opens.
        let said = bench.says(&["reach", "1"]);
        for what in ["exe", "root/", "cwd/", "mem", "fd", "map_files", "environ", "ns/user", "ns/mnt", "exe-write", "exe-both", "exe-cut", "mem-write"] {
            let answer = said.lines().find_map(|line| line.strip_prefix(&format!("{what} "))).unwrap();
            assert!(["13", "1"].contains(&answer), "{what} of the init: {answer}");
        }
        // The control: of itself the program may open most, but not its executable for writing (nor, under Landlock, its
        // memory).
        let own = bench.says(&["reach", "self"]);
        assert!(own.contains("exe 0\n") && own.contains("root/ 0\n"), "{own}");
        for what in ["exe-write", "exe-both", "exe-cut"] {
            let answer = own.lines().find_map(|line| line.strip_prefix(&format!("{what} "))).unwrap();
            assert!(["13", "26", "30"].contains(&answer), "{what} of itself: {answer}");
        }
        assert!(fs::read(&bench.helper).unwrap() == before, "the program on the host is as it was");
    }
}

case! {
    fn a_root_whose_places_are_links_is_not_taken(bench: &Bench) {
        let victim = bench.dir.path().join("victim");
        fs::create_dir(&victim).unwrap();
        for name in ["dev", "proc", "sys", "tmp"] {
            let place = bench.root.join(name);
            fs::remove_dir(&place).unwrap();
            symlink(&victim, &place).unwrap();
            let refused = bench.try_run(&bench.policy(&["true"]));
            assert!(matches!(&refused, Err(SandboxError::Setup { step, .. }) if step.contains(name)), "{refused:?}");
            fs::remove_file(&place).unwrap();
            fs::create_dir(&place).unwrap();
        }
        assert!(bench.try_run(&bench.policy(&["true"])).is_ok());
        // Nor a mount point behind a link.
        symlink(&victim, bench.root.join("opt")).unwrap();
        let refused = bench.try_run(&bench.policy(&["true"]).input("/etc/hostname", "/opt/x"));
        assert!(matches!(&refused, Err(SandboxError::Setup { errno: 40, .. })), "{refused:?}");
        assert_eq!(fs::read_dir(victim).unwrap().count(), 0);
    }
}

case! {
    fn masks_are_made_of_the_hosts_null_and_not_of_the_roots(bench: &Bench) {
        // CVE-2025-31133: what covers the files of /proc came from a path that the root had filled.
        symlink("../etc/release", bench.root.join("dev/null")).unwrap();
        fs::write(bench.root.join("dev/zero"), "not zero").unwrap();
        symlink("/proc/self/exe", bench.root.join("dev/full")).unwrap();
        fs::write(bench.root.join("proc/keys"), "of the root").unwrap();
        let said = bench.says(&["stat", "/dev/null", "/dev/random", "/proc/keys", "/proc/sysrq-trigger", "/proc/timer_list"]);
        for line in said.lines().filter(|line| !line.ends_with("errno 2")) {
            let number = if line.starts_with("/dev/random") { "1:8" } else { "1:3" };
            assert!(line.ends_with(&format!("20000 {number}")), "a character device {number}: {line}");
        }
        assert!(said.contains("/dev/null 20000 1:3\n") && said.contains("/proc/keys 20000 1:3\n"), "{said}");
        assert_eq!(bench.says(&["write", "/dev/null"]), "ok");
        assert_eq!(bench.says(&["cat", "/proc/keys"]), "");
        assert_eq!(fs::read_to_string(bench.root.join("etc/release")).unwrap(), "test root\n");
        // The control: outside these are what the root's author wrote.
        assert_eq!(fs::read_to_string(bench.root.join("dev/null")).unwrap(), "test root\n");
    }
}

case! {
    fn neither_a_leaked_directory_nor_a_hostile_working_directory_leads_out(bench: &Bench) {
        // CVE-2024-21626: a directory of the host was open when the working directory was entered by its number.
        let leaked = rustix::fs::open(bench.dir.path(), rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
        assert!(!rustix::io::fcntl_getfd(&leaked).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        fs::write(bench.dir.path().join("of-the-host"), "").unwrap();
        let mut places: Vec<String> = (0..24).map(|number| format!("/proc/self/fd/{number}")).collect();
        places.extend((0..24).map(|number| format!("/w{number}")));
        for number in 0..24 {
            symlink(format!("/proc/self/fd/{number}"), bench.root.join(format!("w{number}"))).unwrap();
        }
        places.push(format!("/proc/self/fd/{}", leaked.as_raw_fd()));
        places.extend(["/proc/self/cwd", "/proc/1/cwd", "/proc/1/root", "/proc/self/root"].map(str::to_owned));
        let mut entered = 0;
        for place in places {
            let mut policy = bench.policy(&["where"]).output("/output", bench.dir.path().join("taken"));
            policy.cwd = place.clone().into();
            match bench.try_run(&policy) {
                Err(SandboxError::Setup { .. }) => {}
                Err(error) => panic!("{place}: {error}"),
                Ok(outcome) => {
                    entered += 1;
                    let said = outcome.stdout.text();
                    assert!(said.starts_with('/'), "{place} leads out: {said}");
                    assert!(!said.contains("of-the-host"), "{place} leads to the host: {said}");
                    fs::remove_dir_all(bench.dir.path().join("taken")).unwrap();
                }
            }
        }
        assert!(entered > 0, "the control: the root itself can be entered");
        assert_eq!(bench.says(&["fds"]), "0 1 2");
    }
}

case! {
    fn a_program_has_three_descriptors_and_none_leads_to_the_host(bench: &Bench) {
        // Open in the caller, also where they would be inherited, at low and at high numbers.
        let file = std::fs::File::open("/etc/hostname").unwrap();
        let high = rustix::io::fcntl_dupfd_cloexec(&file, 900).unwrap();
        rustix::io::fcntl_setfd(&high, rustix::io::FdFlags::empty()).unwrap();
        assert_eq!(bench.says(&["fds"]), "0 1 2");
        let said = bench.says(&["leaks"]);
        let links: Vec<&str> = said.lines().filter(|line| line.starts_with("fd ")).collect();
        assert_eq!(links.len(), 4, "three, and the directory that is read: {links:?}");
        for link in links {
            let target = link.splitn(3, ' ').nth(2).unwrap();
            assert!(target.starts_with("pipe:[") || target == "/dev/null" || target == "/proc", "{link}");
        }
        // The control: a program started outside inherits it.
        let there = String::from_utf8(bench.outside(&["fds"]).stdout).unwrap();
        assert!(there.split_ascii_whitespace().any(|fd| fd == "900"), "{there}");
    }
}

case! {
    fn environment_and_arguments_of_the_caller_are_not_seen(bench: &Bench) {
        let said = bench.says(&["leaks"]);
        let own: Vec<(String, String)> = std::env::vars().filter(|(_, value)| value.len() > 12).collect();
        assert!(own.len() > 2, "the control: there is something to be seen");
        for (name, value) in own.iter().filter(|(name, _)| name != "PATH") {
            assert!(!said.contains(value.as_str()), "{name} is seen inside");
        }
        for argument in std::env::args().filter(|argument| argument.len() > 12) {
            assert!(!said.contains(&argument), "{argument} is seen inside");
        }
        let root = bench.root.to_str().unwrap();
        assert!(!said.contains(root) && !said.contains("/tmp/pantry"), "where things are on the host: {said}");
        assert!(said.contains("/proc/1/environ 13:"), "{said}");
    }
}
