//! The lists: which calls there are, which are denied by name, which depend on their arguments.
//!
//! Source: what the common container profiles allow (moby's default profile), made narrower as
//! the security notes say: no kernel surface that an ordinary program doesn't need.

use std::collections::BTreeMap;

use nix::libc;

use super::Choice;
use super::program::{Action, Check, Rule, Rules};
use crate::sandbox::policy::SeccompProfile;

const EPERM: Action = Action::Errno(1);
const ENOMEM: Action = Action::Errno(12);
const ENOSYS: Action = Action::Errno(38);

macro_rules! numbers {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// Allowed whatever the arguments.
const ALLOWED: &[libc::c_long] = numbers! {
    SYS_read SYS_write SYS_close SYS_fstat SYS_lseek SYS_mmap SYS_mprotect SYS_munmap SYS_brk SYS_rt_sigaction
    SYS_rt_sigprocmask SYS_rt_sigreturn SYS_pread64 SYS_pwrite64 SYS_readv SYS_writev SYS_sched_yield SYS_mremap
    SYS_msync SYS_mincore SYS_madvise SYS_shmget SYS_shmat SYS_shmctl SYS_shmdt SYS_dup SYS_dup3 SYS_nanosleep
    SYS_getitimer SYS_setitimer SYS_getpid SYS_sendfile SYS_connect SYS_accept SYS_accept4 SYS_sendto SYS_recvfrom
    SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg SYS_shutdown SYS_bind SYS_listen SYS_getsockname
    SYS_getpeername SYS_setsockopt SYS_getsockopt SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_wait4
    SYS_waitid SYS_kill SYS_tkill SYS_tgkill SYS_uname SYS_semget SYS_semop SYS_semtimedop SYS_semctl SYS_msgget
    SYS_msgsnd SYS_msgrcv SYS_msgctl SYS_fcntl SYS_flock SYS_fsync SYS_fdatasync SYS_sync_file_range SYS_truncate
    SYS_ftruncate SYS_getcwd SYS_chdir SYS_fchdir SYS_mkdirat SYS_unlinkat SYS_renameat2 SYS_linkat SYS_symlinkat
    SYS_readlinkat SYS_faccessat SYS_faccessat2 SYS_newfstatat SYS_statx SYS_getdents64 SYS_umask SYS_gettimeofday
    SYS_getrlimit SYS_setrlimit SYS_getrusage SYS_sysinfo SYS_times SYS_getuid SYS_geteuid SYS_getgid
    SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups SYS_setfsuid SYS_setfsgid SYS_setpgid SYS_getpgid
    SYS_getppid SYS_setsid SYS_getsid SYS_capget SYS_capset SYS_rt_sigpending SYS_rt_sigtimedwait SYS_rt_sigqueueinfo
    SYS_rt_tgsigqueueinfo SYS_rt_sigsuspend SYS_sigaltstack SYS_statfs SYS_fstatfs SYS_getpriority
    SYS_sched_getparam SYS_sched_getscheduler SYS_sched_get_priority_max SYS_sched_get_priority_min
    SYS_sched_rr_get_interval SYS_sched_getaffinity SYS_sched_getattr SYS_mlock SYS_munlock SYS_mlockall SYS_munlockall SYS_mlock2 SYS_prctl
    SYS_sync SYS_syncfs SYS_gettid SYS_readahead SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_getxattr
    SYS_lgetxattr SYS_fgetxattr SYS_listxattr SYS_llistxattr SYS_flistxattr SYS_removexattr SYS_lremovexattr
    SYS_fremovexattr SYS_futex SYS_set_robust_list SYS_get_robust_list SYS_set_tid_address SYS_restart_syscall
    SYS_fadvise64 SYS_timer_create SYS_timer_settime SYS_timer_gettime SYS_timer_getoverrun SYS_timer_delete
    SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait
    SYS_epoll_pwait2 SYS_utimensat SYS_mq_open SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive SYS_mq_notify
    SYS_mq_getsetattr SYS_ioprio_get SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch
    SYS_pselect6 SYS_ppoll SYS_splice SYS_tee SYS_vmsplice SYS_signalfd4 SYS_timerfd_create SYS_timerfd_settime
    SYS_timerfd_gettime SYS_eventfd2 SYS_fallocate SYS_pipe2 SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2
    SYS_getcpu SYS_getrandom SYS_membarrier SYS_copy_file_range SYS_pkey_mprotect SYS_pkey_alloc SYS_pkey_free
    SYS_rseq SYS_pidfd_send_signal SYS_pidfd_open SYS_close_range SYS_process_mrelease SYS_futex_waitv
    SYS_landlock_create_ruleset SYS_landlock_add_rule SYS_landlock_restrict_self SYS_seccomp SYS_io_setup
    SYS_io_destroy SYS_io_getevents SYS_io_submit SYS_io_cancel SYS_memfd_create
};

/// The older forms that only this architecture has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[libc::c_long] = numbers! {
    SYS_stat SYS_lstat SYS_poll SYS_access SYS_pipe SYS_select SYS_dup2 SYS_pause SYS_alarm SYS_fork SYS_vfork
    SYS_getdents SYS_rename SYS_mkdir SYS_rmdir SYS_link SYS_unlink SYS_symlink SYS_readlink SYS_getpgrp SYS_utime
    SYS_arch_prctl SYS_time SYS_epoll_create SYS_epoll_ctl_old SYS_epoll_wait SYS_inotify_init SYS_utimes
    SYS_futimesat SYS_signalfd SYS_eventfd SYS_renameat
};
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[libc::c_long] = numbers! { SYS_renameat };

/// Denied by name, so that people see "not permitted" rather than "not there".
const DENIED: &[libc::c_long] = numbers! {
    SYS_unshare SYS_setns SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_fsopen SYS_fsconfig SYS_fsmount
    SYS_fspick SYS_move_mount SYS_open_tree SYS_mount_setattr SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev
    SYS_process_madvise SYS_pidfd_getfd SYS_kcmp SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
    SYS_keyctl SYS_add_key SYS_request_key SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_fanotify_init
    SYS_fanotify_mark SYS_kexec_load SYS_kexec_file_load SYS_syslog SYS_open_by_handle_at SYS_name_to_handle_at
    SYS_init_module SYS_finit_module SYS_delete_module SYS_reboot SYS_swapon SYS_swapoff SYS_acct SYS_quotactl
    SYS_quotactl_fd SYS_sethostname SYS_setdomainname SYS_settimeofday SYS_clock_settime SYS_adjtimex
    SYS_clock_adjtime SYS_vhangup SYS_mbind SYS_set_mempolicy SYS_get_mempolicy SYS_migrate_pages SYS_move_pages
    SYS_lookup_dcookie SYS_nfsservctl SYS_memfd_secret
};
#[cfg(target_arch = "x86_64")]
const DENIED_OLD: &[libc::c_long] =
    numbers! { SYS_iopl SYS_ioperm SYS_modify_ldt SYS_uselib SYS_ustat SYS_sysfs SYS__sysctl };
#[cfg(not(target_arch = "x86_64"))]
const DENIED_OLD: &[libc::c_long] = &[];

/// Memory that stays when no process has it mapped any more. Not there where memory is watched by sampling processes.
const UNCOUNTED: &[libc::c_long] =
    numbers! { SYS_memfd_create SYS_shmget SYS_msgget SYS_semget SYS_vmsplice };

/// Calls that change who owns a file or who a process is, for which one id leaves no room.
const OWNERSHIP: &[libc::c_long] = numbers! {
    SYS_fchown SYS_fchownat SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid
    SYS_setgroups
};
#[cfg(target_arch = "x86_64")]
const OWNERSHIP_OLD: &[libc::c_long] = numbers! { SYS_chown SYS_lchown };
#[cfg(not(target_arch = "x86_64"))]
const OWNERSHIP_OLD: &[libc::c_long] = &[];

/// The part of a socket's second argument that is its kind; above it are flags.
const SOCK_TYPE_MASK: u32 = 0xf;

fn check(argument: u8, mask: u32, equals: u32) -> Check {
    Check { argument, mask, equals }
}

fn exactly(argument: u8, value: i32) -> Check {
    check(argument, u32::MAX, value.cast_unsigned())
}

fn bits(argument: u8, bits: u32) -> Check {
    check(argument, bits, bits)
}

fn deny_when(clauses: Vec<Vec<Check>>) -> Rule {
    Rule { clauses: clauses.into_iter().map(|checks| (checks, EPERM)).collect(), otherwise: Action::Allow }
}

fn allow_when(clauses: Vec<Vec<Check>>) -> Rule {
    Rule { clauses: clauses.into_iter().map(|checks| (checks, Action::Allow)).collect(), otherwise: EPERM }
}

/// No setuid and no setgid bit in the mode at `argument`.
fn plain_mode(argument: u8) -> Rule {
    deny_when(vec![vec![bits(argument, 0o4000)], vec![bits(argument, 0o2000)]])
}

/// The same for opens, where the mode counts only if a file is made.
fn plain_open(flags: u8, mode: u8) -> Rule {
    // The bit of O_TMPFILE that O_DIRECTORY doesn't share.
    let tmpfile = (libc::O_TMPFILE & !libc::O_DIRECTORY).cast_unsigned();
    let creat = libc::O_CREAT.cast_unsigned();
    let mut clauses = Vec::new();
    for making in [creat, tmpfile] {
        for special in [0o4000, 0o2000] {
            clauses.push(vec![bits(flags, making), bits(mode, special)]);
        }
    }
    deny_when(clauses)
}

/// UNIX, the internet families with the kinds and protocols that every program uses, and routing netlink, by which C
/// libraries list addresses. Others (SMC, SCTP …) load kernel code that none needs.
///
/// The kind counts too: protocol 0 means the kind's own, which is DCCP or SCTP for some, and a packet socket for the
/// obsolete kind 10, whatever the family says.
fn sockets() -> Rule {
    let mut clauses = vec![vec![exactly(0, libc::AF_UNIX)]];
    for (family, ping) in [(libc::AF_INET, libc::IPPROTO_ICMP), (libc::AF_INET6, libc::IPPROTO_ICMPV6)] {
        for (kind, protocol) in [
            (libc::SOCK_STREAM, 0),
            (libc::SOCK_STREAM, libc::IPPROTO_TCP),
            (libc::SOCK_DGRAM, 0),
            (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
            (libc::SOCK_DGRAM, ping),
        ] {
            let kind = check(1, SOCK_TYPE_MASK, kind.cast_unsigned());
            clauses.push(vec![exactly(0, family), kind, exactly(2, protocol)]);
        }
    }
    clauses.push(vec![exactly(0, libc::AF_NETLINK), exactly(2, libc::NETLINK_ROUTE)]);
    allow_when(clauses)
}

/// As ping has it; the kernel asks for the capability again.
pub(super) fn allow_raw_sockets(rules: &mut Rules) {
    let socket = u32::try_from(libc::SYS_socket).expect("invariant: call numbers are small and positive");
    if let Some(sockets) = rules.by_number.get_mut(&socket) {
        for family in [libc::AF_INET, libc::AF_INET6] {
            let raw = check(1, SOCK_TYPE_MASK, libc::SOCK_RAW.cast_unsigned());
            sockets.clauses.push((vec![exactly(0, family), raw], Action::Allow));
        }
    }
}

fn terminal_controls() -> Rule {
    // Keystrokes pushed into a terminal (TIOCSTI, TIOCLINUX) and line disciplines (TIOCSETD).
    deny_when([0x5412, 0x541C, 0x5423].map(|request| vec![exactly(1, request)]).to_vec())
}

fn clone_without_namespaces() -> Rule {
    let namespaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    deny_when(namespaces.map(|flag| vec![bits(0, flag.cast_unsigned())]).to_vec())
}

fn common_personalities() -> Rule {
    allow_when([0, 0x8, 0x2_0000, 0x2_0008, -1].map(|value| vec![exactly(0, value)]).to_vec())
}

/// Calls whose answer depends on their arguments.
fn by_arguments() -> Vec<(libc::c_long, Rule)> {
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
    let mut rules = vec![
        (libc::SYS_socket, sockets()),
        (libc::SYS_socketpair, sockets()),
        (libc::SYS_ioctl, terminal_controls()),
        (libc::SYS_clone, clone_without_namespaces()),
        (libc::SYS_personality, common_personalities()),
        (libc::SYS_fchmod, plain_mode(1)),
        (libc::SYS_fchmodat, plain_mode(2)),
        (SYS_FCHMODAT2, plain_mode(2)),
        (libc::SYS_mknodat, plain_mode(2)),
        (libc::SYS_openat, plain_open(2, 3)),
        (libc::SYS_prlimit64, spare_the_init(0)),
        (libc::SYS_sched_setparam, spare_the_init(0)),
        (libc::SYS_sched_setscheduler, spare_the_init(0)),
        (libc::SYS_sched_setaffinity, spare_the_init(0)),
        (libc::SYS_sched_setattr, spare_the_init(0)),
        (libc::SYS_setpriority, spare_the_init_and_its_user(PRIO_USER)),
        (libc::SYS_ioprio_set, spare_the_init_and_its_user(IOPRIO_WHO_USER)),
    ];
    #[cfg(target_arch = "x86_64")]
    rules.extend([
        (libc::SYS_chmod, plain_mode(1)),
        (libc::SYS_mknod, plain_mode(1)),
        (libc::SYS_creat, plain_mode(1)),
        (libc::SYS_open, plain_open(1, 2)),
    ]);
    rules
}

/// Makes the table for one choice.
///
/// What is in no list is unknown and answers `ENOSYS`. Two calls are left out on purpose, because what counts is behind
/// a pointer: `clone3`, for which C libraries fall back to `clone`, and `openat2`, which only programs of ours have.
pub(crate) fn rules(choice: Choice) -> Rules {
    let mut by_number = BTreeMap::new();
    let mut put = |number: libc::c_long, rule: Rule| {
        let number = u32::try_from(number).expect("invariant: call numbers are small and positive");
        by_number.insert(number, rule);
    };
    for number in ALLOWED.iter().chain(ALLOWED_OLD) {
        put(*number, Rule::always(Action::Allow));
    }
    for number in DENIED.iter().chain(DENIED_OLD) {
        put(*number, Rule::always(EPERM));
    }
    let ownership = if choice.emulate_ownership { Action::Errno(0) } else { Action::Allow };
    for number in OWNERSHIP.iter().chain(OWNERSHIP_OLD) {
        put(*number, Rule::always(ownership));
    }
    for (number, rule) in by_arguments() {
        put(number, rule);
    }
    if choice.profile == SeccompProfile::Helper {
        put(libc::SYS_openat2, Rule::always(Action::Allow));
    }
    if choice.watched_memory {
        for (number, rule) in only_counted_memory() {
            put(number, rule);
        }
        by_number.retain(|number, _| !UNCOUNTED.contains(&(*number).into()));
    }
    Rules { by_number, unknown: ENOSYS }
}

const INIT: i32 = 1;
const PRIO_USER: i32 = 2;
const IOPRIO_WHO_USER: i32 = 3;

/// The init has the program's id, and these calls ask for no more than that: they could take its descriptors, its
/// processor time or its turn.
fn spare_the_init(pid: u8) -> Rule {
    deny_when(vec![vec![exactly(pid, INIT)]])
}

/// The same for calls that name a process by the second argument, or all of a user, whose the init is.
fn spare_the_init_and_its_user(user: i32) -> Rule {
    deny_when(vec![vec![exactly(1, INIT)], vec![exactly(0, user)]])
}

/// Narrows the calls that also give such memory, or memory that is kept for whole pages by a part.
fn only_counted_memory() -> Vec<(libc::c_long, Rule)> {
    let deny_with = |checks: Vec<Check>, action: Action| Rule {
        clauses: vec![(checks, action)],
        otherwise: Action::Allow,
    };
    let shared = (libc::MAP_SHARED | libc::MAP_ANONYMOUS).cast_unsigned();
    let pipe_size = vec![exactly(1, libc::F_SETPIPE_SZ)];
    let huge_pages = vec![exactly(0, libc::PR_SET_THP_DISABLE)];
    // A wish that the kernel need not fulfil: programs go on with the size there is.
    let send_buffer = vec![exactly(1, libc::SOL_SOCKET), exactly(2, libc::SO_SNDBUF)];
    vec![
        (libc::SYS_mmap, deny_with(vec![bits(3, shared)], ENOMEM)),
        (libc::SYS_fcntl, deny_with(pipe_size, EPERM)),
        (libc::SYS_prctl, deny_with(huge_pages, EPERM)),
        (libc::SYS_setsockopt, deny_with(send_buffer, Action::Errno(0))),
    ]
}

/// Newer than the C library's headers on some hosts.
const SYS_FCHMODAT2: libc::c_long = 452;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_in_two_lists() {
        let by_arguments: Vec<_> = by_arguments().into_iter().map(|(number, _)| number).collect();
        let mut seen = std::collections::BTreeSet::new();
        for list in
            [ALLOWED, ALLOWED_OLD, DENIED, DENIED_OLD, OWNERSHIP, OWNERSHIP_OLD, by_arguments.as_slice()]
        {
            for number in list {
                assert!(seen.insert(number), "call {number} is listed twice");
            }
        }
    }
}
