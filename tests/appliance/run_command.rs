//! `pantry run` on directories and on what Pantry carries: without a daemon, as root and as an ordinary user.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::accounts::{Account, PLAIN_ID};
use super::leaks::{Watch, groups_of};
use super::support::{is_root, show, skip};

/// How long after the end of a run something of it may still be there.
const TIDY: Duration = Duration::from_secs(15);

/// A root on which the bundle is unpacked, as a daemon leaves it, and whoever runs things on it.
pub struct Place {
    pub account: Account,
    folder: tempfile::TempDir,
    watch: Watch,
}

impl Place {
    pub fn new(account: Account) -> Self {
        let folder = account.fresh_root();
        let watch = Watch::begin(&folder.path().join("root"));
        Self { account, folder, watch }
    }

    /// A root that nobody has used.
    pub fn empty() -> Self {
        let folder = Account::Caller.folder();
        let watch = Watch::begin(&folder.path().join("root"));
        Self { account: Account::Caller, folder, watch }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    /// A new directory that somebody owns.
    fn directory(&self, name: &str, owner: u32) -> String {
        let path = self.path().join(name);
        std::fs::create_dir(&path).unwrap();
        if is_root() {
            chown(&path, Some(owner), Some(owner)).unwrap();
        }
        path.to_str().unwrap().to_owned()
    }

    /// Runs it with these options, and looks for what it left.
    pub fn run(&self, options: &[&str]) -> Output {
        let mut command = self.account.command(self.account.program());
        command.arg("--root").arg(self.root()).arg("run").args(options);
        command.env("PANTRY_BUNDLE_LAYOUT", self.account.bundle());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let output = child.wait_with_output().unwrap();
        // Other tests run beside this one: what goes away by itself is theirs, or on its way.
        let began = std::time::Instant::now();
        loop {
            let left = self.left(pid);
            if left.is_empty() {
                return output;
            }
            assert!(began.elapsed() < TIDY, "left by {options:?}: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn left(&self, pid: u32) -> Vec<String> {
        let mut left = self.watch.left(None);
        left.extend(groups_of(pid).iter().map(|group| format!("control group {}", group.display())));
        let images = self.root().join("run-images");
        for (folder, prefix) in [("downloads", ""), ("jails", ""), ("trees", ".tmp-")] {
            for entry in std::fs::read_dir(images.join(folder)).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(prefix) {
                    left.push(format!("file {}", entry.path().display()));
                }
            }
        }
        left
    }

    /// A Python program on what Pantry carries.
    fn python(&self, options: &[&str], program: &str) -> Output {
        self.run(&[&["--root-fs", "pantry/base"], options, &["--", "python3", "-c", program]].concat())
    }

    /// The directory of what Pantry carries, which is a root as any other.
    fn base(&self) -> String {
        let output = self.python(&["--explain", "--output", "json"], "");
        let policy = &explained(&output)[0]["policy"];
        policy["root"][0].as_str().unwrap_or_else(|| panic!("{}", show(&output))).to_owned()
    }
}

pub fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", show(output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What `--explain --output json` prints: the policy, and the receipt.
fn explained(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}"));
    text.lines().filter(|line| line.starts_with('{')).map(read).collect()
}

/// That it is refused before anything runs, with this code and a hint.
pub fn refused(output: &Output, exit: i32, code: &str) {
    let text = show(output);
    assert_eq!(output.status.code(), Some(exit), "{text}");
    assert!(text.contains(&format!("[{code}]")) && text.contains("hint: "), "{code}: {text}");
}

#[test]
fn what_pantry_carries_runs_without_a_daemon_and_is_unpacked_once() {
    let place = Place::empty();
    let first = place.python(&[], "print('hello')");
    assert_eq!(said(&first), "hello");
    assert!(show(&first).contains("unpacking"), "{}", show(&first));
    let second = place.python(&[], "print('hello')");
    assert_eq!(said(&second), "hello");
    assert!(!show(&second).contains("unpacking"), "{}", show(&second));
}

#[test]
fn a_directory_is_a_root_and_the_exit_code_is_the_programs() {
    let place = Place::new(Account::Caller);
    let base = place.base();
    let run = |options: &[&str], program: &str| {
        place.run(&[&["--root-fs", base.as_str()], options, &["--", "python3", "-c", program]].concat())
    };
    for (program, code) in [
        ("", 0),
        ("import sys; sys.exit(3)", 3),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143),
        ("import os; os._exit(255)", 255),
    ] {
        assert_eq!(run(&[], program).status.code(), Some(code), "{program}");
    }
    let shown = run(
        &["--env", "NAME=a=b", "--env", "PATH=/usr/bin", "--cwd", "/usr/lib", "--hostname", "box"],
        "import os, sys; print(os.getcwd(), os.uname().nodename, sorted(os.environ.items()), os.getuid(), sys.argv)",
    );
    let expected = "/usr/lib box [('HOME', '/tmp'), ('LANG', 'C.UTF-8'), ('NAME', 'a=b'), ('PATH', '/usr/bin')] 65532 ['-c']";
    assert_eq!(said(&shown), expected);
    // What follows `--` is the program's, options of ours included.
    let passed = place.run(&[
        "--root-fs",
        &base,
        "--",
        "/usr/bin/python3",
        "-c",
        "import sys; print(sys.argv[1:])",
        "--explain",
    ]);
    assert_eq!(said(&passed), "['--explain']");
    let mut piped = Command::new(place.account.program());
    piped.arg("--root").arg(place.root()).args([
        "run",
        "--root-fs",
        &base,
        "--",
        "python3",
        "-c",
        "print(input()[::-1])",
    ]);
    let mut child = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"abc\n").unwrap();
    assert_eq!(said(&child.wait_with_output().unwrap()), "cba");
}

#[test]
fn a_run_reads_only_its_root_and_writes_only_what_it_is_given() {
    let place = Place::new(Account::Caller);
    std::fs::write(place.path().join("file"), "of the host").unwrap();
    let shown = format!("{}:/opt/file", place.path().join("file").display());
    let program = r"
import errno, os
print(open('/opt/file').read())
for path in ['/x', '/usr/x', '/opt/file', '/opt/x']:
    try: open(path, 'w')
    except OSError as error: print(errno.errorcode[error.errno])
open('/tmp/x', 'w').write('y'); print(os.statvfs('/tmp').f_blocks * 4096, os.statvfs('/scratch').f_blocks * 4096)
";
    let output = place.python(&["--ro-bind", &shown, "--tmpfs", "/scratch:1M"], program);
    assert_eq!(said(&output), "of the host\nEROFS\nEROFS\nEROFS\nEROFS\n67108864 1048576");
}

#[test]
fn a_run_has_the_network_that_it_asks_for() {
    let place = Place::new(Account::Caller);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let program = format!(
        "import socket\ntry: socket.create_connection(('127.0.0.1', {port}), 5); print('reached')\nexcept OSError as error: print(error.errno)"
    );
    assert_eq!(said(&place.python(&["--network", "host"], &program)), "reached");
    // Landlock refuses it where it can, and there is no way anyhow.
    let refusals = [nix::libc::EACCES, nix::libc::ENETUNREACH].map(|errno| errno.to_string());
    let alone = said(&place.python(&[], &program));
    assert!(refusals.contains(&alone), "{alone}");
}

#[test]
fn limits_end_a_run_and_the_receipt_says_by_what() {
    let place = Place::new(Account::Caller);
    let bomb = "x = []\nwhile True: x.append(bytearray(1 << 20))";
    let output = place.python(&["--memory", "48M", "--time", "60", "--explain"], bomb);
    let text = show(&output);
    assert_eq!(output.status.code(), Some(137), "{text}");
    for words in [
        "policy:\n  Runs /usr/bin/python3 -c",
        "May use 48 MiB of memory",
        "receipt:\n  The program hit its limit of memory of 48 MiB.\n",
        "  Memory: 48 MiB, held by ",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // Without being asked it is said in one line.
    let brief = show(&place.python(&["--memory", "48M", "--time", "60"], bomb));
    assert!(brief.contains("pantry: the program hit its limit of memory of 48 MiB"), "{brief}");

    let output =
        place.python(&["--time", "1s", "--explain", "--output", "json"], "import time; time.sleep(60)");
    assert_eq!(output.status.code(), Some(124), "{}", show(&output));
    let [policy, receipt] = <[Value; 2]>::try_from(explained(&output)).unwrap();
    assert_eq!(
        (&policy["policy"]["limits"]["wall_ms"], &receipt["end"]),
        (&1000.into(), &"timed_out".into())
    );
    assert_eq!(receipt["code"], 124);
    let forks = "import os, time\nn = 0\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(30); os._exit(0)\n    n += 1\nexcept OSError: print(n)\nos._exit(1)";
    let output = place.python(&["--processes", "16", "--time", "60", "--explain", "--output", "json"], forks);
    let receipt = explained(&output).pop().unwrap();
    assert_eq!(receipt["end"], serde_json::json!({ "limit_hit": "processes" }), "{}", show(&output));
    let by = receipt["receipt"]["limits"]["processes"]["enforced_by"].as_str().unwrap();
    assert!(["watchdog", "cgroup1", "cgroup2"].contains(&by), "{receipt:#}");
}

#[test]
fn a_learning_run_tells_what_it_was_refused() {
    let place = Place::new(Account::Caller);
    let program = r"
import ctypes, os
for path in ['/etc/of-mine', '/tmp/of-mine']:
    try: open(path, 'w')
    except OSError: pass
ctypes.CDLL(None).ptrace(0, 0, 0, 0)
os._exit(7)
";
    let output = place.python(&["--learn"], program);
    let text = show(&output);
    assert_eq!(output.status.code(), Some(7), "{text}");
    let refused = text.split("refused:\n").nth(1).unwrap_or_else(|| panic!("{text}"));
    assert!(refused.contains("/etc/of-mine: read-only") && refused.contains("  ptrace"), "{text}");
    assert!(!refused.contains("/tmp/of-mine"), "{text}");
    let output = place.python(&["--learn", "--output", "json"], program);
    let learned = explained(&output).pop().unwrap();
    let paths = learned["learned"]["paths"].as_array().unwrap();
    assert!(paths.iter().any(|path| path["path"] == "/etc/of-mine"), "{learned:#}");
    assert!(!learned["words"].as_array().unwrap().is_empty());
    let ordinary = place.python(&[], program);
    assert!(!show(&ordinary).contains("refused"), "{}", show(&ordinary));
}

#[test]
fn the_values_of_variables_are_not_told() {
    let place = Place::new(Account::Caller);
    for format in ["text", "json"] {
        let output = place.python(&["--explain", "--output", format, "--env", "TOKEN=hunter2"], "");
        let text = show(&output);
        assert!(text.contains("TOKEN") && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn what_is_bound_is_written_as_its_owner() {
    let place = Place::new(Account::Caller);
    let program = "open('/work/out', 'w').write('x'); import os; print(os.stat('/work/out').st_uid)";
    let mine = place.directory("mine", PLAIN_ID);
    let before = std::fs::metadata(&mine).unwrap();
    assert_eq!(said(&place.python(&["--bind", &format!("{mine}:/work")], program)), "65532");
    let written = std::fs::metadata(Path::new(&mine).join("out")).unwrap();
    assert_eq!(written.uid(), before.uid());
    let after = std::fs::metadata(&mine).unwrap();
    assert_eq!((before.uid(), before.mode()), (after.uid(), after.mode()), "the directory is as it was");
    if !is_root() {
        return;
    }
    let roots = place.directory("roots", 0);
    refused(&place.python(&["--bind", &format!("{roots}:/work")], program), 2, "bind_owned_by_root");
    let other = place.directory("other", PLAIN_ID + 1);
    let both = ["--bind", &format!("{mine}:/work"), "--bind", &format!("{other}:/other")];
    refused(&place.python(&both, program), 2, "bind_owners_differ");
    assert_eq!(std::fs::metadata(&roots).unwrap().uid(), 0);
}

#[test]
fn the_number_of_a_user_is_no_group() {
    if !is_root() {
        return skip("the_number_of_a_user_is_no_group", "without root there is one group");
    }
    let place = Place::new(Account::Caller);
    // Read by the group with the user's number alone.
    let shown = place.directory("shown", 0);
    let secret = Path::new(&shown).join("secret");
    std::fs::write(&secret, "secret").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o640)).unwrap();
    chown(&secret, Some(0), Some(42)).unwrap();
    let program = "
open('/work/out', 'w').write('x')
try: print(open('/shown/secret').read())
except PermissionError: print('refused')
";
    let run = |name: &str, gid: u32| {
        let mine = place.directory(name, 42);
        chown(&mine, Some(42), Some(gid)).unwrap();
        let options = ["--bind", &format!("{mine}:/work"), "--ro-bind", &format!("{shown}:/shown")];
        assert_eq!(said(&place.python(&options, program)), "refused", "{name}");
        let written = std::fs::metadata(Path::new(&mine).join("out")).unwrap();
        (written.uid(), written.gid())
    };
    assert_eq!(run("groups", 4242), (42, 4242));
    let (uid, gid) = run("roots", 0);
    assert!(uid == 42 && gid != 0 && gid != 42, "{uid} {gid}");
}

#[test]
fn what_is_mounted_in_a_directory_is_not_shown() {
    if !is_root() {
        return skip("what_is_mounted_in_a_directory_is_not_shown", "only root mounts");
    }
    let place = Place::new(Account::Caller);
    let root = place.directory("a root", PLAIN_ID);
    let inner = format!("{root}/inner");
    std::fs::create_dir(&inner).unwrap();
    let run = |kind: &str, options: &[&str]| {
        // In a mount namespace that ends with it.
        let script = "mount -t \"$1\" none \"$2\" && shift 2 && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh", kind, &inner]).arg(place.account.program());
        command.arg("--root").arg(place.root()).arg("run").args(options).args(["--", "python3", "-c", ""]);
        command.env("PANTRY_BUNDLE_LAYOUT", place.account.bundle()).stdin(Stdio::null()).output().unwrap()
    };
    let bind = format!("{root}:/work");
    let below = format!("{inner}:/work");
    for kind in ["proc", "sysfs"] {
        refused(&run(kind, &["--root-fs", &root]), 2, "root_fs_not_valid");
        for bound in [&bind, &below] {
            refused(&run(kind, &["--root-fs", "pantry/base", "--ro-bind", bound]), 2, "bind_not_valid");
        }
        refused(&run(kind, &["--root-fs", "pantry/base", "--bind", &bind]), 2, "bind_not_valid");
    }
    said(&run("tmpfs", &["--root-fs", "pantry/base", "--ro-bind", &bind]));
}

#[test]
fn an_ordinary_user_runs_things_too() {
    if !is_root() {
        return skip("an_ordinary_user_runs_things_too", "the whole suite runs without root already");
    }
    let place = Place::new(Account::Plain);
    let mine = place.directory("mine", PLAIN_ID);
    let program = "open('/work/out', 'w').write('x'); import os; print(os.stat('/work/out').st_uid)";
    let output = place.python(&["--bind", &format!("{mine}:/work"), "--explain"], program);
    assert_eq!(said(&output), "65532");
    assert_eq!(std::fs::metadata(Path::new(&mine).join("out")).unwrap().uid(), PLAIN_ID);
    let text = show(&output);
    assert!(text.contains(&format!("Started without root; outside it was user {PLAIN_ID}.")), "{text}");
    let roots = place.directory("roots", 0);
    refused(&place.python(&["--bind", &format!("{roots}:/work")], program), 2, "bind_not_writable");
    let bomb = place
        .python(&["--memory", "48M", "--time", "60"], "x = []\nwhile True: x.append(bytearray(1 << 20))");
    assert_eq!(bomb.status.code(), Some(137), "{}", show(&bomb));
}

#[test]
fn what_cannot_be_run_is_refused_with_a_code_and_a_hint() {
    let place = Place::new(Account::Caller);
    let base = place.base();
    let here = place.directory("here", PLAIN_ID);
    let bind = |inside: &str| format!("{here}:{inside}");
    let policy = "sandbox_policy_refused";
    for (options, code) in [
        (vec!["--grant", "ALL"], policy),
        (vec!["--grant", "everything"], policy),
        (vec!["--grant", "network-client=tcp:443"], policy),
        (vec!["--bind", &bind("work")], policy),
        (vec!["--bind", &bind("/proc/work")], policy),
        (vec!["--bind", &bind("/work/../x")], policy),
        (vec!["--ro-bind", "/proc/self:/work"], policy),
        (vec!["--ro-bind", "/:/work"], policy),
        (vec!["--tmpfs", "work"], policy),
        (vec!["--tmpfs", "/dev/x"], policy),
        (vec!["--cwd", "work"], policy),
        (vec!["--hostname", "a b"], policy),
        (vec!["--memory", "1k"], policy),
        (vec!["--processes", "0"], policy),
        (vec!["--bind", &here], "bind_not_valid"),
        (vec!["--bind", "/nothing/here:/work"], "bind_not_found"),
        (vec!["--tmpfs", "/work:much"], "size_not_valid"),
        (vec!["--memory", "much"], "size_not_valid"),
        (vec!["--cpus", "some"], "cpus_not_valid"),
        (vec!["--time", "long"], "time_not_valid"),
        (vec!["--env", "NAME"], "env_not_valid"),
        (vec!["--require", "memory=hope"], "require_not_valid"),
    ] {
        let output = place.run(&[&["--root-fs", base.as_str()], &options[..], &["--", "python3"]].concat());
        refused(&output, 2, code);
        assert!(output.stdout.is_empty(), "{}", show(&output));
    }
    for (root, code) in [
        ("/nothing/here", "root_fs_not_found"),
        ("nothing", "root_fs_not_found"),
        ("nothing.tar", "root_fs_not_found"),
        ("/", "root_fs_not_valid"),
        ("/proc/self", "root_fs_not_valid"),
    ] {
        refused(&place.run(&["--root-fs", root, "--", "python3"]), 2, code);
    }
    for (program, code) in [
        (&["--", "nothing"][..], "program_not_found"),
        (&["--", "/usr/bin/nothing"], "program_not_found"),
        (&["--", "/proc/self/exe"], "program_not_found"),
        (&["--", "/usr/bin"], "program_not_executable"),
        (&[], "program_missing"),
    ] {
        refused(&place.run(&[&["--root-fs", base.as_str()], program].concat()), 2, code);
    }
    refused(
        &place.run(&["--root-fs", &base, "--cwd", "/nowhere", "--", "python3"]),
        1,
        "sandbox_setup_failed",
    );
    assert_eq!(place.run(&["--root-fs", &base, "--", "python3", "-c", ""]).status.code(), Some(0));
}

#[test]
fn on_a_terminal_it_has_one_of_its_own() {
    let place = Place::new(Account::Caller);
    let seat = "import os; print([os.isatty(n) for n in range(3)], os.isatty(0) and os.ttyname(0), os.environ.get(\"TERM\"))";
    // `script` gives the command a terminal, as a person has one.
    let on_a_terminal = |option: &str| {
        let line = format!(
            "'{}' --root '{}' run --root-fs pantry/base {option} -- python3 -c '{seat}'",
            place.account.program().display(),
            place.root().display()
        );
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).env("TERM", "of-the-callers");
        said(&command.env("PANTRY_BUNDLE_LAYOUT", place.account.bundle()).output().unwrap())
    };
    let own = on_a_terminal("");
    assert!(own.contains("[True, True, True] /dev/pts/0 of-the-callers"), "{own}");
    let none = on_a_terminal("--terminal never");
    assert!(none.contains("[False, False, False] False None"), "{none}");
}
