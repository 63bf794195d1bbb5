//! What a program finds when it is started.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;

use fs_err as fs;
use pantry::sandbox::{Cancel, Enforcement, OwnExecutable, Policy, RootKind, SandboxError, StdinBytes};

use crate::bench::{case, is_root};

case! {
    fn a_program_runs_and_its_exit_code_comes_back(bench: &Bench) {
        assert_eq!(bench.run(&bench.policy(&["exit", "37"])).end, pantry::sandbox::End::Exited(37));
        let outcome = bench.run(&bench.policy(&["say", "hello", "a b"]));
        assert!(outcome.end.success());
        assert_eq!(outcome.stdout.text(), "hello\na b\n");
        assert_eq!(outcome.stderr.text(), "to stderr\n");
    }
}

case! {
    fn nothing_is_inherited(bench: &Bench) {
        let mut said: Vec<String> = bench.says(&["env"]).lines().map(str::to_owned).collect();
        said.sort();
        assert_eq!(said, ["HOME=/tmp", "LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/bin"]);
        assert_eq!(bench.says(&["fds"]), "0 1 2");
        assert_eq!(bench.says(&["hostname"]), "pantry");
        assert_eq!(bench.says(&["cwd"]), "/");
    }
}

case! {
    fn the_program_is_an_ordinary_id_without_any_right(bench: &Bench) {
        let ids = bench.says(&["ids"]);
        assert!(ids.starts_with("65532 65532 65532 pid 2 ppid 1"), "{ids}");
        if is_root() {
            assert!(ids.ends_with("groups 0"), "{ids}");
        }
        let status = bench.says(&["cat", "/proc/self/status"]);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(status.contains(&format!("{set}:\t0000000000000000")), "{set} in {status}");
        }
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
        assert_eq!(bench.says(&["cat", "/proc/self/oom_score_adj"]), "1000");
    }
}

case! {
    fn the_root_is_read_only_and_scratch_is_not(bench: &Bench) {
        for path in ["/x", "/etc/x", "/bin/x", "/dev/x", "/proc/sys/kernel/x", "/run/x"] {
            let said = bench.says(&["write", path]);
            assert!(said == "errno 30" || said == "errno 13" || said == "errno 2", "{path}: {said}");
        }
        assert_eq!(bench.says(&["write", "/x"]), "errno 30");
        assert_eq!(bench.says(&["write", "/tmp/x"]), "ok");
        assert_eq!(bench.says(&["write", "/dev/shm/x"]), "ok");
        assert_eq!(bench.says(&["write", "/dev/null"]), "ok");
        assert_eq!(bench.says(&["cat", "/etc/release"]), "test root");
        assert!(!bench.root.join("x").exists());
        // The control: outside, the same file can be made.
        assert!(fs::write(bench.root.join("tmp/control"), "").is_ok());
    }
}

case! {
    fn dev_and_proc_are_the_jails_own(bench: &Bench) {
        let mut names: Vec<String> = bench.says(&["ls", "/dev"]).lines().map(str::to_owned).collect();
        names.sort();
        let expected =
            [".", "..", "fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"];
        assert_eq!(names, expected);
        let pids = bench.says(&["ls", "/proc"]).lines().filter(|name| name.parse::<u32>().is_ok()).count();
        assert_eq!(pids, 2, "the init and the program");
        for masked in ["/proc/keys", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/kcore"] {
            if std::path::Path::new(masked).exists() {
                let outcome = bench.run(&bench.policy(&["cat", masked]));
                assert_eq!(outcome.stdout.bytes, b"", "{masked}");
            }
        }
        assert_eq!(bench.says(&["cat", "/proc/sys/user/max_user_namespaces"]), "0");
        assert_eq!(bench.says(&["cat", "/proc/self/cgroup"]).lines().filter(|line| !line.ends_with(":/")).count(), 0);
    }
}

case! {
    fn only_the_jails_mounts_are_there(bench: &Bench) {
        let mounts = bench.says(&["cat", "/proc/self/mountinfo"]);
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let (at, options) = (fields[4], fields[5]);
            assert!(["/", "/dev", "/proc", "/tmp"].iter().any(|top| at == *top || at.starts_with(&format!("{top}/"))), "{line}");
            assert!(options.contains("nosuid"), "{line}");
            let device = at.starts_with("/dev/") && at != "/dev/shm" || line.contains(" - devtmpfs ");
            assert!(device || options.contains("nodev") || at == "/dev", "{line}");
            assert!(["/tmp", "/dev/shm", "/proc"].contains(&at) || options.starts_with("ro"), "{line}");
            assert!(!line.contains("shared:") && !line.contains("master:"), "{line}");
        }
    }
}

case! {
    fn mount_points_need_not_exist_in_the_root(bench: &Bench) {
        let host = bench.dir.path().join("in");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("file"), "from the host").unwrap();
        std::os::unix::fs::symlink(host.join("file"), host.join("link")).unwrap();
        let mut policy = bench.policy(&["cat", "/opt/app/deep/file"]).input(&host, "/opt/app/deep");
        let outcome = bench.run(&policy);
        assert_eq!(outcome.stdout.text(), "from the host", "{:?}", outcome.stderr.text());
        assert_eq!(outcome.receipt.features.root, Some(RootKind::Overlay));
        assert!(!bench.root.join("opt").exists(), "the root itself isn't touched");
        // A file, over a link on the host, beside what the root has already; and below scratch space.
        policy = bench
            .policy(&["cat", "/etc/made/resolv.conf"])
            .input(host.join("link"), "/etc/made/resolv.conf")
            .input(&host, "/tmp/in");
        assert_eq!(bench.run(&policy).stdout.text(), "from the host");
        policy.argv = bench.argv(&["cat", "/etc/release"]);
        assert_eq!(bench.run(&policy).stdout.text(), "test root\n");
        policy.argv = bench.argv(&["cat", "/tmp/in/file"]);
        assert_eq!(bench.run(&policy).stdout.text(), "from the host");
        policy.argv = bench.argv(&["write", "/tmp/in/file"]);
        assert_eq!(bench.run(&policy).stdout.text(), "errno 30\n");
    }
}

case! {
    fn layers_are_merged_top_last(bench: &Bench) {
        let (middle, top) = (bench.dir.path().join("a:b,c"), bench.dir.path().join("top"));
        for (layer, content) in [(&middle, "middle"), (&top, "top")] {
            fs::create_dir_all(layer.join("etc")).unwrap();
            fs::write(layer.join("etc/release"), content).unwrap();
            fs::write(layer.join("etc").join(content), content).unwrap();
        }
        let mut policy = bench.policy(&["cat", "/etc/release"]);
        policy.root = vec![bench.root.clone(), middle, top];
        let outcome = bench.run(&policy);
        assert_eq!(outcome.stdout.text(), "top");
        assert_eq!(outcome.receipt.features.root, Some(RootKind::Overlay));
        policy.argv = bench.argv(&["cat", "/etc/middle"]);
        assert_eq!(bench.run(&policy).stdout.text(), "middle");
        policy.argv = bench.argv(&["write", "/etc/x"]);
        assert_eq!(bench.run(&policy).stdout.text(), "errno 30\n");
    }
}

case! {
    fn an_empty_root_holds_our_own_program_and_a_writable_directory(bench: &Bench) {
        // What confined extraction does: our executable on hostile bytes, one directory to write.
        let id = 1_700_000;
        let out = bench.writable_dir("out", id);
        let host_probe = bench.root.join(&bench.probe[1..]);
        let mut policy = Policy::new(vec![], bench.argv(&["store", "/out/made", "content"]))
            .input(&host_probe, &bench.probe)
            .data(&out, "/out")
            .profile(pantry::sandbox::SeccompProfile::Helper);
        policy.identity.host_base = Some(id);
        let outcome = bench.run(&policy);
        assert!(outcome.end.success(), "{:?} {}", outcome.end, outcome.stdout.text());
        assert_eq!(outcome.receipt.features.root, Some(RootKind::Tmpfs));
        assert_eq!(fs::read_to_string(out.join("made")).unwrap(), "content");
        let owner = fs::metadata(out.join("made")).unwrap().uid();
        assert_eq!(owner, outcome.receipt.host_uid);
        assert_eq!(is_root(), owner == id);
        policy.argv = bench.argv(&["write", "/made"]);
        assert_eq!(bench.run(&policy).stdout.text(), "errno 30\n");

        // And the real binary starts there too, from a path that nobody but its owner may have to reach.
        let own = bench.sandbox.own_executable().unwrap();
        let mut policy = Policy::new(vec![], vec!["/pantry".into(), "no-such-command".into()]).input(own, "/pantry");
        policy.identity.host_base = Some(id);
        let outcome = bench.run(&policy);
        assert!(matches!(outcome.end, pantry::sandbox::End::Exited(_)), "{:?}", outcome.end);
    }
}

case! {
    fn standard_input_is_fed(bench: &Bench) {
        let cancel = Cancel::new().unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
        let outcome = bench.sandbox.run(&bench.policy(&["cat"]), StdinBytes::Bytes(bytes.clone()), &cancel).unwrap();
        assert!(outcome.end.success() && outcome.stdout.bytes == bytes);
        let file = bench.dir.path().join("input");
        fs::write(&file, "from a file").unwrap();
        let file = StdinBytes::File(std::fs::File::open(file).unwrap());
        let outcome = bench.sandbox.run(&bench.policy(&["cat"]), file, &cancel).unwrap();
        assert_eq!(outcome.stdout.text(), "from a file");
        // Nobody reads it: no error of ours.
        let outcome = bench.sandbox.run(&bench.policy(&["true"]), StdinBytes::Bytes(bytes), &cancel).unwrap();
        assert!(outcome.end.success());
    }
}

case! {
    fn a_failed_set_up_is_no_exit_code(bench: &Bench) {
        let mut policy = bench.policy(&["true"]);
        policy.argv[0] = "/bin/absent".into();
        match bench.try_run(&policy) {
            Err(SandboxError::Setup { step, errno: 2 }) => assert_eq!(step, "execute /bin/absent"),
            other => panic!("{other:?}"),
        }
        let mut policy = bench.policy(&["true"]);
        policy.cwd = "/absent".into();
        assert!(matches!(bench.try_run(&policy), Err(SandboxError::Setup { errno: 2, .. })));
        let policy = bench.policy(&["true"]).input("/absent/file", "/in");
        assert!(matches!(bench.try_run(&policy), Err(SandboxError::Setup { errno: 2, .. })));
        let policy = Policy::new(vec!["/absent".into()], bench.argv(&["true"]));
        let error = bench.try_run(&policy).unwrap_err();
        assert_eq!(error.code(), "sandbox_setup_failed");
        assert!(error.hint().is_some() && error.to_string().contains("/absent"), "{error}");
    }
}

case! {
    fn the_receipt_says_what_held(bench: &Bench) {
        let receipt = bench.sandbox.probe(vec![bench.root.clone()], bench.argv(&["true"])).unwrap();
        println!("receipt: {}", serde_json::to_string(&receipt).unwrap());
        assert_eq!(receipt.root_mode, is_root());
        assert_eq!(receipt.features.own_executable, Some(OwnExecutable::ReadOnlyMount));
        assert_eq!(receipt.features.root, Some(RootKind::Clone));
        assert!(receipt.features.network_namespace && receipt.features.seccomp && !receipt.ownership_emulated);
        assert!(receipt.limits.memory.enforced_by >= Enforcement::Watchdog);
        assert!(receipt.limits.processes.enforced_by >= Enforcement::Watchdog);
        assert_eq!(receipt.limits.wall.enforced_by, Enforcement::Watchdog);
        assert_eq!(receipt.limits.open_files.enforced_by, Enforcement::Rlimit);
        assert_eq!(receipt.host_uid == rustix::process::geteuid().as_raw(), !is_root());
        let copy: pantry::sandbox::Receipt = serde_json::from_str(&serde_json::to_string(&receipt).unwrap()).unwrap();
        assert_eq!(copy, receipt);
        let failed = bench.sandbox.probe(vec![bench.root.clone()], bench.argv(&["exit", "1"]));
        assert!(matches!(failed, Err(SandboxError::Probe { .. })));
    }
}

case! {
    fn what_the_host_cannot_enforce_is_refused_when_required(bench: &Bench) {
        let mut policy = bench.policy(&["true"]);
        policy.require = pantry::sandbox::Require::publishing();
        assert!(bench.try_run(&policy).unwrap().end.success());
        policy.require.wall = Enforcement::Cgroup2;
        let refused = bench.try_run(&policy).unwrap_err();
        assert_eq!(refused.code(), "sandbox_policy_refused");
        assert!(refused.to_string().contains("watchdog") && refused.hint().is_some(), "{refused}");
    }
}

case! {
    fn an_executable_that_was_replaced_runs_from_a_sealed_copy(bench: &Bench) {
        // The server's own binary after an upgrade: its path leads to another file, or to none.
        let copy = bench.dir.path().join("pantry");
        fs::copy(&bench.helper, &copy).unwrap();
        let open = std::fs::File::open(&copy).unwrap();
        fs::remove_file(&copy).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd());
        let sandbox = bench.sandbox.clone().with_helper(path.into());
        let outcome = sandbox.run(&bench.policy(&["say", "x"]), StdinBytes::Empty, &Cancel::new().unwrap()).unwrap();
        assert_eq!(outcome.stdout.text(), "x\n");
        assert_eq!(outcome.receipt.features.own_executable, Some(OwnExecutable::SealedCopy));
    }
}

case! {
    fn a_real_interpreter_with_threads_and_children_works(bench: &Bench) {
        if !std::path::Path::new("/usr/bin/python3").exists() {
            println!("skipped: no /usr/bin/python3 on this host");
            return;
        }
        let script = "
import hashlib, multiprocessing, os, socket, ssl, subprocess, sys, tempfile, threading
threads = [threading.Thread(target=lambda: hashlib.sha256(b'x' * 100000)) for _ in range(16)]
[t.start() for t in threads]; [t.join() for t in threads]
assert subprocess.run(['/usr/bin/env', 'true']).returncode == 0
with tempfile.TemporaryDirectory() as d: open(d + '/x', 'w').write('y')
with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]
a, b = socket.socketpair(); a.send(b'z'); assert b.recv(1) == b'z'
assert os.cpu_count() and open('/proc/meminfo').read()
try: socket.create_connection(('192.0.2.1', 80), 2)
except OSError as error: print('refused', error.errno)
try: socket.getaddrinfo('index.invalid', 443)
except socket.gaierror: print('no name')
";
        let argv = ["/usr/bin/python3", "-I", "-c", script].map(str::to_owned).to_vec();
        let mut policy = Policy::new(vec![], argv);
        for dir in ["/usr", "/lib", "/lib64", "/bin"] {
            if std::path::Path::new(dir).exists() {
                policy = policy.input(dir, dir);
            }
        }
        let outcome = bench.run(&policy);
        assert!(outcome.end.success(), "{:?} {}", outcome.end, outcome.stderr.text());
        // Where Landlock holds TCP it answers first; else the network, in which nothing can be reached.
        let errno = if outcome.receipt.features.landlock_abi >= Some(4) { 13 } else { 101 };
        assert_eq!(outcome.stdout.text(), format!("refused {errno}\nno name\n"));
    }
}
