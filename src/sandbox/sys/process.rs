//! Processes, inherited descriptors and signals.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::libc;
use rustix::io::Errno;

/// The error of the C library call that has just failed.
pub(crate) fn last_errno() -> Errno {
    Errno::from_raw_os_error(nix::errno::Errno::last_raw())
}

/// Which side of a [`spawn_in_namespaces`] is running.
pub(crate) enum Cloned {
    /// The new process: pid 1 of its pid namespace.
    Child,
    /// The caller, with the child's pid as it sees it and a descriptor of it.
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Makes a copy of the calling process that is its sibling: the child of its parent, who waits for it.
///
/// The caller must be single-threaded.
pub(crate) fn spawn_sibling() -> Result<Cloned, Errno> {
    spawn_in_namespaces(u64::from(libc::CLONE_PARENT.cast_unsigned()), None)
}

/// Makes a copy of the calling process in new namespaces (`flags`), in the given cgroup if any.
///
/// The caller must be single-threaded: the copy has this thread only, and other threads' locks would stay held.
pub(crate) fn spawn_in_namespaces(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    const CLONE_PIDFD: u64 = 0x1000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    #[repr(C)]
    struct Args {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    // A sibling has the caller's own signal, and the kernel takes no other.
    let sibling = flags & u64::from(libc::CLONE_PARENT.cast_unsigned()) != 0;
    let mut pidfd: RawFd = -1;
    let mut args = Args {
        flags: flags | CLONE_PIDFD,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: if sibling { 0 } else { libc::SIGCHLD.cast_unsigned().into() },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: no CLONE_VM and no new stack, so this is a fork: the child continues on its own copy of this stack.
    // `args` has the layout of `struct clone_args` and `pidfd` is alive while the kernel writes it.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), size_of::<Args>()) };
    match pid {
        0 => Ok(Cloned::Child),
        1.. => Ok(Cloned::Parent {
            pid: i32::try_from(pid).map_err(|_| Errno::RANGE)?,
            // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
        _ => Err(last_errno()),
    }
}

/// Forks; `None` in the child. The caller must be single-threaded.
pub(crate) fn fork_single_threaded() -> Result<Option<rustix::process::Pid>, Errno> {
    // SAFETY: the only callers are the helper's init, which never starts a thread, so no lock of another thread can
    // be held in the child.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(last_errno()) } else { Ok(rustix::process::Pid::from_raw(pid)) }
}

/// Takes over a descriptor that this process inherited by number, made close-on-exec.
pub(crate) fn take_inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: fcntl on any number is sound; it fails when the number isn't open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(last_errno());
    }
    // SAFETY: the number is open (above), was given to this process for this purpose, and each caller takes a
    // number once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Puts a descriptor at `number`, kept over exec, closing what was there.
///
/// Only for the moment before an exec or in a process that owns nothing at `number`.
pub(crate) fn place(fd: OwnedFd, number: RawFd) -> Result<(), Errno> {
    if fd.as_raw_fd() == number {
        // SAFETY: fcntl on an open descriptor that we own.
        if unsafe { libc::fcntl(number, libc::F_SETFD, 0) } < 0 {
            return Err(last_errno());
        }
        let _kept = fd.into_raw_fd();
        return Ok(());
    }
    // SAFETY: dup2 onto a number; the caller promises that nothing in this process relies on it any more.
    if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: RawFd) -> Result<(), Errno> {
    // SAFETY: only called in the helper, at moments when no owner of a descriptor from `first` on is alive.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first.cast_unsigned(), u32::MAX, 0_u32) };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Sets every signal to its default action and blocks none.
pub(crate) fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL installs no handler; the kernel refuses SIGKILL, SIGSTOP and the C library's own two,
        // which are at their default anyway.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let none = nix::sys::signal::SigSet::empty();
    let _always_valid = none.thread_set_mask();
}

/// Joins a new, anonymous session keyring, so that the caller's keys aren't reachable.
pub(crate) fn join_new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing is read through it.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0_usize) };
    if answer < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Moves the calling (single-threaded) process into a cgroup namespace rooted where it is now.
pub(crate) fn new_cgroup_namespace() -> Result<(), Errno> {
    // SAFETY: a new cgroup namespace changes no memory and no descriptor of ours.
    if unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Whether two processes have one address space, as after `vfork`; no, if that can't be found out.
pub(crate) fn same_memory(one: u32, other: u32) -> bool {
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: the call compares two objects of the kernel by pid and takes no pointer.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0_usize, 0_usize) == 0 }
}

/// Ends the process at once, running no destructor and no exit handler.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: `_exit` is always sound.
    unsafe { libc::_exit(code) }
}
