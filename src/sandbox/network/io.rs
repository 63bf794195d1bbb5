//! Reading, writing and connecting with an end: each waits for the socket, the run's end, and a deadline.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, recv, send, socket_with,
    sockopt,
};

use super::super::cancel::Cancel;
use super::super::world::timespec;

/// Why nothing more comes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// The run ends.
    Stopped,
    /// The time is over.
    Late,
    /// The socket failed.
    Failed(Errno),
}

/// Waits for any of these, the end of the run, or the deadline.
pub(super) fn wait(fds: &mut [PollFd<'_>], until: Instant) -> Result<(), Halt> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Halt::Late);
        }
        match poll(fds, Some(&timespec(left))) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(Halt::Failed(errno)),
        }
    }
}

fn ready(fd: impl AsFd, flags: PollFlags, until: Instant, stop: &Cancel) -> Result<(), Halt> {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), flags), PollFd::new(stop, PollFlags::IN)];
    wait(&mut fds, until)?;
    if fds[1].revents().is_empty() { Ok(()) } else { Err(Halt::Stopped) }
}

/// Reads what there is; 0 is the end.
pub(super) fn read(fd: &OwnedFd, buffer: &mut [u8], until: Instant, stop: &Cancel) -> Result<usize, Halt> {
    loop {
        match recv(fd, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((read, _)) => return Ok(read),
            Err(Errno::AGAIN) => ready(fd, PollFlags::IN, until, stop)?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Halt::Failed(errno)),
        }
    }
}

/// Writes everything.
pub(super) fn write(fd: &OwnedFd, mut bytes: &[u8], until: Instant, stop: &Cancel) -> Result<(), Halt> {
    while !bytes.is_empty() {
        match send(fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::AGAIN) => ready(fd, PollFlags::OUT, until, stop)?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Halt::Failed(errno)),
        }
    }
    Ok(())
}

/// Connects to an address.
pub(super) fn connect(address: SocketAddr, until: Instant, stop: &Cancel) -> Result<OwnedFd, Halt> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None).map_err(Halt::Failed)?;
    // Small records must not wait for each other.
    let _slower = sockopt::set_tcp_nodelay(&socket, true);
    finish(rustix::net::connect(&socket, &address), socket, until, stop)
}

/// Connects to a service at a path.
pub(super) fn connect_unix(path: &Path, until: Instant, stop: &Cancel) -> Result<OwnedFd, Halt> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(Halt::Failed)?;
    let address = SocketAddrUnix::new(path).map_err(Halt::Failed)?;
    finish(rustix::net::connect(&socket, &address), socket, until, stop)
}

fn finish(begun: Result<(), Errno>, socket: OwnedFd, until: Instant, stop: &Cancel) -> Result<OwnedFd, Halt> {
    match begun {
        Ok(()) => return Ok(socket),
        Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(errno) => return Err(Halt::Failed(errno)),
    }
    ready(&socket, PollFlags::OUT, until, stop)?;
    match sockopt::socket_error(&socket) {
        Ok(Ok(())) => Ok(socket),
        Ok(Err(errno)) | Err(errno) => Err(Halt::Failed(errno)),
    }
}
