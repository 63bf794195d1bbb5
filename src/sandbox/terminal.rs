//! The caller's terminal and the run's own, and what passes between them.
//!
//! The caller's is never inside. The run has one of its own (`inside`), which the caller's shows: what is typed goes in
//! raw, what the program prints comes out, and the run's terminal turns keys into signals for whoever is in its
//! foreground. Three rules keep job control as users of a shell know it:
//!
//! - Nothing is read from the caller's terminal, and its modes are left alone, until the program is in the foreground
//!   of its own and the caller in that of his. A program that has the terminal for its input and output begins there;
//!   any other (one of a pipeline, beside which another may be reading) is moved there when it asks for input, which
//!   stops it as a background job is stopped.
//! - When the program is stopped, the caller's terminal is given back and the caller's process group stops likewise.
//!   Continued, it takes the terminal again if it is in the foreground, and lets the program go on.
//! - However the run ends, the caller's terminal has its modes back ([`Drop`]), and what was typed and not read is
//!   dropped, lest answers that a program's output draws from the terminal are read as commands by a shell.

mod inside;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::termios::{OptionalActions, QueueSelector, Termios};

use super::error::{Doing as _, SandboxError};
use super::streams::{self, Chunk, Outlet};
use super::wire::Seat;

pub(crate) use inside::Stand;

/// A side of the terminal that may be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The caller's terminal.
    Own,
    /// The run's.
    Theirs,
}

/// The caller's terminal, and the controlling side of the run's.
pub(crate) struct Terminal {
    /// The caller's, to read from and to set.
    own: OwnedFd,
    /// The same to write to, without waiting.
    screen: Outlet,
    /// Its modes as they were found.
    modes: Termios,
    seat: Seat,
    theirs: Option<Outlet>,
    /// Whether the modes are set to raw, and keys are passed on.
    taken: bool,
    /// Whether the caller's terminal is there no more.
    hung_up: bool,
    keys: Chunk,
    shown: Chunk,
}

impl Terminal {
    /// The terminal among these standard streams, if there is one.
    pub(crate) fn among(streams: [BorrowedFd<'_>; 3]) -> Result<Option<Self>, SandboxError> {
        let doing = "look at the terminal";
        let are = streams.map(rustix::termios::isatty);
        // What is typed comes from where it would be read, what is shown goes where it would be written.
        let first =
            |order: [usize; 3]| order.into_iter().find(|index| are[*index]).map(|index| streams[index]);
        let (Some(own), Some(screen)) = (first([0, 2, 1]), first([1, 2, 0])) else { return Ok(None) };
        let copy = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3).doing(doing);
        let modes = rustix::termios::tcgetattr(own).doing(doing)?;
        let mut terminal = Self {
            own: copy(own)?,
            screen: Outlet::of(screen).doing(doing)?,
            modes,
            seat: Seat { streams: are, foreground: false },
            theirs: None,
            taken: false,
            hung_up: false,
            keys: Chunk::default(),
            shown: Chunk::default(),
        };
        terminal.seat.foreground = are[0] && are[1] && terminal.is_ours();
        Ok(Some(terminal))
    }

    /// What the run begins with.
    pub(crate) fn seat(&self) -> Seat {
        self.seat
    }

    /// Takes the controlling side of the run's terminal, and gives it the modes and the size of the caller's.
    pub(crate) fn connect(&mut self, theirs: OwnedFd) -> Result<(), SandboxError> {
        let doing = "set up the run's terminal";
        let flags = rustix::fs::fcntl_getfl(&theirs).doing(doing)?;
        rustix::fs::fcntl_setfl(&theirs, flags | OFlags::NONBLOCK).doing(doing)?;
        rustix::termios::tcsetattr(&theirs, OptionalActions::Now, &self.modes).doing(doing)?;
        self.theirs = Some(Outlet::ours(theirs));
        self.resize();
        if self.seat.foreground {
            self.take();
        }
        Ok(())
    }

    /// Gives the run's terminal the size of the caller's; the kernel tells who is in its foreground.
    pub(crate) fn resize(&self) {
        if let (Some(theirs), Ok(size)) = (&self.theirs, rustix::termios::tcgetwinsize(&self.own)) {
            let _gone = rustix::termios::tcsetwinsize(theirs, size);
        }
    }

    /// What to wait for.
    pub(crate) fn waits_for(&self) -> impl Iterator<Item = (Side, BorrowedFd<'_>, PollFlags)> {
        let reads = self.taken && !self.hung_up && self.keys.is_empty();
        let own = reads.then(|| (Side::Own, self.own.as_fd(), PollFlags::IN));
        let shows = !self.shown.is_empty();
        let screen = shows.then(|| (Side::Own, self.screen.as_fd(), PollFlags::OUT));
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, !shows);
        flags.set(PollFlags::OUT, !self.keys.is_empty());
        let theirs = self.theirs.as_ref().filter(|_| !flags.is_empty());
        own.into_iter().chain(screen).chain(theirs.map(|fd| (Side::Theirs, fd.as_fd(), flags)))
    }

    /// Passes on what can be without waiting.
    pub(crate) fn pass(&mut self, side: Side) {
        match side {
            Side::Own => {
                if self.taken && !self.hung_up && self.keys.is_empty() && is_readable(&self.own) {
                    match self.keys.fill(&self.own) {
                        Ok(true) | Err(Errno::AGAIN) => {}
                        // Somebody else was put in the foreground: what is typed is theirs.
                        Err(Errno::IO) if !self.is_ours() => self.taken = false,
                        // The end, or a terminal that is gone: then the run's is gone for the program.
                        Ok(false) | Err(_) => self.hang_up(),
                    }
                }
                self.show();
            }
            Side::Theirs => {
                self.show();
                self.listen();
                self.show();
            }
        }
        if let Some(theirs) = &self.theirs
            && !self.keys.is_empty()
        {
            let _full_or_gone = self.keys.drain(theirs);
        }
    }

    /// Reads what the program shows, and shows it.
    fn listen(&mut self) {
        let Some(theirs) = &self.theirs else { return };
        if !self.shown.is_empty() {
            return;
        }
        match self.shown.fill(theirs) {
            Ok(true) | Err(Errno::AGAIN) => {}
            // Nobody has the other side any more.
            Ok(false) | Err(_) => self.theirs = None,
        }
    }

    fn show(&mut self) {
        if self.shown.is_empty() {
            return;
        }
        match self.shown.drain(&self.screen) {
            Ok(()) | Err(Errno::AGAIN) => {}
            // Nobody sees it; the program must not wait for that.
            Err(_) => self.hang_up(),
        }
    }

    /// Gives the terminal back while the program is stopped, once all that is there is shown.
    pub(crate) fn leave(&mut self) {
        self.show_what_is_there();
        self.give_back();
    }

    /// Gives the terminal back for good, once all that is there is shown.
    pub(crate) fn end(&mut self) {
        self.show_what_is_there();
        self.drop_keys();
        self.give_back();
    }

    fn show_what_is_there(&mut self) {
        let (begun, mut shown) = (Instant::now(), 0);
        while shown < MOST_SHOWN && begun.elapsed() < PATIENCE {
            if self.shown.is_empty() {
                self.listen();
                shown += self.shown.len();
                if self.shown.is_empty() {
                    break;
                }
            } else {
                let mut fds = [rustix::event::PollFd::new(&self.screen, PollFlags::OUT)];
                if !matches!(
                    rustix::event::poll(&mut fds, Some(&streams::PATIENCE)),
                    Ok(1..) | Err(Errno::INTR)
                ) {
                    // A screen that takes nothing for so long shows nothing any more.
                    break;
                }
                self.show();
            }
        }
    }

    /// Drops what was typed and not read, as long as it is for nobody else.
    fn drop_keys(&self) {
        if self.taken && self.is_ours() {
            let _gone = rustix::termios::tcflush(&self.own, QueueSelector::IFlush);
        }
    }

    /// Takes the run's terminal away, as when a line is cut.
    pub(crate) fn hang_up(&mut self) {
        self.hung_up = true;
        self.theirs = None;
        (self.keys, self.shown) = (Chunk::default(), Chunk::default());
    }

    /// Whether the caller is in the foreground of his terminal, or there is no job control at all.
    pub(crate) fn is_ours(&self) -> bool {
        // Groups of which this pid namespace knows nothing are 0 here, which may be ours.
        match nix::unistd::tcgetpgrp(&self.own) {
            Ok(group) => group == nix::unistd::getpgrp(),
            Err(_) => true,
        }
    }

    /// Whether keys are passed on.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken
    }

    /// Whether a program with these streams has the foreground whenever the caller has it.
    pub(crate) fn is_interactive(&self) -> bool {
        self.seat.streams[0] && self.seat.streams[1]
    }

    /// Passes keys on from now on.
    pub(crate) fn take(&mut self) {
        let mut raw = self.modes.clone();
        raw.make_raw();
        self.taken = rustix::termios::tcsetattr(&self.own, OptionalActions::Drain, &raw).is_ok();
    }

    /// Sets the modes back, when it is ours to do.
    fn give_back(&mut self) {
        if std::mem::take(&mut self.taken) && self.is_ours() {
            let _gone = rustix::termios::tcsetattr(&self.own, OptionalActions::Drain, &self.modes);
        }
    }

    /// Takes the terminal's modes as they are now: a shell may have changed them while the caller was stopped.
    pub(crate) fn look_again(&mut self) {
        if let Ok(modes) = rustix::termios::tcgetattr(&self.own) {
            self.modes = modes;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.drop_keys();
        self.give_back();
    }
}

/// How long showing them may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes that are shown of a program that was stopped before the caller stops likewise: others beside it may go on
/// printing for ever.
const MOST_SHOWN: usize = 256 * 1024;

fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [rustix::event::PollFd::new(fd, PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1..))
}

/// Whether nobody is left who could continue the caller's process group: then it can't be stopped either.
pub(crate) fn is_orphaned() -> bool {
    let session = |pid| nix::unistd::getsid(pid).ok();
    session(Some(nix::unistd::getppid())) != session(None)
}

/// Stops the caller's process group as this signal stops, and comes back when it is continued.
pub(crate) fn stop_like(signal: i32) {
    let stopped = match Signal::from_named_raw(signal) {
        // A shell's `kill -STOP` means one process.
        Some(Signal::STOP) | None => {
            let _always = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
            return;
        }
        Some(signal) => rustix::process::kill_current_process_group(signal),
    };
    let mut mask = SigSet::empty();
    if let (Ok(()), Ok(signal)) = (stopped, nix::sys::signal::Signal::try_from(signal)) {
        mask.add(signal);
    }
    // Held back until here, so that the terminal could be given back first.
    if let Ok(before) = mask.thread_swap_mask(SigmaskHow::SIG_UNBLOCK) {
        let _always = before.thread_set_mask();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_nobody_read_are_dropped_at_the_end_and_kept_over_a_stop() {
        let left = |finish: fn(&mut Terminal)| {
            let pty = nix::pty::openpty(None, None).unwrap();
            let side = pty.slave.as_fd();
            let mut terminal = Terminal::among([side; 3]).unwrap().unwrap();
            terminal.take();
            rustix::io::write(&pty.master, b"a report\n").unwrap();
            let mut arrived = [rustix::event::PollFd::new(&pty.slave, PollFlags::IN)];
            assert_eq!(rustix::event::poll(&mut arrived, Some(&streams::PATIENCE)), Ok(1));
            finish(&mut terminal);
            rustix::io::ioctl_fionread(side).unwrap()
        };
        assert_eq!(left(Terminal::end), 0);
        assert_ne!(left(Terminal::leave), 0, "a shell's `fg` finds what was typed ahead");
    }
}
