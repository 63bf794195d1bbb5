//! The init of a jail: pid 1 inside, ours, never dumpable.
//!
//! It builds the world of the run, forks the program, reaps what is orphaned, samples where no controller does, and
//! alone holds the status socket. Its end is the end of every process inside.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, wait};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets, Gid, Uid};

use super::error::{Fault, Step};
use super::helper::{FD_LAUNCH, FD_STATUS, FD_SYNC, read_launch};
use super::network;
use super::payload;
use super::policy::Network;
use super::receipt::OwnExecutable;
use super::sys;
use super::terminal::Stand;
use super::watchdog::Watchdog;
use super::wire::{self, FromInit, FromPayload, Launch, Started, ToInit};
use super::world::{self, Host, World};

/// Runs the init; never returns. What is to be launched is read from its descriptor where it isn't known yet.
pub(crate) fn run(own_executable: OwnExecutable, known: Option<Launch>) -> ! {
    let (Ok(status), Ok(launch), Ok(sync)) =
        (sys::take_inherited(FD_STATUS), sys::take_inherited(FD_LAUNCH), sys::take_inherited(FD_SYNC))
    else {
        sys::exit(125)
    };
    let launch = known.map_or_else(|| read_launch(&launch), Ok);
    let fault = match launch.and_then(|launch| start(&status, &launch, own_executable)) {
        Ok(running) => running.attend(&status, &sync),
        Err(fault) => fault,
    };
    let told = wire::send_message(&status, &FromInit::Failed(fault), &[]);
    sys::exit(if told.is_ok() { 0 } else { 125 });
}

/// A run whose program has been executed.
struct Running {
    watchdog: Option<Watchdog>,
    signals: SignalFd,
    program: Pid,
    stand: Option<Stand>,
    /// When the wall clock has run out for long enough that the caller, who watches it, must be stopped.
    deadline: Option<Instant>,
}

fn start(status: &OwnedFd, launch: &Launch, own_executable: OwnExecutable) -> Result<Running, Fault> {
    if std::process::id() != 1 {
        return Err(Fault { step: "be pid 1".to_owned(), errno: libc::EINVAL });
    }
    sys::close_from(FD_SYNC + 1).step("close descriptors")?;
    sys::make_private().step("make mounts private")?;
    sys::new_cgroup_namespace().step("make the cgroup namespace")?;
    // Host paths are opened as the caller, whose directories they are; everything else is made as the id inside.
    let host = Host::open(launch)?;
    take_identity(launch)?;
    connect(status, launch)?;
    let world = World::build(launch, host)?;
    rustix::system::sethostname(launch.policy.hostname.as_bytes()).step("set the host name")?;
    let session_keyring = sys::join_new_session_keyring().is_ok();
    let stand = launch.terminal.map(|seat| Stand::make(seat, status)).transpose()?;

    let mut mask = SigSet::empty();
    mask.add(NixSignal::SIGCHLD);
    mask.thread_block().step("block SIGCHLD")?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .step("make a signalfd")?;
    let (failed_read, failed_write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step("make a pipe")?;
    let Some(program) = sys::fork_single_threaded().step("fork the program")? else {
        payload::execute(launch, stand.as_ref(), &failed_write, status);
        sys::exit(127);
    };
    drop(failed_write);
    // The program's streams are its own; a copy here would keep pipes open.
    for number in 0..3 {
        drop(sys::take_inherited(number));
    }
    drop_capabilities()?;
    let watchdog = Watchdog::new(launch)?;
    let landlock_abi = executed(&failed_read)?;
    let outputs: Vec<BorrowedFd<'_>> = world.outputs.iter().map(AsFd::as_fd).collect();
    let started = Started { own_executable, root: world.root, session_keyring, landlock_abi };
    wire::send_message(status, &FromInit::Started(started), &outputs).step("tell the start")?;
    drop(world);
    let deadline = match launch.policy.limits.wall_ms {
        0 => None,
        wall_ms => Instant::now().checked_add(Duration::from_millis(wall_ms) + CALLERS_TURN),
    };
    Ok(Running { watchdog, signals, program, stand, deadline })
}

/// Makes the listeners of the run, or its network namespace ready to be plugged in, and passes them out; no copy stays
/// here.
fn connect(status: &OwnedFd, launch: &Launch) -> Result<(), Fault> {
    let servers = match &launch.policy.network {
        Network::None | Network::Host => return Ok(()),
        Network::Service => {
            network::loopback_up().step("start the loopback device")?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let namespace = rustix::fs::open("/proc/self/ns/net", flags, Mode::empty())
                .step("open the network namespace")?;
            wire::send_message(status, &FromInit::Network, &[namespace.as_fd()])
                .step("pass the network namespace out")?;
            return await_ready(status);
        }
        Network::Socket { servers } => servers,
    };
    let listeners = network::listen(servers, launch.watch.memory)?;
    let fds: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
    wire::send_message(status, &FromInit::Listening, &fds).step("pass the listeners out")
}

/// Waits until the caller has set up what was passed out.
pub(crate) fn await_ready(status: &OwnedFd) -> Result<(), Fault> {
    match wire::receive_message(status).step("wait for the caller")? {
        Some((ToInit::Ready, _)) => Ok(()),
        // Nobody is left who could be told.
        _ => sys::exit(125),
    }
}

/// Waits until the program's process has executed the program, or says why it could not; gives Landlock's ABI, where
/// it was used. The end of the pipe without a fault means that it did.
fn executed(pipe: &OwnedFd) -> Result<Option<u32>, Fault> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let read =
            rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut buffer)).step("wait for the exec")?;
        if read == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..read]);
    }
    let mut abi = None;
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(FromPayload::Held { landlock_abi }) => abi = landlock_abi,
            Ok(FromPayload::Failed(fault)) => return Err(fault),
            Err(_) => return Err(Fault { step: "execute the program".to_owned(), errno: libc::EPROTO }),
        }
    }
    Ok(abi)
}

/// Becomes the id inside, keeping the capabilities in the jail's user namespace for the set-up.
fn take_identity(launch: &Launch) -> Result<(), Fault> {
    rustix::thread::set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)
        .step("keep capabilities")?;
    let identity = launch.policy.identity;
    if launch.as_root {
        rustix::thread::set_thread_groups(&[]).step("drop groups")?;
    }
    let gid = Gid::from_raw(identity.gid);
    let uid = Uid::from_raw(identity.uid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).step("take the group id")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).step("take the user id")?;
    // After the ids, whose change clears it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step("follow the helper's death")?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step("shut the init's memory")
}

fn drop_capabilities() -> Result<(), Fault> {
    let none = CapabilitySet::empty();
    rustix::thread::clear_ambient_capability_set().step("drop the init's capabilities")?;
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).step("drop the init's capabilities")?;
    rustix::thread::set_no_new_privs(true).step("drop the init's capabilities")
}

/// How much longer than the wall clock the caller has.
const CALLERS_TURN: Duration = Duration::from_millis(500);

/// So many are reaped before the next look at everything else.
const MOST_REAPED: u32 = 256;

struct Reaped {
    /// How the program ended, by code or signal, once it has.
    program: Option<(Option<i32>, Option<i32>)>,
    more: bool,
}

impl Running {
    /// Attends the run to its end; comes back only if that could not be told.
    fn attend(mut self, status: &OwnedFd, sync: &OwnedFd) -> Fault {
        let mut watchdog = self.watchdog.take();
        let mut due = Instant::now();
        let mut unreaped = false;
        loop {
            if let Some(dog) = watchdog.as_mut().filter(|_| Instant::now() >= due) {
                match dog.sample() {
                    Err(fault) => return fault,
                    Ok(Some(limit)) => {
                        Self::leave(status, Some(dog), |sampled| FromInit::Hit { limit, sampled });
                    }
                    // Only a sample moves the next one: an orphan to reap, or a signal to pass on, would put it off for ever.
                    Ok(None) => due = Instant::now() + dog.pause(),
                }
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                Self::leave(status, watchdog.as_ref(), |sampled| FromInit::TimedOut { sampled });
            }
            let next = watchdog.as_ref().map(|_| due).into_iter().chain(self.deadline).min();
            let timeout = if unreaped {
                Some(Duration::ZERO)
            } else {
                next.map(|next| next.saturating_duration_since(Instant::now()))
            };
            let mut fds = [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(status, PollFlags::IN),
                PollFd::new(sync, PollFlags::empty()),
            ];
            match wait_for(&mut fds, timeout) {
                Ok(()) | Err(Errno::INTR) => {}
                Err(errno) => {
                    return Fault { step: "attend the run".to_owned(), errno: errno.raw_os_error() };
                }
            }
            let [children, messages, helper] = fds.map(|fd| fd.revents());
            if helper.intersects(PollFlags::HUP | PollFlags::ERR) {
                sys::exit(0);
            }
            if unreaped || !children.is_empty() {
                while matches!(self.signals.read_signal(), Ok(Some(_))) {}
                let reaped = self.reap(status);
                unreaped = reaped.more;
                if let Some((exited, signaled)) = reaped.program {
                    Self::leave(status, watchdog.as_ref(), |sampled| FromInit::Ended {
                        exited,
                        signaled,
                        sampled,
                    });
                }
            }
            if !messages.is_empty() {
                match wire::receive_message(status) {
                    Ok(Some((ToInit::Signal(number), _))) => self.forward(number),
                    Ok(Some((ToInit::Resume { foreground }, _))) => {
                        if let Some(stand) = &mut self.stand {
                            stand.resume(self.program, foreground);
                        }
                    }
                    Ok(Some((ToInit::Ready, _))) => {}
                    _ => sys::exit(0),
                }
            }
        }
    }

    fn leave(
        status: &OwnedFd,
        watchdog: Option<&Watchdog>,
        message: impl FnOnce(wire::Sampled) -> FromInit,
    ) -> ! {
        let sampled = watchdog.map(Watchdog::seen).unwrap_or_default();
        let told = wire::send_message(status, &message(sampled), &[]);
        sys::exit(if told.is_ok() { 0 } else { 125 })
    }

    /// Reaps what has ended, but no more at a time than leaves time for sampling however fast they come. With a
    /// terminal, tells when the program is stopped.
    fn reap(&self, status: &OwnedFd) -> Reaped {
        let mut options = WaitOptions::NOHANG;
        options.set(WaitOptions::UNTRACED, self.stand.is_some());
        let mut reaped = Reaped { program: None, more: true };
        for _ in 0..MOST_REAPED {
            let Ok(Some((pid, how))) = wait(options) else {
                reaped.more = false;
                break;
            };
            if pid != self.program {
                continue;
            }
            if let Some(signal) = how.stopping_signal() {
                // A caller who is gone has ended the run already.
                let _gone = wire::send_message(status, &FromInit::Stopped { signal }, &[]);
            } else {
                reaped.program = Some((how.exit_status(), how.terminating_signal()));
            }
        }
        reaped
    }

    /// Passes a signal on: those of a terminal to the whole group, as a terminal would, others to the program.
    fn forward(&self, number: i32) {
        let Some(signal) = Signal::from_named_raw(number) else { return };
        let _gone = if matches!(signal, Signal::INT | Signal::QUIT | Signal::HUP | Signal::TSTP) {
            rustix::process::kill_process_group(self.program, signal)
        } else {
            rustix::process::kill_process(self.program, signal)
        };
    }
}

fn wait_for(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<(), Errno> {
    let timeout = timeout.map(world::timespec);
    poll(fds, timeout.as_ref()).map(|_| ())
}
