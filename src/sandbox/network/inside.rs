//! What the init does for the network: loopback up, and a listener for each server.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, listen as start_listening, recv,
    send, socket_with,
};

use super::super::error::{Fault, Step};
use super::Server;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Loopback is the first device of every network namespace.
const LOOPBACK: u32 = 1;
/// Most bytes that a TCP connection may hold for either side: `minimum default maximum`. What the watchdog counts for a
/// socket is less than what the kernel would let a fast connection grow to.
const TCP_BYTES: &str = "4096 65536 131072";

/// Makes the listeners. The calling process must be in the network namespace, with all rights over it, and see the
/// outer `/proc`.
pub(crate) fn listen(servers: &[Server], bounded: bool) -> Result<Vec<OwnedFd>, Fault> {
    if bounded {
        for name in ["tcp_rmem", "tcp_wmem"] {
            // Where /proc/sys is read-only, bursts over loopback are less exactly counted.
            let _read_only = fs_err::write(format!("/proc/sys/net/ipv4/{name}"), TCP_BYTES);
        }
    }
    loopback_up().step("start the loopback device")?;
    servers.iter().map(|server| listener(server.port).step("listen on loopback")).collect()
}

fn listener(port: u16) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    start_listening(&socket, BACKLOG)?;
    Ok(socket)
}

/// Starts the loopback device of the calling process's network namespace.
///
/// *Source*: rtnetlink(7); a request to set `IFF_UP`, and its acknowledgement.
pub(crate) fn loopback_up() -> Result<(), Errno> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 1 | 4;
    const NLMSG_ERROR: u16 = 2;
    const IFF_UP: u32 = 1;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let mut request = Vec::with_capacity(32);
    // struct nlmsghdr: length, type, flags, sequence, port.
    request.extend(32_u32.to_ne_bytes());
    request.extend(RTM_NEWLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    request.extend([0; 8]);
    // struct ifinfomsg: family, padding, type, index, flags, mask of the flags.
    request.extend([0; 4]);
    request.extend(LOOPBACK.to_ne_bytes());
    request.extend(IFF_UP.to_ne_bytes());
    request.extend(IFF_UP.to_ne_bytes());
    send(&socket, &request, SendFlags::empty())?;
    let mut answer = [0; 256];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    let field = |at: usize| answer[..length].get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    let kind = field(4).map(|[a, b, ..]: [u8; 4]| u16::from_ne_bytes([a, b]));
    match (kind, field(16).map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(negative)) => Err(Errno::from_raw_os_error(-negative)),
        _ => Err(Errno::PROTO),
    }
}
