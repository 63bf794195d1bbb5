//! Calls that the filter reports to a supervisor instead of answering them (`SECCOMP_RET_USER_NOTIF`).
//!
//! *Source*: `seccomp(2)`, `seccomp_unotify(2)`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;
use rustix::io::Errno;

use super::filter::{Insn, Prog};
use super::process::last_errno;

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notified {
    /// Names the notification to the kernel.
    pub(crate) id: u64,
    /// The thread that called, as the receiver sees it; 0 where the receiver can't.
    pub(crate) thread: i32,
    pub(crate) number: u32,
    pub(crate) architecture: u32,
    pub(crate) arguments: [u64; 6],
}

/// What a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It fails with this error number.
    Errno(i32),
    /// It happens as if nobody had been asked. Other threads can have changed what its arguments point at.
    Continue,
}

/// Installs `program` for the calling thread and gives the descriptor, close-on-exec, by which its reports are read.
///
/// From Linux 5.19 on a call that is being looked at is left by deadly signals only; before, any signal interrupts it.
pub(crate) fn load_reporting_filter(program: &[Insn]) -> Result<OwnedFd, Errno> {
    let prog = Prog::of(program)?;
    let load = |flags: libc::c_ulong| {
        // SAFETY: `prog` borrows the instructions, in the layout of `struct sock_filter`, and both outlive the call;
        // the kernel copies and verifies them.
        unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                std::ptr::from_ref(&prog).cast::<libc::c_void>(),
            )
        }
    };
    let listening = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let mut answer = load(listening | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
    if answer < 0 && last_errno() == Errno::INVAL {
        answer = load(listening);
    }
    if answer < 0 {
        return Err(last_errno());
    }
    let number = RawFd::try_from(answer).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes the next report. Blocks where there is none: ask `poll` first, and have one receiver.
///
/// # Errors
/// `ENOENT` when the caller of the call is gone, `EINTR`.
pub(crate) fn receive_report(listener: BorrowedFd<'_>) -> Result<Notified, Errno> {
    // SAFETY: plain numbers, for which zero is a value; the kernel wants the memory zeroed.
    let mut report: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request's number says the size of the struct that the kernel writes, and `report` is one.
    let answer = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            std::ptr::from_mut(&mut report).cast::<libc::c_void>(),
        )
    };
    if answer < 0 {
        return Err(last_errno());
    }
    Ok(Notified {
        id: report.id,
        thread: i32::try_from(report.pid).unwrap_or(0),
        number: report.data.nr.cast_unsigned(),
        architecture: report.data.arch,
        arguments: report.data.args,
    })
}

/// Whether the call still waits: what was read of its process until now was read of the right one.
pub(crate) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one 64-bit number, which lives during the call.
    let answer = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, std::ptr::from_ref(&id))
    };
    answer == 0
}

/// Answers a call.
///
/// # Errors
/// `ENOENT` when nobody waits for the answer any more, `EINPROGRESS` when it has one already.
pub(crate) fn answer_report(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> Result<(), Errno> {
    let (error, flags) = match answer {
        Answer::Errno(errno) => (-errno, 0),
        Answer::Continue => (0, u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(1)),
    };
    let mut response = libc::seccomp_notif_resp { id, val: 0, error, flags };
    // SAFETY: the request's number says the size of the struct that the kernel reads, and `response` is one.
    let answer = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            std::ptr::from_mut(&mut response).cast::<libc::c_void>(),
        )
    };
    if answer < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Whether this kernel's reports have the size that is read here.
pub(crate) fn reports_fit() -> Result<bool, Errno> {
    // SAFETY: plain numbers, for which zero is a value.
    let mut sizes: libc::seccomp_notif_sizes = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes three 16-bit numbers, which is what `sizes` is.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_NOTIF_SIZES,
            0_u32,
            std::ptr::from_mut(&mut sizes).cast::<libc::c_void>(),
        )
    };
    if answer < 0 {
        return Err(last_errno());
    }
    Ok(usize::from(sizes.seccomp_notif) == size_of::<libc::seccomp_notif>()
        && usize::from(sizes.seccomp_notif_resp) == size_of::<libc::seccomp_notif_resp>())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    /// Reports `sched_yield`, which no other code of the thread calls.
    fn program() -> [Insn; 4] {
        let insn = |code, jt, jf, k| Insn { code, jt, jf, k };
        [
            insn(0x20, 0, 0, 0),
            insn(0x15, 0, 1, u32::try_from(libc::SYS_sched_yield).unwrap()),
            insn(0x06, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
            insn(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
        ]
    }

    fn call() -> Result<(), Errno> {
        // SAFETY: without arguments and without effect on memory.
        let answer = unsafe { libc::syscall(libc::SYS_sched_yield, 7, 8) };
        if answer == 0 { Ok(()) } else { Err(last_errno()) }
    }

    #[test]
    fn a_call_is_answered_as_said_and_refused_when_nobody_is_there_to_answer() {
        assert!(reports_fit().unwrap());
        let (send, listeners) = std::sync::mpsc::channel();
        let (ended, wait) = std::sync::mpsc::channel::<()>();
        // Filters are a thread's own.
        let caller = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            send.send(load_reporting_filter(&program()).unwrap()).unwrap();
            let answers = [call(), call()];
            // Held by nobody from here on.
            assert!(wait.recv().is_err());
            (answers, call())
        });
        let listener = listeners.recv().unwrap();
        for answer in [Answer::Errno(libc::EXDEV), Answer::Continue] {
            let report = receive_report(listener.as_fd()).unwrap();
            assert_eq!(i64::from(report.number), libc::SYS_sched_yield);
            assert_eq!(report.arguments[..2], [7, 8]);
            assert!(report.thread > 0 && report.thread != std::process::id().cast_signed());
            assert!(
                still_waits(listener.as_fd(), report.id) && !still_waits(listener.as_fd(), report.id + 1)
            );
            answer_report(listener.as_fd(), report.id, answer).unwrap();
            assert!(answer_report(listener.as_fd(), report.id, answer).is_err(), "one answer a call");
        }
        drop(listener);
        drop(ended);
        assert_eq!(caller.join().unwrap(), ([Err(Errno::XDEV), Ok(())], Err(Errno::NOSYS)));
    }
}
