//! `pantry __jail`: the small single-threaded process between the caller and a run.
//!
//! It gets the policy over the control socket, makes the init in its new namespaces, writes the id maps, and waits.
//! It was started for one run, or is a copy of the helper that is [kept](super::kept).
//! When the control socket ends — the caller is dead — it kills the init and with it everything inside.
//! (A parent-death signal would fire when the caller's *thread* ends, so it is used from here on only.)

use std::ffi::CString;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use fs_err as fs;
use nix::libc;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions, pidfd_send_signal, waitpid};
use rustix::thread::CapabilitySet;

use super::cgroup;
use super::error::{Fault, Step};
use super::guarded::{self, OWN_EXECUTABLE};
use super::init;
use super::receipt::OwnExecutable;
use super::sys::{self, Cloned};
use super::wire::{self, FromHelper, FromInit, GO, HELP, Launch};

/// Exit code of a helper that could not even say what went wrong.
const LOST: i32 = 125;

/// Descriptors of the init, by number.
pub(crate) const FD_STATUS: i32 = 3;
pub(crate) const FD_LAUNCH: i32 = 4;
pub(crate) const FD_SYNC: i32 = 5;
/// Where copies are put out of the way of these.
const FD_HIGH: i32 = 32;

/// What comes with the descriptors, and which of those that not every run has.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Order {
    /// Whether this helper was started from a read-only mount of its executable.
    pub(crate) guarded: bool,
    /// How many control groups of version 1 the init brings itself into.
    pub(crate) doors: usize,
    /// Whether the last one is a control group to be born in.
    pub(crate) into_cgroup: bool,
}

/// Stays, and makes a copy of itself for each run, which is the helper of that run and the caller's child; never
/// returns.
pub(crate) fn keep() -> ! {
    let Ok(requests) = sys::take_inherited(0) else { sys::exit(LOST) };
    if sys::close_from(3).is_err() {
        sys::exit(LOST);
    }
    // Signals of the caller's terminal are for the caller.
    let _already_leader = rustix::process::setsid();
    if rustix::process::chdir("/").is_err() {
        sys::exit(LOST);
    }
    loop {
        let control = match wire::receive(&requests) {
            Ok((request, mut fds)) if request == HELP => fds.pop(),
            // The caller is gone.
            _ => sys::exit(0),
        };
        let Some(control) = control else { continue };
        let told = match sys::spawn_sibling() {
            Ok(Cloned::Child) => {
                drop(requests);
                if sys::place(control, 0).is_err() {
                    sys::exit(LOST);
                }
                run()
            }
            Ok(Cloned::Parent { pid, pidfd: _ }) => FromHelper::Copied { pid },
            Err(errno) => {
                FromHelper::Failed(Fault { step: "copy the helper".to_owned(), errno: errno.raw_os_error() })
            }
        };
        // A caller that doesn't hear it is dead, and the copy sees that by itself.
        let _told = wire::send_message(&control, &told, &[]);
    }
}

/// Runs the helper; never returns.
pub(crate) fn run() -> ! {
    let Ok(control) = sys::take_inherited(0) else { sys::exit(LOST) };
    if sys::close_from(3).is_err() {
        sys::exit(LOST);
    }
    match serve(&control) {
        Ok(()) => sys::exit(0),
        Err(fault) => {
            let told = wire::send_message(&control, &FromHelper::Failed(fault), &[]);
            sys::exit(if told.is_ok() { 0 } else { LOST });
        }
    }
}

struct Given {
    launch: OwnedFd,
    status: OwnedFd,
    stdio: [OwnedFd; 3],
    doors: Vec<OwnedFd>,
    cgroup: Option<OwnedFd>,
    guarded: bool,
}

fn serve(control: &OwnedFd) -> Result<(), Fault> {
    // Signals of the caller's terminal are for the caller, which forwards them.
    let _already_leader = rustix::process::setsid();
    rustix::process::chdir("/").step("leave the caller's directory")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let (order, fds) = wire::receive_message::<Order>(control)
        .step("receive the order")?
        .ok_or_else(|| lost("receive the order"))?;
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or_else(|| lost("receive the order's descriptors"));
    let given = Given {
        launch: next()?,
        status: next()?,
        stdio: [next()?, next()?, next()?],
        doors: (0..order.doors).map(|_| next()).collect::<Result<_, _>>()?,
        guarded: order.guarded && guarded::holds(),
        cgroup: if order.into_cgroup { Some(next()?) } else { None },
    };
    let launch = read_launch(&given.launch)?;
    let (sync_read, sync_write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step("make a pipe")?;
    let (cloned, in_cgroup) = clone(&launch, given.cgroup.as_ref())?;
    let (pid, pidfd) = match cloned {
        Cloned::Child => become_init(given, launch, sync_read, sync_write),
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((given, sync_read));
    let result = release(control, &launch, pid, in_cgroup, &pidfd, sync_write.as_fd());
    let orphaned = if result.is_err() {
        let _gone = pidfd_send_signal(&pidfd, Signal::KILL);
        false
    } else {
        watch(control, &pidfd) == Ended::Caller
    };
    let _reaped =
        rustix::io::retry_on_intr(|| waitpid(rustix::process::Pid::from_raw(pid), WaitOptions::empty()));
    if orphaned {
        for group in &launch.groups {
            // What can't be is left to a sweep.
            cgroup::remove(group);
        }
    }
    result
}

fn lost(step: &str) -> Fault {
    Fault { step: step.to_owned(), errno: libc::EPROTO }
}

pub(crate) fn read_launch(file: &OwnedFd) -> Result<Launch, Fault> {
    let size = rustix::fs::fstat(file).step("read the policy")?.st_size;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        let read = rustix::io::pread(file, &mut bytes[filled..], filled as u64).step("read the policy")?;
        if read == 0 {
            return Err(lost("read the policy"));
        }
        filled += read;
    }
    serde_json::from_slice(&bytes).map_err(|_| lost("understand the policy"))
}

fn clone(launch: &Launch, cgroup: Option<&OwnedFd>) -> Result<(Cloned, bool), Fault> {
    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    if launch.policy.has_own_network() {
        flags |= libc::CLONE_NEWNET;
    }
    let flags = u64::from(flags.cast_unsigned());
    if cgroup.is_some() {
        match sys::spawn_in_namespaces(flags, cgroup.map(AsFd::as_fd)) {
            // Not allowed or not there: the caller moves the init by its pid instead.
            Err(Errno::ACCESS | Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP | Errno::BUSY) => {}
            other => return other.step("clone3").map(|cloned| (cloned, true)),
        }
    }
    sys::spawn_in_namespaces(flags, None).step("clone3").map(|cloned| (cloned, false))
}

fn release(
    control: &OwnedFd,
    launch: &Launch,
    pid: i32,
    in_cgroup: bool,
    pidfd: &OwnedFd,
    sync: impl AsFd,
) -> Result<(), Fault> {
    wire::send_message(control, &FromHelper::Cloned { pid, in_cgroup }, &[pidfd.as_fd()])
        .step("tell the pid")?;
    let (answer, _) = wire::receive(control).step("wait for the go-ahead")?;
    if answer != GO {
        return Err(lost("wait for the go-ahead"));
    }
    if !launch.as_root {
        write_map(pid, "setgroups", "deny")?;
    }
    let identity = &launch.policy.identity;
    write_map(pid, "gid_map", &format!("{} {} 1", identity.gid, launch.host_gid))?;
    write_map(pid, "uid_map", &format!("{} {} 1", identity.uid, launch.host_uid))?;
    rustix::io::write(sync, &[1]).step("release the init").map(|_| ())
}

fn write_map(pid: i32, name: &str, value: &str) -> Result<(), Fault> {
    let path = PathBuf::from(format!("/proc/{pid}/{name}"));
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|error| Fault {
            step: format!("write the id map {name}"),
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        })
}

/// What ended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Init,
    Caller,
}

/// Waits for the end of the init; kills it when the caller is gone.
fn watch(control: &OwnedFd, pidfd: &OwnedFd) -> Ended {
    loop {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN), PollFd::new(control, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => break,
        }
        if !fds[0].revents().is_empty() {
            return Ended::Init;
        }
        // The caller says nothing more after the go-ahead: whatever comes is its end.
        if !fds[1].revents().is_empty() {
            break;
        }
    }
    let _gone = pidfd_send_signal(pidfd, Signal::KILL);
    Ended::Caller
}

/// Continues as the init: waits for the maps, then, unless this runs from where nobody can write it, executes this
/// program once more from there.
fn become_init(given: Given, launch: Launch, sync_read: OwnedFd, sync_write: OwnedFd) -> ! {
    // A held write end would hide the helper's death.
    drop(sync_write);
    let Ok(status) = rustix::io::fcntl_dupfd_cloexec(&given.status, FD_HIGH) else { sys::exit(LOST) };
    let fault = match prepare_init(given, sync_read) {
        Ok(()) => {
            // The init closes whatever it doesn't know by number; nobody here may own such a number then.
            std::mem::forget(status);
            init::run(OwnExecutable::ReadOnlyMount, Some(launch))
        }
        Err(fault) => fault,
    };
    let told = wire::send_message(&status, &FromInit::Failed(fault), &[]);
    sys::exit(if told.is_ok() { 0 } else { LOST });
}

/// Comes back when the init may go on in this very process.
fn prepare_init(given: Given, sync: OwnedFd) -> Result<(), Fault> {
    let Given { launch, status, stdio: [stdin, stdout, stderr], doors, cgroup, guarded } = given;
    drop(cgroup);
    let mut moved = Vec::new();
    for door in doors {
        let copy = rustix::io::fcntl_dupfd_cloexec(&door, FD_HIGH).step("arrange descriptors")?;
        std::mem::forget(door);
        moved.push(copy);
    }
    let doors = std::mem::take(&mut moved);
    for fd in [stdin, stdout, stderr, status, launch, sync] {
        moved.push(rustix::io::fcntl_dupfd_cloexec(&fd, FD_HIGH).step("arrange descriptors")?);
        // Its number may be one of ours, owned by a copy of the helper's variables; it is replaced below.
        std::mem::forget(fd);
    }
    for (number, fd) in (0..).zip(moved) {
        sys::place(fd, number).step("arrange descriptors")?;
    }
    let mut byte = [0; 1];
    let sync =
        rustix::io::fcntl_dupfd_cloexec(sys::take_inherited(FD_SYNC).step("arrange descriptors")?, FD_HIGH)
            .step("arrange descriptors")?;
    if rustix::io::retry_on_intr(|| rustix::io::read(&sync, &mut byte)).step("wait for the id maps")? != 1 {
        // The helper is gone, and with it everybody who could be told.
        sys::exit(LOST);
    }
    sys::place(sync, FD_SYNC).step("arrange descriptors")?;
    cgroup::join(&doors).step("join the control groups")?;
    drop(doors);
    if guarded {
        return Ok(());
    }
    keep_capabilities_over_exec()?;
    let (program, how) = match guarded::clone_of(OWN_EXECUTABLE.as_ref()) {
        Ok(program) => (program, c"mount"),
        Err(_) => (sealed_self()?, c"copy"),
    };
    let arguments = [c"pantry", c"__jail", c"init", how];
    let environment: [&std::ffi::CStr; 0] = [];
    let executed =
        nix::unistd::execveat(&program, c"", &arguments, &environment, nix::fcntl::AtFlags::AT_EMPTY_PATH);
    match executed.step("execute the init")? {}
}

/// The id inside is rarely 0, and only 0 keeps its capabilities over an exec by itself.
fn keep_capabilities_over_exec() -> Result<(), Fault> {
    let mut sets = rustix::thread::capabilities(None).step("read capabilities")?;
    sets.inheritable = sets.permitted;
    rustix::thread::set_capabilities(None, sets).step("keep capabilities")?;
    for bit in 0..63 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if sets.permitted.contains(one) {
            rustix::thread::configure_capability_in_ambient_set(one, true).step("keep capabilities")?;
        }
    }
    Ok(())
}

/// A sealed copy in memory of the executable's loaded part; what is appended or embedded behind it stays out.
fn sealed_self() -> Result<OwnedFd, Fault> {
    let step = "copy our own executable";
    let failed = |error: std::io::Error| Fault {
        step: step.to_owned(),
        errno: error.raw_os_error().unwrap_or(libc::EIO),
    };
    let mut file = fs::File::open(OWN_EXECUTABLE).map_err(failed)?;
    let mut head = vec![0; 64 * 1024];
    let read = file.read(&mut head).map_err(failed)?;
    head.truncate(read);
    let size = loaded_size(&head).ok_or_else(|| Fault { step: step.to_owned(), errno: libc::ENOEXEC })?;
    let name = CString::default();
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Since 6.3 being executable is asked for; before, the flag is unknown.
    let memory = rustix::fs::memfd_create(&name, base | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create(&name, base))
        .step(step)?;
    let mut copy = std::fs::File::from(memory);
    copy.write_all(&head[..head.len().min(usize::try_from(size).unwrap_or(usize::MAX))]).map_err(failed)?;
    let rest = size.saturating_sub(head.len() as u64);
    std::io::copy(&mut file.take(rest), &mut copy).map_err(failed)?;
    let memory = OwnedFd::from(copy);
    rustix::fs::fchmod(&memory, rustix::fs::Mode::from_raw_mode(0o555)).step(step)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&memory, seals).step(step)?;
    Ok(memory)
}

/// Where the last segment that the kernel loads ends in the file.
fn loaded_size(head: &[u8]) -> Option<u64> {
    use object::read::elf::{FileHeader as _, ProgramHeader as _};
    let header = object::elf::FileHeader64::<object::Endianness>::parse(head).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, head).ok()?;
    segments
        .iter()
        .filter(|segment| segment.p_type(endian) == object::elf::PT_LOAD)
        .map(|segment| segment.p_offset(endian) + segment.p_filesz(endian))
        .max()
}
