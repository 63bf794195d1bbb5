//! The run's own terminal, seen from its init, which leads the session so that the program can be stopped.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;

use crate::sandbox::error::{Fault, Step as _};
use crate::sandbox::init::await_ready;
use crate::sandbox::sys;
use crate::sandbox::wire::{self, FromInit, Seat};

/// The program's side of the run's terminal.
pub(crate) struct Stand {
    side: OwnedFd,
    seat: Seat,
    /// Who had the foreground when the program was put behind.
    foreground: Option<Pid>,
}

impl Stand {
    /// Makes the terminal, passes its controlling side out, and waits until the caller has set it up. The standard
    /// streams that are to be it are it from then on.
    pub(crate) fn make(seat: Seat, status: &OwnedFd) -> Result<Self, Fault> {
        let step = "make the terminal";
        rustix::process::setsid().step("make a session")?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let control = rustix::fs::openat(CWD, "/dev/pts/ptmx", flags, Mode::empty())
            .step("open the terminal's multiplexer")?;
        rustix::pty::unlockpt(&control).step(step)?;
        let side = rustix::pty::ioctl_tiocgptpeer(
            &control,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )
        .step(step)?;
        rustix::process::ioctl_tiocsctty(&side).step("take the terminal")?;
        wire::send_message(status, &FromInit::Terminal, &[control.as_fd()]).step("pass the terminal out")?;
        drop(control);
        await_ready(status)?;
        for (number, _) in (0..).zip(seat.streams).filter(|(_, is)| *is) {
            let copy = rustix::io::fcntl_dupfd_cloexec(&side, 3).step(step)?;
            sys::place(copy, number).step(step)?;
        }
        // Who moves groups to the foreground from behind is stopped otherwise.
        let mut mask = SigSet::empty();
        mask.add(NixSignal::SIGTTOU);
        mask.thread_block().step("block SIGTTOU")?;
        Ok(Self { side, seat, foreground: None })
    }

    /// In the program's process: gives it a group of its own, in the foreground if it begins there.
    pub(crate) fn sit(&self) -> Result<(), Fault> {
        let step = "make a process group";
        rustix::process::setpgid(None, None).step(step)?;
        if self.seat.foreground {
            rustix::termios::tcsetpgrp(&self.side, rustix::process::getpid()).step("take the foreground")?;
        }
        Ok(())
    }

    /// Lets the program go on, in the foreground or behind.
    pub(crate) fn resume(&mut self, program: Pid, foreground: bool) {
        let own = rustix::process::getpgrp();
        let now = rustix::termios::tcgetpgrp(&self.side).ok();
        if foreground && (now == Some(own) || now.is_none()) {
            let group = self.foreground.take().unwrap_or(program);
            // A job of a shell inside may have ended meanwhile.
            let _seated = rustix::termios::tcsetpgrp(&self.side, group)
                .or_else(|_| rustix::termios::tcsetpgrp(&self.side, program));
        } else if !foreground && now != Some(own) {
            self.foreground = now;
            let _gone = rustix::termios::tcsetpgrp(&self.side, own);
        }
        let _gone = rustix::process::kill_process_group(program, Signal::CONT);
    }
}

impl AsFd for Stand {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.side.as_fd()
    }
}
