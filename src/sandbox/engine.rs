//! The sandbox itself: where runs are started, and what a crash left is swept.

use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fs_err as fs;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sha2::{Digest as _, Sha256};

use super::cancel::Cancel;
use super::cgroup::{self, Cgroups, Move};
use super::error::{Doing as _, SandboxError};
use super::guarded::{Guarded, OWN_EXECUTABLE};
use super::host;
use super::kept::Kept;
use super::landlock;
use super::network::{self, Outside};
use super::outcome::{End, ExecStatus, Outcome};
use super::policy::{Policy, Stdio};
use super::receipt::Receipt;
use super::record::{self, Record};
use super::run::{self, Surroundings};
use super::streams::{MayHaveTerminal, StdinBytes, Streams};
use super::validate;
use crate::names::hex;

/// Runs policies. Clones share everything.
#[derive(Clone, Debug)]
pub struct Sandbox {
    shared: Arc<Shared>,
    helper: PathBuf,
    guarded: Option<Arc<Guarded>>,
    kept: Arc<Kept>,
    landlock_at_most: u32,
    learn: bool,
}

#[derive(Debug)]
struct Shared {
    run_dir: PathBuf,
    names: Names,
    groups: Cgroups,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Directories and files of the run directory.
    pub entries: u64,
    /// Control groups.
    pub groups: u64,
}

/// Names of runs: they say whose they are, so that a sweep never touches a living owner's.
#[derive(Debug)]
struct Names {
    owner: String,
    next: AtomicU64,
}

const PREFIX: &str = "pantry-run-";

impl Names {
    fn new(tag: &str) -> Self {
        let pid = std::process::id();
        let owner = format!("{PREFIX}{tag}-{pid}-{}", start_time(pid).unwrap_or(0));
        Self { owner, next: AtomicU64::new(0) }
    }

    fn next(&self) -> (String, u64) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        (format!("{}-{turn}", self.owner), turn)
    }
}

/// Whether the owner of a run lives, if the name is one of a run.
fn owner_lives(name: &str) -> Option<bool> {
    let mut fields = name.strip_prefix(PREFIX)?.split('-').skip(1);
    let (Some(Ok(pid)), Some(Ok(born))) =
        (fields.next().map(str::parse), fields.next().map(str::parse::<u64>))
    else {
        return None;
    };
    Some(start_time(pid) == Some(born))
}

/// Whether a name is one of ours whose owner is dead.
fn abandoned(name: &str) -> bool {
    owner_lives(name) == Some(false)
}

/// When a process was started, in ticks since boot; a later one of the same pid has another.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

impl Sandbox {
    /// Opens the sandbox with a directory of its own, made if missing (mode 0700), and finds out what the host
    /// offers.
    ///
    /// # Errors
    /// When the kernel is too old, or the directory can't be made or is somebody else's.
    pub fn new(run_dir: &Path) -> Result<Self, SandboxError> {
        host::check_kernel(&host::kernel())?;
        if !run_dir.is_dir() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(run_dir)
                .doing("make the run directory")?;
        }
        let found = fs::symlink_metadata(run_dir).doing("look at the run directory")?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
            return Err(SandboxError::refused(
                run_dir.display().to_string(),
                "it is no directory of ours",
                "remove it, or start as its owner",
            ));
        }
        let run_dir = run_dir.canonicalize().doing("look at the run directory")?;
        let digest = Sha256::digest(run_dir.as_os_str().as_encoded_bytes());
        let tag = hex(&digest[..4]);
        let shared = Shared { names: Names::new(&tag), groups: Cgroups::detect(Move::Allowed), run_dir };
        Ok(Self {
            shared: Arc::new(shared),
            helper: PathBuf::from(OWN_EXECUTABLE),
            guarded: Guarded::new(OWN_EXECUTABLE.as_ref()).map(Arc::new),
            kept: Arc::default(),
            landlock_at_most: landlock::NEWEST,
            learn: false,
        })
    }

    /// Uses another executable as the helper; for tests, whose own executable isn't Pantry.
    #[must_use]
    pub fn with_helper(mut self, exe: PathBuf) -> Self {
        self.guarded = Guarded::new(&exe).map(Arc::new);
        self.kept = Arc::default();
        self.helper = exe;
        self
    }

    /// The same, as on a kernel whose Landlock ends with this ABI; 0 has none. For tests.
    #[cfg(any(test, feature = "fault-points"))]
    #[must_use]
    pub fn landlock_at_most(mut self, abi: u32) -> Self {
        self.landlock_at_most = abi;
        self
    }

    /// The same, but each run tells what it was refused, see [`Outcome::learned`]. Nothing more is let through; it takes
    /// longer. For authors at home: nothing that is published may rest on such a run.
    #[must_use]
    pub fn learning(mut self) -> Self {
        self.learn = true;
        self
    }

    /// The same, as on a host that lets nobody make control groups.
    pub(super) fn watching(&self) -> Self {
        let Shared { run_dir, names: _, groups: _ } = &*self.shared;
        let shared =
            Shared { run_dir: run_dir.clone(), names: Names::new("watching"), groups: Cgroups::default() };
        Self {
            shared: Arc::new(shared),
            helper: self.helper.clone(),
            guarded: self.guarded.clone(),
            kept: Arc::clone(&self.kept),
            landlock_at_most: self.landlock_at_most,
            learn: self.learn,
        }
    }

    /// The path of the helper's executable, to be given to a jail as an [`Input`](super::Input) when it is to run
    /// a part of ours on hostile bytes.
    ///
    /// Such a jail has an empty root (`root: vec![]`), the executable at, say, `/pantry`, and what it writes to as
    /// a [`DataMount`](super::DataMount). As root the outside id of the run must own that directory: choose
    /// `identity.host_base`, give the directory to it before the run, and take it back after.
    ///
    /// # Errors
    /// When the executable was removed or replaced while running.
    pub fn own_executable(&self) -> Result<PathBuf, SandboxError> {
        self.helper.canonicalize().doing("find our own executable (it was replaced; restart Pantry)")
    }

    /// Runs a policy to its end. Blocks: call it from a thread that may.
    ///
    /// # Errors
    /// When the policy is refused, the host can't, a step of the set-up fails, or the output can't be stored. What
    /// the program does is no error, see [`Outcome::end`].
    pub fn run(&self, policy: &Policy, stdin: StdinBytes, cancel: &Cancel) -> Result<Outcome, SandboxError> {
        self.run_with(policy, stdin, cancel, &Outside::default())
    }

    /// [`Sandbox::run`] with what the policy's servers lead to. Blocks.
    ///
    /// # Errors
    /// Those of [`Sandbox::run`].
    pub fn run_with(
        &self,
        policy: &Policy,
        stdin: StdinBytes,
        cancel: &Cancel,
        outside: &Outside,
    ) -> Result<Outcome, SandboxError> {
        validate::check(policy)?;
        network::check(policy, outside)?;
        let streams = match policy.stdio {
            Stdio::Captured => Streams::captured(stdin, &policy.limits)?,
            Stdio::Inherit | Stdio::Terminal => {
                return Err(SandboxError::refused(
                    "stdio",
                    "the caller's own streams are for a process that does nothing else",
                    "use `exec`, or have them captured",
                ));
            }
        };
        let (name, turn) = self.shared.names.next();
        let groups = self.shared.groups.places(&name);
        // Dropped after what it names.
        let _record = Record::write(&self.shared.run_dir, &name, groups)?;
        let around = Surroundings {
            helper: &self.helper,
            guarded: self.guarded.as_deref(),
            kept: Some(&self.kept),
            group: self.shared.groups.create(&name, &policy.limits),
            ids: host::outside_ids(policy.identity, turn),
            cancel,
            outside,
            landlock_at_most: self.landlock_at_most,
            learn: self.learn,
            signals: None,
        };
        run::run(policy, streams, &around)
    }

    /// Removes what a crashed predecessor left: entries of the run directory, and control groups of dead owners, also
    /// those that it made elsewhere than this process would.
    ///
    /// # Errors
    /// When the run directory can't be read.
    pub fn sweep(&self) -> Result<Swept, SandboxError> {
        let mut swept = Swept { groups: self.shared.groups.sweep(abandoned), ..Swept::default() };
        for entry in fs::read_dir(&self.shared.run_dir).doing("read the run directory")?.flatten() {
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            match owner_lives(name) {
                Some(true) => continue,
                Some(false) => {
                    let groups = record::leftovers(&entry.path(), name);
                    let removed = groups.iter().filter(|group| cgroup::remove(group)).count();
                    swept.groups += removed as u64;
                    if removed < groups.len() {
                        // The next sweep needs the record.
                        continue;
                    }
                }
                None => {}
            }
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed =
                if is_dir { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
            swept.entries += u64::from(removed.is_ok());
        }
        Ok(swept)
    }

    /// Makes a small real run, and gives its receipt if it exits with 0.
    ///
    /// # Errors
    /// Those of [`Sandbox::run`], and [`SandboxError::Probe`] when the program doesn't succeed.
    pub fn probe(&self, root: Vec<PathBuf>, argv: Vec<String>) -> Result<Receipt, SandboxError> {
        let mut policy = Policy::new(root, argv);
        policy.limits.wall_ms = 10_000;
        let outcome = self.run(&policy, StdinBytes::Empty, &Cancel::new()?)?;
        if outcome.end == End::Exited(0) {
            Ok(outcome.receipt)
        } else {
            Err(SandboxError::Probe { end: outcome.end })
        }
    }
}

/// The signals that `exec` passes on.
const FORWARDED: [Signal; 8] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
];

/// Those of job control beside them, where there is a terminal: SIGTTOU so that its modes can be set from wherever it is
/// ours to do, SIGTTIN so that the calling thread alone takes it when it stops.
const JOB_CONTROL: [Signal; 4] = [Signal::SIGTSTP, Signal::SIGCONT, Signal::SIGTTIN, Signal::SIGTTOU];

/// What [`exec_with`] does otherwise than [`exec`].
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    /// Another executable as the helper; for tests, whose own executable isn't Pantry.
    pub helper: Option<PathBuf>,
    /// Whether to tell what the run was refused, see [`ExecStatus::learned`]. Nothing more is let through.
    pub learn: bool,
}

/// Runs a policy with the caller's own streams, passing signals on; for a process that does nothing else.
///
/// Call it while the process has one thread: signals are held back in the calling one only. No server, no state and
/// no run directory are needed.
///
/// # Errors
/// Those of [`Sandbox::run`].
pub fn exec(policy: &Policy) -> Result<ExecStatus, SandboxError> {
    exec_with(policy, &ExecOptions::default())
}

/// [`exec`] with options.
///
/// # Errors
/// Those of [`Sandbox::run`].
pub fn exec_with(policy: &Policy, options: &ExecOptions) -> Result<ExecStatus, SandboxError> {
    let helper = options.helper.as_deref().unwrap_or(Path::new(OWN_EXECUTABLE));
    host::check_kernel(&host::kernel())?;
    validate::check(policy)?;
    let outside = Outside::default();
    network::check(policy, &outside)?;
    let streams = match policy.stdio {
        Stdio::Captured => {
            return Err(SandboxError::refused(
                "stdio",
                "what is captured here is given to nobody",
                "take the caller's own streams, or run it by `Sandbox::run`",
            ));
        }
        Stdio::Inherit => Streams::inherited(MayHaveTerminal::No)?,
        Stdio::Terminal => Streams::inherited(MayHaveTerminal::Yes)?,
    };
    let mut mask = SigSet::empty();
    // What the caller was told to ignore, as by `nohup`, is not for the program either.
    let ignored = ignored_signals();
    for signal in FORWARDED {
        if ignored & (1 << (signal as u32 - 1)) == 0 {
            mask.add(signal);
        }
    }
    if streams.0.terminal.is_some() {
        for signal in JOB_CONTROL {
            mask.add(signal);
        }
    }
    let before = mask.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK).doing("hold signals back")?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .doing("hold signals back")?;
    let (name, _) = Names::new("exec").next();
    let guarded = Guarded::new(helper);
    let around = Surroundings {
        helper,
        guarded: guarded.as_ref(),
        kept: None,
        group: Cgroups::detect(Move::Never).create(&name, &policy.limits),
        ids: host::outside_ids(policy.identity, u64::from(std::process::id())),
        cancel: &Cancel::new()?,
        outside: &outside,
        landlock_at_most: landlock::NEWEST,
        learn: options.learn,
        signals: Some(&signals),
    };
    let ran = run::run(policy, streams, &around);
    let _restored = before.thread_set_mask();
    let Outcome { end, receipt, learned, .. } = ran?;
    Ok(ExecStatus { code: exit_code(end), end, receipt, learned })
}

/// The kind of the terminal (`TERM`) among this process's standard streams, to be passed on to a program that gets one of
/// its own. None where no stream is a terminal, or its kind is no plain name.
#[must_use]
pub fn terminal_kind() -> Option<String> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._+".contains(&byte);
    if ![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].into_iter().any(rustix::termios::isatty) {
        return None;
    }
    std::env::var("TERM").ok().filter(|kind| kind.len() <= 64 && kind.bytes().all(plain))
}

/// The signals that this process ignores, a bit each from the lowest; none where that can't be read.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn exit_code(end: End) -> i32 {
    const KILLED: i32 = 137;
    match end {
        End::Exited(code) => code,
        End::Signaled(signal) => 128 + signal,
        End::Denied => 128 + nix::libc::SIGSYS,
        // As `timeout` has it.
        End::TimedOut => 124,
        End::Cancelled | End::LimitHit(_) => KILLED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_living_owners_from_dead_ones() {
        let (name, _) = Names::new("ab12cd34").next();
        assert!(!abandoned(&name), "{name} is ours");
        let pid = std::process::id();
        assert!(abandoned(&format!("{PREFIX}ab12cd34-{pid}-1-0")), "a pid that was given again");
        assert!(!abandoned("pantry-server"));
        assert!(!abandoned("somebody-else-1-2-3"));
    }

    #[test]
    fn exit_codes_are_those_of_shells() {
        assert_eq!(exit_code(End::Exited(3)), 3);
        assert_eq!(exit_code(End::Signaled(15)), 143);
    }
}
