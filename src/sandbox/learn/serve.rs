//! The thread that answers the reports of a learning run.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use nix::libc;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::CapabilitySet;

use super::look::{Rights, View, Wanted, tidy};
use super::reach::{self, Reach, Way};
use super::{Book, Learned, detail};
use crate::sandbox::error::{Doing as _, SandboxError};
use crate::sandbox::filter::{self, Call, Choice, Place, Verdict};
use crate::sandbox::host::OutsideIds;
use crate::sandbox::policy::Policy;
use crate::sandbox::sys::{self, Answer, Insn, Notified};

/// The longest path that the kernel takes, with its end.
const PATH_MAX: usize = 4096;
const PAGE: usize = 4096;

/// What the thread needs to know of the run.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The filter that an ordinary run would have.
    ordinary: std::borrow::Cow<'static, [Insn]>,
    rights: Rights,
    reach: Reach,
}

impl Facts {
    pub(crate) fn of(policy: &Policy, watched_memory: bool, ids: OutsideIds) -> Self {
        let granted = policy.granted();
        let groups = if ids.as_root { Vec::new() } else { rustix::process::getgroups().unwrap_or_default() };
        Self {
            ordinary: filter::compile(Choice::of(policy, watched_memory), granted),
            rights: Rights {
                uid: ids.uid,
                gid: ids.gid,
                groups: groups.into_iter().map(rustix::process::Gid::as_raw).collect(),
                overrides: granted.contains(CapabilitySet::DAC_OVERRIDE),
                landlock: false,
            },
            reach: Reach::of(policy),
        }
    }
}

/// The thread of one run; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Learning {
    /// Its closing is the order to end.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<Learned>>,
}

impl Learning {
    /// Begins to answer what comes over `listener`; the program is held by Landlock if there is an ABI of it.
    pub(crate) fn start(
        listener: OwnedFd,
        mut facts: Facts,
        landlock_abi: Option<u32>,
    ) -> Result<Self, SandboxError> {
        let doing = "begin to learn";
        facts.rights.landlock = landlock_abi.is_some();
        facts.reach.landlock_abi = landlock_abi;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC).doing(doing)?;
        let thread = std::thread::Builder::new()
            .name("learning".to_owned())
            .spawn(move || Serving { listener, facts, book: Book::default() }.attend(&stopped))
            .doing(doing)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Ends the thread and gives what it learned.
    pub(crate) fn finish(mut self) -> Learned {
        self.end()
    }

    fn end(&mut self) -> Learned {
        drop(self.stop.take());
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Learning {
    fn drop(&mut self) {
        let _unwanted = self.end();
    }
}

struct Serving {
    /// Closed at the end: the kernel answers `ENOSYS` then.
    listener: OwnedFd,
    facts: Facts,
    book: Book,
}

impl Serving {
    fn attend(mut self, stopped: &OwnedFd) -> Learned {
        loop {
            let mut fds =
                [PollFd::new(&self.listener, PollFlags::IN), PollFd::new(stopped, PollFlags::empty())];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
            let [reports, stop] = fds.map(|fd| fd.revents());
            if !stop.is_empty() {
                break;
            }
            if reports.contains(PollFlags::IN) {
                // Only where one is waiting: without, this call would not come back.
                match sys::receive_report(self.listener.as_fd()) {
                    Ok(report) => self.serve(&report),
                    // Its process is gone.
                    Err(Errno::NOENT | Errno::INTR) => {}
                    Err(_) => break,
                }
            } else if !reports.is_empty() {
                // Nobody has the filter any more.
                break;
            }
        }
        self.book.learned
    }

    fn serve(&mut self, report: &Notified) {
        let call =
            Call { number: report.number, architecture: report.architecture, arguments: report.arguments };
        let answer = match filter::judge(&self.facts.ordinary, &call) {
            Verdict::Allowed => {
                self.look(report);
                Answer::Continue
            }
            Verdict::Refused(errno) => {
                self.book.note_call(call.number, errno, detail::of_call(call.number, &call.arguments));
                Answer::Errno(errno)
            }
            // The filter itself kills and reports no such call.
            Verdict::Killed => Answer::Errno(libc::EPERM),
        };
        // Who waited may be gone.
        let _gone = sys::answer_report(self.listener.as_fd(), report.id, answer);
    }

    fn look(&mut self, report: &Notified) {
        for place in filter::places(report.number).iter().copied() {
            let Some(wanted) = Wanted::of(place.what, &report.arguments) else { continue };
            match self.look_at(report, place, wanted) {
                Ok(()) => {}
                Err(_) => self.book.learned.unread += 1,
            }
        }
        if let Some(way) = Way::of(report.number) {
            self.look_at_address(report, way);
        }
    }

    fn look_at_address(&mut self, report: &Notified, way: Way) {
        let [_, address, length, ..] = report.arguments;
        let length = usize::try_from(length & u64::from(u32::MAX)).unwrap_or(0).min(reach::ADDRESS_BYTES);
        let read = read_memory(report.thread, address, length);
        if !sys::still_waits(self.listener.as_fd(), report.id) {
            return;
        }
        match read.map(|bytes| reach::parse(&bytes)) {
            Ok(Some(address)) => {
                if let Some(why) = self.facts.reach.judge(way, address) {
                    self.book.note_address(report.number, address, why);
                }
            }
            Ok(None) => {}
            Err(_) => self.book.learned.unread += 1,
        }
    }

    fn look_at(&mut self, report: &Notified, place: Place, wanted: Wanted) -> Result<(), Errno> {
        let address = report.arguments.get(usize::from(place.path)).copied().unwrap_or(0);
        if address == 0 {
            // The file is meant that the descriptor stands for.
            return Ok(());
        }
        let Some(said) = read_path(report.thread, address)? else { return Ok(()) };
        if said.is_empty() {
            return Ok(());
        }
        let path = absolute(report, place, said)?;
        let root = format!("/proc/{}/root", report.thread);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        // While it still waits the number has been this thread's, and nobody else's memory and root were read.
        if !sys::still_waits(self.listener.as_fd(), report.id) {
            return Ok(());
        }
        let view = View { root: &root, rights: &self.facts.rights };
        if let Some(why) = view.judge(&path, wanted)? {
            self.book.note_path(report.number, &tidy(&path), why);
        }
        Ok(())
    }
}

/// Reads the path at `address`; none where no path of the kernel's ends there.
fn read_path(thread: i32, address: u64) -> Result<Option<Vec<u8>>, Errno> {
    let mut path = read_memory(thread, address, PATH_MAX)?;
    let Some(end) = path.iter().position(|byte| *byte == 0) else { return Ok(None) };
    path.truncate(end);
    Ok(Some(path))
}

/// Reads at most a page of a thread's memory, as much of it as is there.
fn read_memory(thread: i32, address: u64, length: usize) -> Result<Vec<u8>, Errno> {
    let address = usize::try_from(address).map_err(|_| Errno::FAULT)?;
    let mut bytes = vec![0; length.min(PAGE)];
    let first = (PAGE - address % PAGE).min(bytes.len());
    // By pages, because one that isn't there makes a whole part unreadable.
    let mut parts = vec![RemoteIoVec { base: address, len: first }];
    if let Some(next) = address.checked_add(first).filter(|_| first < bytes.len()) {
        parts.push(RemoteIoVec { base: next, len: bytes.len() - first });
    }
    let read = process_vm_readv(Pid::from_raw(thread), &mut [IoSliceMut::new(&mut bytes)], &parts)
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The path as seen from the run's root.
fn absolute(report: &Notified, place: Place, said: Vec<u8>) -> Result<Vec<u8>, Errno> {
    let thread = report.thread;
    let mut path = if said.starts_with(b"/") {
        said
    } else {
        let number = place.base.and_then(|base| report.arguments.get(usize::from(base)).copied());
        let number =
            number.map(|number| u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0).cast_signed());
        let link = match number {
            None | Some(libc::AT_FDCWD) => format!("/proc/{thread}/cwd"),
            Some(number) => format!("/proc/{thread}/fd/{number}"),
        };
        let mut base = rustix::fs::readlink(link, Vec::new())?.into_bytes();
        base.push(b'/');
        base.extend_from_slice(&said);
        base
    };
    // Links of the process itself lead elsewhere, or nowhere, for who follows them from outside.
    for own in [b"/proc/self/".as_slice(), b"/proc/thread-self/"] {
        if let Some(rest) = path.strip_prefix(own) {
            let mut named = format!("/proc/{}/", pid_inside(thread)?).into_bytes();
            named.extend_from_slice(rest);
            path = named;
            break;
        }
    }
    Ok(path)
}

/// The process's number in the run's own namespace.
fn pid_inside(thread: i32) -> Result<u32, Errno> {
    let status = fs_err::read_to_string(format!("/proc/{thread}/status")).map_err(|_| Errno::SRCH)?;
    let line = status.lines().find_map(|line| line.strip_prefix("NStgid:")).ok_or(Errno::SRCH)?;
    line.split_ascii_whitespace().last().and_then(|pid| pid.parse().ok()).ok_or(Errno::SRCH)
}
