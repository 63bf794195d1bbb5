//! One run, seen from the caller: start the helper, attend to streams, clock and cancel, and judge the end.

mod jobs;
mod required;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio as ChildStdio};
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, waitpid};

use super::cancel::Cancel;
use super::cgroup::Group;
use super::collect;
use super::error::{Doing as _, Fault, SandboxError};
use super::guarded::Guarded;
use super::helper::Order;
use super::host::{self, OutsideIds};
use super::kept::Kept;
use super::learn::{self, Learning};
use super::network::{Outside, Servers};
use super::outcome::{End, Limit, Outcome, TakenOutput};
use super::policy::Policy;
use super::receipt::{self, EnforcedLimits, Enforcement, Features, Receipt};
use super::streams::{ProgramEnds, Streams};
use super::terminal::{Side, Terminal};
use super::watchdog::PINNED;
use super::wire::{self, FromHelper, FromInit, GO, Launch, Sampled, Started, ToInit, Watch};
use super::world::timespec;

/// How often controllers are asked whether a run sits at its limit of processes.
const GLANCE: Duration = Duration::from_millis(100);
/// A set-up that takes longer is stuck.
const SET_UP: Duration = Duration::from_secs(30);

/// What a run needs beside its policy.
pub(crate) struct Surroundings<'a> {
    pub(crate) helper: &'a Path,
    /// The helper's executable on a read-only mount, where the caller can make one.
    pub(crate) guarded: Option<&'a Guarded>,
    /// Where copies of a helper come from; without it each run starts its own.
    pub(crate) kept: Option<&'a Kept>,
    pub(crate) group: Group,
    pub(crate) ids: OutsideIds,
    pub(crate) cancel: &'a Cancel,
    /// What the servers of the run lead to.
    pub(crate) outside: &'a Outside,
    /// The newest ABI of Landlock to use.
    pub(crate) landlock_at_most: u32,
    /// Whether what is refused is to be told.
    pub(crate) learn: bool,
    /// Signals to pass on to the program.
    pub(crate) signals: Option<&'a SignalFd>,
}

/// Runs a checked policy.
pub(crate) fn run(
    policy: &Policy,
    streams: (Streams, ProgramEnds),
    around: &Surroundings<'_>,
) -> Result<Outcome, SandboxError> {
    let begun = Instant::now();
    let limits = required::enforced(policy, &around.group);
    required::check(policy, &limits)?;
    let (streams, ends) = streams;
    let mut attended = Attended {
        policy,
        streams,
        control: None,
        helper: None,
        status: None,
        pidfd: None,
        started: None,
        outputs: Vec::new(),
        servers: None,
        to_learn: around.learn.then(|| {
            let watched = limits.memory.enforced_by == Enforcement::Watchdog;
            learn::Facts::of(policy, watched, around.ids)
        }),
        learning: None,
        said: None,
        killed: None,
        fault: None,
        refused: Refusals::default(),
    };
    let attending = attended.start(around, &limits, ends).and_then(|()| attended.attend(around, begun));
    if attending.is_err() {
        attended.kill(&around.group);
    }
    attended.let_helper_go(around)?;
    attending?;
    attended.last_words(around.outside);
    let by_force = attended.killed.is_some() || matches!(attended.said, Some((End::TimedOut, _)));
    attended.streams.settle(by_force, around.signals)?;
    attended.conclude(around, limits, begun)
}

#[derive(Default)]
struct Refusals {
    count: u64,
    since: Option<Instant>,
    last_rise: Option<Instant>,
}

struct Attended<'a> {
    policy: &'a Policy,
    streams: Streams,
    control: Option<OwnedFd>,
    helper: Option<Helper>,
    status: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
    started: Option<Started>,
    outputs: Vec<OwnedFd>,
    servers: Option<Servers>,
    /// Of a learning run, until it begins.
    to_learn: Option<learn::Facts>,
    learning: Option<Learning>,
    /// What the init said at the end.
    said: Option<(End, Sampled)>,
    /// Why we ended it.
    killed: Option<End>,
    fault: Option<Fault>,
    refused: Refusals,
}

/// The helper of a run, to be waited for.
enum Helper {
    /// Started for it.
    Started(Child),
    /// To be a copy of the kept one, whose pid has not come yet.
    Awaited,
    /// A copy of the kept one.
    Copied(Pid),
}

#[derive(Clone, Copy)]
enum Source {
    Control,
    Status,
    Gone,
    Stdin,
    Output(usize),
    Copy(usize),
    Terminal(Side),
    Cancel,
    Signals,
}

impl Attended<'_> {
    fn start(
        &mut self,
        around: &Surroundings<'_>,
        limits: &EnforcedLimits,
        ends: ProgramEnds,
    ) -> Result<(), SandboxError> {
        let launch = Launch {
            policy: self.policy.clone(),
            as_root: around.ids.as_root,
            host_uid: around.ids.uid,
            host_gid: around.ids.gid,
            watch: Watch {
                memory: limits.memory.enforced_by == Enforcement::Watchdog,
                processes: limits.processes.enforced_by == Enforcement::Watchdog,
                cpu: limits.cpu.enforced_by == Enforcement::Watchdog,
            },
            terminal: self.streams.terminal.as_ref().map(Terminal::seat),
            landlock_at_most: around.landlock_at_most,
            learn: around.learn,
            groups: around.group.dirs().cloned().collect(),
        };
        let (control, control_theirs) = wire::pair().doing("make the control socket")?;
        let (status, status_theirs) = wire::pair().doing("make the status socket")?;
        let file = memory_file(&launch)?;
        let control = &*self.control.insert(control);
        let guarded = if let Some(kept) = around.kept {
            self.helper = Some(Helper::Awaited);
            kept.helper_at(&control_theirs, &|socket| start_helper(around, socket, &["__jail", "keep"]))?
        } else {
            let (child, guarded) = start_helper(around, &control_theirs, &["__jail"])?;
            self.helper = Some(Helper::Started(child));
            guarded
        };
        // A copy here would hide the helper's death.
        drop(control_theirs);
        let doors = around.group.doors().doing("open the control groups")?;
        let birthplace = around.group.birthplace();
        let order = Order { guarded, doors: doors.len(), into_cgroup: birthplace.is_some() };
        let mut fds: Vec<BorrowedFd<'_>> = vec![file.as_fd(), status_theirs.as_fd()];
        fds.extend(ends.iter().map(AsFd::as_fd));
        fds.extend(doors.iter().map(AsFd::as_fd));
        fds.extend(birthplace.iter().map(AsFd::as_fd));
        // A helper that is dead already is found by the end of file on its socket.
        let _told = wire::send_message(control, &order, &fds);
        // Only the program may hold these: a copy here would keep its pipes open.
        drop(ends);
        self.status = Some(status);
        Ok(())
    }

    fn attend(&mut self, around: &Surroundings<'_>, begun: Instant) -> Result<(), SandboxError> {
        let wall = match self.policy.limits.wall_ms {
            0 => None,
            wall_ms => Some(Duration::from_millis(wall_ms)),
        };
        let mut glance = begun + GLANCE;
        loop {
            if self.control.is_none() && self.pidfd.is_none() {
                // Nothing was born, and now nothing can be.
                return Ok(());
            }
            let allowed = if self.started.is_some() {
                wall
            } else {
                Some(wall.map_or(SET_UP, |wall| wall.min(SET_UP)))
            };
            let left = allowed.map(|allowed| (begun + allowed).saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) && self.killed.is_none() {
                self.end(End::TimedOut, &around.group);
            }
            let counted = around.group.processes_by() != Enforcement::None;
            let mut pause = left.filter(|_| self.killed.is_none());
            if counted {
                pause = Some(pause.map_or(GLANCE, |pause| pause.min(GLANCE)));
            }
            let ready = self.wait(around, pause)?;
            for source in ready {
                if self.handle(source, around)? {
                    return Ok(());
                }
            }
            // Not at every event: asking opens files of each controller.
            if counted && self.killed.is_none() && Instant::now() >= glance {
                glance = Instant::now() + GLANCE;
                if self.pinned(&around.group) {
                    self.end(End::LimitHit(Limit::Processes), &around.group);
                }
            }
            if self.streams.over_cap() && self.killed.is_none() {
                self.end(End::LimitHit(Limit::Output), &around.group);
            }
        }
    }

    fn wait(&self, around: &Surroundings<'_>, pause: Option<Duration>) -> Result<Vec<Source>, SandboxError> {
        let mut waited: Vec<(Source, BorrowedFd<'_>, PollFlags)> = Vec::with_capacity(8);
        waited.extend(self.control.iter().map(|fd| (Source::Control, fd.as_fd(), PollFlags::IN)));
        waited.extend(self.status.iter().map(|fd| (Source::Status, fd.as_fd(), PollFlags::IN)));
        waited.extend(self.pidfd.iter().map(|fd| (Source::Gone, fd.as_fd(), PollFlags::IN)));
        waited.extend(self.streams.wants_to_write().map(|fd| (Source::Stdin, fd, PollFlags::OUT)));
        // Once it is over its cap nothing more is read: it is being ended.
        if !self.streams.over_cap() {
            for (index, drain) in self.streams.output.iter().enumerate() {
                waited.extend(drain.pipe().map(|fd| (Source::Output(index), fd, PollFlags::IN)));
            }
        }
        waited.extend(self.streams.copies().map(|(index, fd, flags)| (Source::Copy(index), fd, flags)));
        let terminal = self.streams.terminal.iter().flat_map(Terminal::waits_for);
        waited.extend(terminal.map(|(side, fd, flags)| (Source::Terminal(side), fd, flags)));
        if self.killed.is_none() {
            waited.push((Source::Cancel, around.cancel.as_fd(), PollFlags::IN));
        }
        waited.extend(around.signals.map(|signals| (Source::Signals, signals.as_fd(), PollFlags::IN)));
        let mut fds: Vec<PollFd<'_>> =
            waited.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let timeout = pause.map(timespec);
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).doing("wait for the run"),
        }
        let ready = waited.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|((source, ..), _)| *source).collect())
    }

    /// Handles what one descriptor has; true when the init is gone.
    fn handle(&mut self, source: Source, around: &Surroundings<'_>) -> Result<bool, SandboxError> {
        match source {
            Source::Control => return self.hear_helper(around),
            Source::Status => self.hear_init(around.outside)?,
            Source::Gone => return Ok(true),
            Source::Stdin => self.streams.write(),
            Source::Output(index) => self.streams.read(index),
            Source::Cancel => self.end(End::Cancelled, &around.group),
            Source::Copy(index) => self.streams.copy(index),
            Source::Terminal(side) => {
                if let Some(terminal) = &mut self.streams.terminal {
                    terminal.pass(side);
                }
            }
            Source::Signals => {
                while let Some(Ok(Some(signal))) = around.signals.map(SignalFd::read_signal) {
                    self.signalled(i32::try_from(signal.ssi_signo).unwrap_or(0));
                }
            }
        }
        Ok(false)
    }

    fn hear_helper(&mut self, around: &Surroundings<'_>) -> Result<bool, SandboxError> {
        let Some(control) = &self.control else { return Ok(false) };
        match wire::receive_message::<FromHelper>(control).doing("hear the helper")? {
            Some((FromHelper::Cloned { pid, in_cgroup }, mut fds)) => {
                self.pidfd = fds.pop();
                around.group.add(pid, in_cgroup).doing("move the init into its control groups")?;
                // If it is dead, its pidfd says so.
                let _told = wire::send(control, GO, &[]);
                Ok(false)
            }
            Some((FromHelper::Copied { pid }, _)) => {
                self.helper = Pid::from_raw(pid).map(Helper::Copied);
                Ok(false)
            }
            Some((FromHelper::Failed(fault), _)) => {
                self.fault.get_or_insert(fault);
                Ok(false)
            }
            None => {
                self.control = None;
                // Without an init there is nothing more to come.
                Ok(self.pidfd.is_none())
            }
        }
    }

    /// Waits for the helper's end.
    fn let_helper_go(&mut self, around: &Surroundings<'_>) -> Result<(), SandboxError> {
        // Its pid is on the way, or the end of the socket: then it never was.
        while matches!(self.helper, Some(Helper::Awaited)) && self.control.is_some() {
            if self.hear_helper(around).is_err() {
                break;
            }
        }
        // Its end of file is the helper's order to end everything, should anything be left.
        self.control = None;
        let doing = "wait for the helper";
        match self.helper.take() {
            Some(Helper::Started(mut child)) => child.wait().map(drop).doing(doing),
            Some(Helper::Copied(pid)) => {
                let waited = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
                waited.map(drop).doing(doing)
            }
            Some(Helper::Awaited) | None => Ok(()),
        }
    }

    fn hear_init(&mut self, outside: &Outside) -> Result<(), SandboxError> {
        let Some(status) = &self.status else { return Ok(()) };
        match wire::receive_message::<FromInit>(status) {
            Ok(Some((FromInit::Failed(fault), _))) => {
                self.fault.get_or_insert(fault);
            }
            Ok(Some((FromInit::Listening, listeners))) => {
                self.servers = Some(Servers::start(listeners, self.policy.servers(), outside)?);
            }
            Ok(Some((FromInit::Network, fds))) => {
                if let (Some(plug), [namespace, ..]) = (&outside.plug, fds.as_slice()) {
                    plug.put_in(namespace.as_fd()).doing("plug the run's network in")?;
                    self.tell_init(ToInit::Ready);
                }
            }
            Ok(Some((FromInit::Terminal, mut fds))) => {
                if let (Some(terminal), Some(theirs)) = (&mut self.streams.terminal, fds.pop()) {
                    terminal.connect(theirs)?;
                    self.tell_init(ToInit::Ready);
                }
            }
            Ok(Some((FromInit::Stopped { signal }, _))) => self.stopped(signal),
            Ok(Some((FromInit::Learning { landlock_abi }, mut fds))) => {
                if let (Some(listener), Some(facts)) = (fds.pop(), self.to_learn.take()) {
                    self.learning = Some(Learning::start(listener, facts, landlock_abi)?);
                }
            }
            Ok(Some((FromInit::Started(started), outputs))) => {
                self.started = Some(started);
                self.outputs = outputs;
            }
            Ok(Some((FromInit::Ended { exited, signaled, sampled }, _))) => {
                let end = match (exited, signaled) {
                    (Some(code), _) => End::Exited(code),
                    (None, Some(signal)) if signal == nix::libc::SIGSYS => End::Denied,
                    (None, signal) => End::Signaled(signal.unwrap_or(0)),
                };
                self.said = Some((end, sampled));
            }
            Ok(Some((FromInit::TimedOut { sampled }, _))) => self.said = Some((End::TimedOut, sampled)),
            Ok(Some((FromInit::Hit { limit, sampled }, _))) => {
                self.said = Some((End::LimitHit(limit), sampled));
            }
            Ok(None) | Err(_) => self.status = None,
        }
        Ok(())
    }

    /// Ends the run for this reason.
    fn end(&mut self, why: End, group: &Group) {
        self.killed.get_or_insert(why);
        self.kill(group);
    }

    fn kill(&mut self, group: &Group) {
        group.kill();
        match &self.pidfd {
            Some(pidfd) => {
                let _gone = pidfd_send_signal(pidfd, Signal::KILL);
            }
            // Not born yet: the helper sees the end of its socket, and ends what it may have made by now.
            None => {
                if let Some(control) = &self.control {
                    let _gone = shutdown(control, Shutdown::Write);
                }
            }
        }
    }

    /// Whether the run has been refused processes for a while without a pause: it forks without end.
    ///
    /// While it is refused it gives way on the processor: a refused fork is work that the kernel does without a break,
    /// and others would wait for it.
    fn pinned(&mut self, group: &Group) -> bool {
        let (now, count) = (Instant::now(), group.events().processes_refused);
        if count > self.refused.count {
            self.refused.count = count;
            self.refused.last_rise = Some(now);
            if self.refused.since.is_none() {
                self.refused.since = Some(now);
                group.give_way(true);
            }
        } else if self.refused.since.is_some()
            && self.refused.last_rise.is_none_or(|last| now.duration_since(last) > 5 * GLANCE)
        {
            self.refused.since = None;
            group.give_way(false);
        }
        self.refused.since.is_some_and(|since| now.duration_since(since) >= PINNED)
    }

    /// Reads what was said before the end and is still on the way.
    fn last_words(&mut self, outside: &Outside) {
        while self.status.is_some() {
            // What can't be served any more isn't missed.
            let _late = self.hear_init(outside);
        }
        for index in 0..self.streams.output.len() {
            if !self.streams.over_cap() {
                self.streams.read(index);
            }
        }
    }

    fn judge(&self, group: &Group) -> Result<End, SandboxError> {
        let events = group.events();
        let sampled = self.said.map(|(_, sampled)| sampled).unwrap_or_default();
        let end = match (self.said, self.killed, &self.fault) {
            (None, Some(End::Cancelled), _) => End::Cancelled,
            (None, _, Some(fault)) if self.started.is_none() => return Err(host::explain(fault.clone())),
            _ if self.streams.over_cap() => End::LimitHit(Limit::Output),
            (Some((end, _)), ..) => end,
            (None, Some(killed), _) if self.started.is_some() => killed,
            (None, ..) if events.out_of_memory > 0 => End::LimitHit(Limit::Memory),
            (None, Some(_), _) => {
                return Err(SandboxError::Setup { step: "finish the set-up in time".to_owned(), errno: 0 });
            }
            // Once the program runs, whatever ends the init is the run's own end: it may be the program's doing.
            (None, None, _) if self.started.is_some() => End::Signaled(nix::libc::SIGKILL),
            (None, None, _) => {
                return Err(SandboxError::Setup { step: "keep the init alive".to_owned(), errno: 0 });
            }
        };
        let failed = !matches!(end, End::Exited(0) | End::Cancelled | End::LimitHit(_) | End::Denied);
        Ok(if failed && events.out_of_memory > 0 {
            End::LimitHit(Limit::Memory)
        } else if failed && (events.processes_refused > 0 || sampled.at_process_limit) {
            End::LimitHit(Limit::Processes)
        } else {
            end
        })
    }

    fn conclude(
        mut self,
        around: &Surroundings<'_>,
        limits: EnforcedLimits,
        begun: Instant,
    ) -> Result<Outcome, SandboxError> {
        let (network, left_out) = self.servers.take().map(Servers::finish).unwrap_or_default();
        let learned = around.learn.then(|| self.learning.take().map(Learning::finish).unwrap_or_default());
        let mut end = self.judge(&around.group)?;
        let wall_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut outputs: Vec<TakenOutput> = Vec::new();
        for (from, spec) in self.outputs.iter().zip(&self.policy.outputs) {
            let taken = collect::take(from, spec)?;
            if taken.over_cap.is_some() && matches!(end, End::Exited(_)) {
                end = End::LimitHit(Limit::Files);
            }
            outputs.push(taken);
        }
        let sampled = self.said.map(|(_, sampled)| sampled.peak_memory_bytes).filter(|peak| *peak > 0);
        let receipt = Receipt {
            notes: receipt::notes(
                &limits,
                self.started.is_some() && self.said.is_none() && self.killed.is_none(),
                left_out,
                around.learn,
            ),
            limits,
            kernel: host::kernel(),
            root_mode: around.ids.as_root,
            features: Features {
                user_namespace: true,
                network_namespace: self.policy.has_own_network(),
                seccomp: true,
                landlock_abi: self.started.and_then(|started| started.landlock_abi),
                session_keyring: self.started.is_some_and(|started| started.session_keyring),
                own_executable: self.started.map(|started| started.own_executable),
                root: self.started.map(|started| started.root),
            },
            ownership_emulated: self.policy.emulates_ownership(),
            grants: self.policy.grants.clone(),
            peak_memory_bytes: around.group.peak_memory_bytes().or(sampled),
            host_uid: around.ids.uid,
        };
        let [stdout, stderr] = self.streams.finish();
        Ok(Outcome { end, stdout, stderr, outputs, receipt, network, learned, wall_ms })
    }
}

/// Starts the helper; says whether it runs from the read-only mount.
fn start_helper(
    around: &Surroundings<'_>,
    socket: &OwnedFd,
    arguments: &[&str],
) -> Result<(Child, bool), SandboxError> {
    let doing = "start the helper";
    let start = |program: &Path| -> std::io::Result<Child> {
        Command::new(program)
            .arg0("pantry")
            .args(arguments)
            .env_clear()
            .stdin(ChildStdio::from(socket.try_clone()?))
            .stdout(ChildStdio::null())
            .stderr(ChildStdio::null())
            .spawn()
    };
    // A security module that goes by paths may not know this one.
    if let Some(Ok(child)) = around.guarded.map(|guarded| start(&guarded.path())) {
        return Ok((child, true));
    }
    start(around.helper).map(|child| (child, false)).doing(doing)
}

fn memory_file(launch: &Launch) -> Result<OwnedFd, SandboxError> {
    let doing = "write the policy";
    let bytes = serde_json::to_vec(launch).map_err(std::io::Error::other).doing(doing)?;
    let file = rustix::fs::memfd_create("policy", MemfdFlags::CLOEXEC).doing(doing)?;
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::write(&file, &bytes[written..]).doing(doing)?;
    }
    Ok(file)
}
