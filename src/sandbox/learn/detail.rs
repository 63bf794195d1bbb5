//! What of a refused call's arguments is worth telling.

use nix::libc;

/// The name of an error number that the filter answers.
pub(super) fn error_name(errno: i32) -> String {
    match errno {
        libc::EPERM => "EPERM".to_owned(),
        libc::ENOSYS => "ENOSYS".to_owned(),
        libc::ENOMEM => "ENOMEM".to_owned(),
        other => format!("error {other}"),
    }
}

/// The arguments that made the filter refuse a call, in words; none where all of its kind are refused alike.
///
/// Of registers alone, in the 32 bits that the kernel looks at: nothing here is read from the program's memory.
pub(super) fn of_call(number: u32, arguments: &[u64; 6]) -> Option<String> {
    let low = arguments.map(|argument| u32::try_from(argument & u64::from(u32::MAX)).unwrap_or(0));
    let signed = low.map(u32::cast_signed);
    let mode = |at: usize| Some(format!("mode {:o}", low[at] & 0o7777));
    match libc::c_long::from(number) {
        libc::SYS_socket | libc::SYS_socketpair => {
            Some(format!("{}, {}, protocol {}", family(signed[0]), kind(signed[1]), signed[2]))
        }
        libc::SYS_ioctl => Some(request(low[1])),
        libc::SYS_clone => Some(namespaces(signed[0])),
        libc::SYS_unshare => Some(namespaces(signed[0])),
        libc::SYS_personality => Some(format!("{:#x}", low[0])),
        libc::SYS_openat => mode(3),
        libc::SYS_fchmodat | libc::SYS_mknodat => mode(2),
        libc::SYS_fchmod => mode(1),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => mode(2),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_chmod | libc::SYS_creat | libc::SYS_mknod => mode(1),
        libc::SYS_prlimit64
        | libc::SYS_sched_setparam
        | libc::SYS_sched_setscheduler
        | libc::SYS_sched_setaffinity
        | libc::SYS_sched_setattr => Some("of the init".to_owned()),
        libc::SYS_setpriority | libc::SYS_ioprio_set => Some("of the init or of all of its user".to_owned()),
        _ => None,
    }
}

fn family(number: i32) -> String {
    let name = match number {
        libc::AF_UNIX => "AF_UNIX",
        libc::AF_INET => "AF_INET",
        libc::AF_INET6 => "AF_INET6",
        libc::AF_NETLINK => "AF_NETLINK",
        libc::AF_PACKET => "AF_PACKET",
        libc::AF_ALG => "AF_ALG",
        libc::AF_VSOCK => "AF_VSOCK",
        libc::AF_BLUETOOTH => "AF_BLUETOOTH",
        libc::AF_CAN => "AF_CAN",
        libc::AF_TIPC => "AF_TIPC",
        libc::AF_XDP => "AF_XDP",
        other => return format!("family {other}"),
    };
    name.to_owned()
}

fn kind(number: i32) -> String {
    // Above it are flags.
    let name = match number & 0xf {
        libc::SOCK_STREAM => "SOCK_STREAM",
        libc::SOCK_DGRAM => "SOCK_DGRAM",
        libc::SOCK_RAW => "SOCK_RAW",
        libc::SOCK_SEQPACKET => "SOCK_SEQPACKET",
        other => return format!("kind {other}"),
    };
    name.to_owned()
}

fn request(number: u32) -> String {
    match number {
        0x5412 => "TIOCSTI".to_owned(),
        0x541C => "TIOCLINUX".to_owned(),
        0x5423 => "TIOCSETD".to_owned(),
        other => format!("request {other:#x}"),
    }
}

fn namespaces(flags: i32) -> String {
    let named = [
        (libc::CLONE_NEWNS, "CLONE_NEWNS"),
        (libc::CLONE_NEWCGROUP, "CLONE_NEWCGROUP"),
        (libc::CLONE_NEWUTS, "CLONE_NEWUTS"),
        (libc::CLONE_NEWIPC, "CLONE_NEWIPC"),
        (libc::CLONE_NEWUSER, "CLONE_NEWUSER"),
        (libc::CLONE_NEWPID, "CLONE_NEWPID"),
        (libc::CLONE_NEWNET, "CLONE_NEWNET"),
    ];
    let set: Vec<&str> = named.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { format!("flags {flags:#x}") } else { set.join(" ") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_told_by_their_names_and_by_what_the_kernel_looks_at() {
        let told = |number: libc::c_long, arguments: [u64; 3]| {
            let [first, second, third] = arguments;
            of_call(u32::try_from(number).unwrap(), &[first, second, third, 0, 0, 0])
        };
        assert_eq!(
            told(libc::SYS_socket, [0x1_0000_0028, 0x8_0001, 0]).unwrap(),
            "AF_VSOCK, SOCK_STREAM, protocol 0"
        );
        assert_eq!(told(libc::SYS_ioctl, [0, 0xdead_0000_5412, 0]).unwrap(), "TIOCSTI");
        assert_eq!(told(libc::SYS_clone, [0x1000_0011, 0, 0]).unwrap(), "CLONE_NEWUSER");
        assert_eq!(told(libc::SYS_fchmod, [3, 0o104_755, 0]).unwrap(), "mode 4755");
        assert_eq!(told(libc::SYS_ptrace, [1, 2, 3]), None);
    }
}
