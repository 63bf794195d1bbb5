//! Carries bytes between two sockets until both are done.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::super::cancel::Cancel;
use super::io::{Halt, wait};

/// A connection over which nothing comes for so long is closed.
const IDLE: Duration = Duration::from_mins(1);
const BUFFER: usize = 32 * 1024;

/// How many bytes the connections of a server may still carry, both ways together.
#[derive(Debug)]
pub(super) struct Budget(AtomicU64);

impl Budget {
    pub(super) fn new(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    /// Takes this many off; false when there are not as many left.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// How many bytes went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// From the program.
    pub(super) sent: u64,
    /// To the program.
    pub(super) received: u64,
}

/// One direction.
struct Way<'a> {
    from: &'a OwnedFd,
    to: &'a OwnedFd,
    buffer: Vec<u8>,
    filled: usize,
    written: usize,
    /// How many bytes may still come.
    left: u64,
    carried: u64,
    ended: bool,
    done: bool,
}

impl<'a> Way<'a> {
    fn new(from: &'a OwnedFd, to: &'a OwnedFd, left: u64) -> Self {
        let ended = left == 0;
        let buffer = vec![0; if ended { 0 } else { BUFFER }];
        Self { from, to, buffer, filled: 0, written: 0, left, carried: 0, ended, done: ended }
    }

    fn wants_to_read(&self) -> bool {
        !self.ended && self.filled == 0
    }

    fn wants_to_write(&self) -> bool {
        self.written < self.filled
    }

    /// Goes as far as it goes without waiting; false when the budget is used up.
    fn step(&mut self, budget: &Budget) -> Result<bool, Errno> {
        loop {
            if self.wants_to_write() {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                match send(self.to, &self.buffer[self.written..self.filled], flags) {
                    Ok(written) => {
                        self.written += written;
                        self.carried += written as u64;
                    }
                    Err(Errno::AGAIN) => return Ok(true),
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
                continue;
            }
            (self.filled, self.written) = (0, 0);
            if self.ended {
                if !self.done {
                    self.done = true;
                    let _gone = shutdown(self.to, Shutdown::Write);
                }
                return Ok(true);
            }
            let most = BUFFER.min(usize::try_from(self.left).unwrap_or(BUFFER));
            match recv(self.from, &mut self.buffer[..most], RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.ended = true,
                Ok((read, _)) => {
                    if !budget.take(read) {
                        return Ok(false);
                    }
                    self.filled = read;
                    self.left -= read as u64;
                    // What comes behind a body of known length goes nowhere.
                    if self.left == 0 {
                        self.ended = true;
                    }
                }
                Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// What the program may send over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upload {
    /// Anything; its end of file is passed on.
    Any,
    /// A body of so many bytes more; the connection stays open for the answer.
    Body(u64),
}

/// Carries until both directions have ended, one fails, nothing comes for a minute, or the run ends.
pub(super) fn carry(
    program: &OwnedFd,
    peer: &OwnedFd,
    upload: Upload,
    budget: &Budget,
    stop: &Cancel,
) -> Carried {
    let mut up = match upload {
        Upload::Any => Way::new(program, peer, u64::MAX),
        Upload::Body(left) => {
            let mut way = Way::new(program, peer, left);
            // A half-closed connection is to some servers one that is gone.
            way.done = true;
            way
        }
    };
    let mut down = Way::new(peer, program, u64::MAX);
    let finite = matches!(upload, Upload::Body(_));
    loop {
        let (went, came) = (up.carried, down.carried);
        if !matches!((up.step(budget), down.step(budget)), (Ok(true), Ok(true))) {
            break;
        }
        if down.done && (finite || up.done) {
            break;
        }
        if (went, came) != (up.carried, down.carried) {
            continue;
        }
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        for way in [&up, &down] {
            if way.wants_to_write() {
                fds.push(PollFd::from_borrowed_fd(way.to.as_fd(), PollFlags::OUT));
            } else if way.wants_to_read() {
                fds.push(PollFd::from_borrowed_fd(way.from.as_fd(), PollFlags::IN));
            }
        }
        match wait(&mut fds, Instant::now() + IDLE) {
            Ok(()) if fds[0].revents().is_empty() => {}
            Ok(()) | Err(Halt::Late | Halt::Stopped | Halt::Failed(_)) => break,
        }
    }
    Carried { sent: up.carried, received: down.carried }
}
