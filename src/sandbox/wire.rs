//! The messages between the caller, the helper and the init of a jail, over sequenced-packet sockets.
//!
//! Two sockets a run. *Control* joins the caller and the helper: it carries the policy with the descriptors, then
//! the init's pid, and its end of file means to either side that the other is dead. *Status* joins the caller and
//! the init: it carries a failed step, the start, stops and the end, and signals to forward. The program inside has neither.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::Fault;
use super::outcome::Limit;
use super::policy::Policy;
use super::receipt::{OwnExecutable, RootKind};

/// Most descriptors in one message.
pub(crate) const MAX_FDS: usize = 32;
/// Most bytes of a message; the policy itself travels in a memory file.
const MAX_BYTES: usize = 8 * 1024;

/// What the helper and the init need to know; travels in a memory file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) policy: Policy,
    /// Whether the caller is root and the ids inside stand for others than its own.
    pub(crate) as_root: bool,
    /// The outside ids.
    pub(crate) host_uid: u32,
    pub(crate) host_gid: u32,
    pub(crate) watch: Watch,
    /// The terminal of the run, if it gets one.
    pub(crate) terminal: Option<Seat>,
    /// The newest ABI of Landlock to use; lower than the kernel's in tests only.
    pub(crate) landlock_at_most: u32,
    /// Whether refusals are reported to the caller.
    pub(crate) learn: bool,
    /// The directories of the run's control group, which the helper removes when the caller is dead.
    pub(crate) groups: Vec<PathBuf>,
}

/// What a run with a terminal of its own begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seat {
    /// Which of the standard streams are the terminal.
    pub(crate) streams: [bool; 3],
    /// Whether the program begins in the foreground.
    pub(crate) foreground: bool,
}

/// Which limits the init samples because no controller enforces them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    pub(crate) memory: bool,
    pub(crate) processes: bool,
    pub(crate) cpu: bool,
}

/// What the helper says over the control socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromHelper {
    Failed(Fault),
    /// A copy of the kept helper serves this socket; said by the kept one, before or after what the copy says.
    Copied {
        pid: i32,
    },
    /// The init exists; its pidfd is attached. It waits for `GO`.
    Cloned {
        pid: i32,
        in_cgroup: bool,
    },
}

/// What the caller asks the kept helper for; a control socket is attached.
pub(crate) const HELP: &[u8] = b"help";

/// The caller's answer to `FromHelper::Cloned`.
pub(crate) const GO: &[u8] = b"go";

/// What the init says over the status socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromInit {
    Failed(Fault),
    /// The listeners of the network are attached, in the order of the policy's servers.
    Listening,
    /// The network namespace of the run is attached; the init waits for [`ToInit::Ready`].
    Network,
    /// The controlling side of the run's terminal is attached; the init waits for [`ToInit::Ready`].
    Terminal,
    /// Said by the program's process: it loaded the filter of a learning run, whose descriptor is attached.
    Learning {
        landlock_abi: Option<u32>,
    },
    /// The program was executed; the output directories are attached in the policy's order.
    Started(Started),
    /// The main process was stopped by this signal; only with a terminal.
    Stopped {
        signal: i32,
    },
    /// The main process ended.
    Ended {
        exited: Option<i32>,
        signaled: Option<i32>,
        sampled: Sampled,
    },
    /// The wall clock ran out, and the caller, who is stopped perhaps, has not ended the run.
    TimedOut {
        sampled: Sampled,
    },
    /// The watchdog ends the run.
    Hit {
        limit: Limit,
        sampled: Sampled,
    },
}

/// What the caller says over the status socket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum ToInit {
    /// What the init waits for is set up.
    Ready,
    /// Pass a signal on to the program.
    Signal(i32),
    /// Let the program go on, in the foreground of its terminal or behind it.
    Resume { foreground: bool },
}

/// What the program's process tells the init before it executes the program, a line each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromPayload {
    /// It holds itself to what the policy names.
    Held {
        landlock_abi: Option<u32>,
    },
    Failed(Fault),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) own_executable: OwnExecutable,
    pub(crate) root: RootKind,
    pub(crate) session_keyring: bool,
    /// Landlock's ABI, where it was used.
    pub(crate) landlock_abi: Option<u32>,
}

/// What the init's sampling saw.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sampled {
    pub(crate) peak_memory_bytes: u64,
    pub(crate) at_process_limit: bool,
}

/// Makes a connected pair, close-on-exec.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends bytes with descriptors.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    let io = [IoSlice::new(bytes)];
    rustix::io::retry_on_intr(|| sendmsg(&socket, &io, &mut ancillary, SendFlags::NOSIGNAL)).map(|_| ())
}

/// Sends a message with descriptors.
pub(crate) fn send_message<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
    send(socket, &bytes, fds)
}

/// Receives one packet with its descriptors; an empty packet is the end.
pub(crate) fn receive(socket: impl AsFd) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
    let mut bytes = vec![0; MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    bytes.truncate(message.bytes);
    Ok((bytes, fds))
}

/// Receives a message; `None` at the end.
pub(crate) fn receive_message<T: DeserializeOwned>(
    socket: impl AsFd,
) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
    let (bytes, fds) = match receive(socket) {
        Ok(packet) => packet,
        // The peer died with a packet of ours unread.
        Err(Errno::CONNRESET) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes).map(|message| Some((message, fds))).map_err(|_| Errno::BADMSG)
}
