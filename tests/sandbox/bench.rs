//! What every case stands on: a root with the probe in it, the helper, a leak check, and both modes.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use fs_err as fs;
use pantry::sandbox::{Cancel, Outcome, Policy, Sandbox, SandboxError, StdinBytes};

/// The id under which cases run once more when the caller is root.
pub const PLAIN_ID: u32 = 61_234;
/// Tells the second process where the shared files are.
const SHARED: &str = "PANTRY_TEST_SHARED";

/// The probe, built before, for a machine that has no compiler.
const PROBE: &str = "PANTRY_TEST_PROBE";
/// How many times slower than a real machine this one is; 1 if it isn't set.
const SLOWNESS: &str = "PANTRY_TEST_SLOWNESS";

/// A time of a real machine, as it is on this one.
pub fn here(time: Duration) -> Duration {
    let factor = std::env::var(SLOWNESS).ok().and_then(|factor| factor.parse().ok());
    time * factor.unwrap_or(1)
}

/// [`here`] in milliseconds.
pub fn here_ms(time_ms: u64) -> u64 {
    u64::try_from(here(Duration::from_millis(time_ms)).as_millis()).unwrap()
}

/// Makes two tests of one case: as the caller, and without root.
macro_rules! case {
    ($(#[$meta:meta])* fn $name:ident($bench:ident: &Bench) $body:block) => {
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn body($bench: &$crate::bench::Bench) $body

            #[test]
            fn as_caller() {
                let bench = $crate::bench::Bench::new();
                body(&bench);
                bench.check_nothing_left();
            }

            #[test]
            fn rootless() {
                $crate::bench::again_without_root(concat!(module_path!(), "::as_caller"));
            }
        }
    };
}
pub(crate) use case;

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The files that all cases use, in a directory that everybody can read.
struct Shared {
    dir: PathBuf,
}

fn shared() -> &'static Path {
    static FILES: OnceLock<Shared> = OnceLock::new();
    &FILES
        .get_or_init(|| {
            if let Some(dir) = std::env::var_os(SHARED) {
                return Shared { dir: dir.into() };
            }
            // Below /tmp, because others may not get at the build's own directory.
            let dir = tempfile::Builder::new().prefix("pantry-sandbox-").tempdir_in("/tmp").unwrap();
            open_up(dir.path());
            fs::copy(env!("CARGO_BIN_EXE_pantry"), dir.path().join("pantry")).unwrap();
            fs::set_permissions(dir.path().join("pantry"), std::fs::Permissions::from_mode(0o755)).unwrap();
            build_probe(&dir.path().join("probe"));
            remove_at_exit(dir.path());
            Shared { dir: dir.keep() }
        })
        .dir
}

/// A process that removes the directory when this one has ended, however it does: statics aren't dropped.
fn remove_at_exit(dir: &Path) {
    let script = "while kill -0 \"$1\" 2>/dev/null; do sleep 0.2; done; rm -rf -- \"$2\"";
    let me = std::process::id().to_string();
    Command::new("setsid")
        .args(["-f", "sh", "-c", script, "sh", &me])
        .arg(dir)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
}

pub fn open_up(dir: &Path) {
    fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn build_probe(to: &Path) {
    if let Some(built) = std::env::var_os(PROBE) {
        fs::copy(built, to).unwrap();
        return;
    }
    let sources = ["sandbox/probe.c", "sandbox/terminal.c", "escape/probe.c"]
        .map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name));
    let built = Command::new("cc").args(["-static", "-O1", "-o"]).arg(to).args(sources).output().unwrap();
    assert!(built.status.success(), "cc -static failed: {}", String::from_utf8_lossy(&built.stderr));
}

/// Cases run one after another, so that leaks can be told.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test of this binary once more as an ordinary id.
pub fn again_without_root(test: &str) {
    if !is_root() {
        println!("skipped: the caller isn't root, so the other test of this case has shown it already");
        return;
    }
    let _alone = alone();
    let shared = shared();
    let own = shared.join("tests");
    if !own.exists() {
        fs::copy(std::env::current_exe().unwrap(), &own).unwrap();
        fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let name = test.split_once("::").unwrap().1;
    let ran = Command::new(own)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(SHARED, shared)
        .env("TMPDIR", "/tmp")
        .current_dir("/")
        .uid(PLAIN_ID)
        .gid(PLAIN_ID)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    print!("{said}");
    assert!(
        ran.status.success() && said.contains("1 passed"),
        "{name} without root:\n{said}\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

/// One case's surroundings.
pub struct Bench {
    pub sandbox: Sandbox,
    pub helper: PathBuf,
    /// A directory of the case's own.
    pub dir: tempfile::TempDir,
    /// A root with empty mount points and the probe.
    pub root: PathBuf,
    /// The probe's path inside; no other process of the machine has it.
    pub probe: String,
    before: Left,
    _alone: MutexGuard<'static, ()>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Left {
    mounts: String,
    groups: BTreeSet<PathBuf>,
    entries: usize,
    descriptors: usize,
}

impl Bench {
    pub fn new() -> Self {
        let alone = alone();
        let shared = shared();
        let dir = tempfile::Builder::new().prefix("pantry-case-").tempdir_in("/tmp").unwrap();
        let probe = format!("/bin/probe-{}", std::process::id());
        let root = dir.path().join("root");
        for name in ["bin", "dev", "proc", "sys", "tmp", "run", "output", "data", "etc"] {
            fs::create_dir_all(root.join(name)).unwrap();
            open_up(&root.join(name));
        }
        open_up(&root);
        fs::copy(shared.join("probe"), root.join(&probe[1..])).unwrap();
        fs::write(root.join("etc/release"), "test root\n").unwrap();
        let sandbox = Sandbox::new(&dir.path().join("jails")).unwrap().with_helper(shared.join("pantry"));
        let helper = shared.join("pantry");
        // The helper that is kept stays with the sandbox: what is left is counted from here on.
        let policy = Policy::new(vec![root.clone()], vec![probe.clone(), "true".to_owned()]);
        let _refused_here = sandbox.run(&policy, StdinBytes::Empty, &Cancel::new().unwrap());
        let before = Left::now(&dir.path().join("jails"));
        Self { sandbox, helper, root, probe, before, dir, _alone: alone }
    }

    /// A policy that runs the probe.
    pub fn policy(&self, arguments: &[&str]) -> Policy {
        let mut policy = Policy::new(vec![self.root.clone()], self.argv(arguments));
        policy.limits.wall_ms = here_ms(20_000);
        policy
    }

    pub fn argv(&self, arguments: &[&str]) -> Vec<String> {
        std::iter::once(self.probe.as_str()).chain(arguments.iter().copied()).map(str::to_owned).collect()
    }

    pub fn try_run(&self, policy: &Policy) -> Result<Outcome, SandboxError> {
        self.sandbox.run(policy, StdinBytes::Empty, &Cancel::new().unwrap())
    }

    pub fn run(&self, policy: &Policy) -> Outcome {
        self.try_run(policy).unwrap()
    }

    /// What the probe prints when it ends well.
    pub fn says(&self, arguments: &[&str]) -> String {
        let outcome = self.run(&self.policy(arguments));
        assert!(outcome.end.success(), "{arguments:?}: {:?} {}", outcome.end, outcome.stderr.text());
        outcome.stdout.text().trim_end().to_owned()
    }

    /// The same act outside: the positive control.
    pub fn outside(&self, arguments: &[&str]) -> Output {
        Command::new(self.root.join(&self.probe[1..])).args(arguments).output().unwrap()
    }

    /// The same as an ordinary id, which may read what the test has.
    pub fn outside_plain(&self, arguments: &[&str]) -> Output {
        open_up(self.dir.path());
        let mut command = Command::new(self.root.join(&self.probe[1..]));
        if is_root() {
            command.uid(PLAIN_ID).gid(PLAIN_ID);
        }
        command.args(arguments).output().unwrap()
    }

    /// A directory that the program of a run with this outside id may write.
    pub fn writable_dir(&self, name: &str, host_base: u32) -> PathBuf {
        let dir = self.dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        if is_root() {
            chown(&dir, Some(host_base), Some(host_base)).unwrap();
        }
        dir
    }

    /// No process, mount, control group, file or descriptor more than before.
    pub fn check_nothing_left(&self) {
        let marker = self.probe.as_bytes();
        let deadline = Instant::now() + here(Duration::from_secs(5));
        // A killed process is seen for a moment by those who look from outside its namespace.
        while !processes(marker).is_empty() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(processes(marker), Vec::<String>::new(), "processes are left");
        // Groups of this test only: others make and remove theirs at the same time.
        let mut now = Left::now(&self.dir.path().join("jails"));
        now.groups.retain(|group| !self.before.groups.contains(group) && !of_another_test(group));
        assert!(now.descriptors <= self.before.descriptors, "descriptors are left: {now:?}");
        // One that a thread of the harness had open at the beginning may be closed by now.
        now.descriptors = self.before.descriptors;
        let before = Left { groups: BTreeSet::new(), ..self.before.clone() };
        assert_eq!(now, before, "something is left");
    }
}

impl Left {
    fn now(jails: &Path) -> Self {
        let mut groups = BTreeSet::new();
        find_groups(Path::new("/sys/fs/cgroup"), 6, &mut groups);
        Self {
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap(),
            groups,
            entries: fs::read_dir(jails).unwrap().count(),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        }
    }
}

/// Lies below a group in which another test pretends to be elsewhere.
fn of_another_test(group: &Path) -> bool {
    group.components().any(|part| part.as_os_str().to_string_lossy().starts_with("elsewhere-"))
}

fn find_groups(dir: &Path, depth: u32, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mine = format!("-{}-", std::process::id());
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink())
    {
        if path.file_name().unwrap().to_string_lossy().contains(&mine) {
            found.insert(path.clone());
        }
        if depth > 0 {
            find_groups(&path, depth - 1, found);
        }
    }
}

/// Processes that run the probe, helpers of ours but for the one that is kept, and inits whose helper is gone.
fn processes(marker: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut kept = 0;
    let me = std::process::id();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let (Ok(line), Ok(status)) =
            (fs::read(path.join("cmdline")), fs::read_to_string(path.join("status")))
        else {
            continue;
        };
        let parent = |pid: u32| status.lines().any(|line| line == format!("PPid:\t{pid}"));
        let probe = line.windows(marker.len()).any(|window| window == marker);
        let jail = line.starts_with(b"pantry\0__jail") && (parent(1) || parent(me));
        // A copy that serves a run has the same arguments, and is one too many.
        kept += usize::from(line == b"pantry\0__jail\0keep\0" && parent(me));
        if probe || jail && !(kept == 1 && line == b"pantry\0__jail\0keep\0") {
            found.push(format!("{}: {}", path.display(), String::from_utf8_lossy(&line)));
        }
    }
    found
}
