//! One of the caller's streams that is copied, because the thing itself must not be inside.
//!
//! A file that was handed in could be opened once more by `/proc/self/fd`, for writing where it was opened for reading;
//! a socket could be connected elsewhere; a terminal could be typed into.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, SeekFrom};
use rustix::io::Errno;

use super::outlet::Outlet;

/// Bytes on their way from one descriptor to another.
#[derive(Default)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    written: usize,
}

/// Most bytes on their way.
const MOST: usize = 64 * 1024;

impl Chunk {
    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Reads once; false at the end. Only when it is empty.
    pub(crate) fn fill(&mut self, from: impl AsFd) -> Result<bool, Errno> {
        self.bytes.resize(MOST, 0);
        self.written = 0;
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&from, &mut self.bytes));
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        read.map(|read| read > 0)
    }

    /// Writes once what is there.
    pub(crate) fn drain(&mut self, to: &Outlet) -> Result<(), Errno> {
        self.written += to.write(&self.bytes[self.written..])?;
        Ok(())
    }
}

/// How long a reader may take nothing.
pub(crate) const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Whether one of the signals that came ends a process.
fn ends(signals: &SignalFd) -> bool {
    let mut ends = false;
    while let Ok(Some(signal)) = signals.read_signal() {
        let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
        ends |= matches!(number, libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT);
    }
    ends
}

/// Copies until one side ends.
pub(crate) struct Copy {
    from: Option<OwnedFd>,
    to: Option<Outlet>,
    chunk: Chunk,
    /// Of a file of the caller's, whose position others may share: where the program reads it from, and how much was
    /// copied.
    shared: Option<(OwnedFd, u64)>,
    failed: Option<Errno>,
    out: bool,
}

impl Copy {
    /// What the program prints, to the caller's stream.
    pub(crate) fn out(from: OwnedFd, to: Outlet) -> Self {
        Self {
            from: Some(from),
            to: Some(to),
            chunk: Chunk::default(),
            shared: None,
            failed: None,
            out: true,
        }
    }

    /// The caller's stream, to the pipe from which the program reads at `read`.
    pub(crate) fn into_pipe(from: OwnedFd, to: OwnedFd, read: &OwnedFd) -> Result<Self, Errno> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&from)?.st_mode);
        let shared = match kind {
            FileType::RegularFile => Some((rustix::io::fcntl_dupfd_cloexec(read, 3)?, 0)),
            _ => None,
        };
        Ok(Self { shared, out: false, ..Self::out(from, Outlet::ours(to)) })
    }

    /// What to wait for before the next step.
    pub(crate) fn waits_for(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let (from, to) = (self.from.as_ref()?, self.to.as_ref()?);
        Some(if self.chunk.is_empty() { (from.as_fd(), PollFlags::IN) } else { (to.as_fd(), PollFlags::OUT) })
    }

    /// Reads or writes once. The end of either side ends both, which the other side's owner then sees.
    pub(crate) fn step(&mut self) {
        let (Some(from), Some(to)) = (&self.from, &self.to) else { return };
        let more = if self.chunk.is_empty() {
            let more = self.chunk.fill(from);
            if let Some((_, copied)) = &mut self.shared {
                *copied += self.chunk.len() as u64;
            }
            more
        } else {
            self.chunk.drain(to).map(|()| true)
        };
        match more {
            Ok(true) | Err(Errno::AGAIN) => {}
            Ok(false) => self.close(),
            Err(errno) => {
                // Nobody wants more of it: no fault, the program is told by its own pipe.
                if errno != Errno::PIPE {
                    self.failed = Some(errno);
                }
                self.close();
            }
        }
    }

    fn close(&mut self) {
        self.to = None;
        if self.shared.is_none() {
            self.from = None;
        }
    }

    /// Copies what the program has printed to the end, however slowly it is read, unless a signal tells the caller to end
    /// too. A reader who takes nothing of a run that was ended by force is not waited for.
    pub(crate) fn finish(&mut self, by_force: bool, signals: Option<&SignalFd>) {
        let patience = by_force.then_some(PATIENCE);
        while let Some((fd, flags)) = self.waits_for() {
            let told = signals.map_or(fd, AsFd::as_fd);
            let heeded = if signals.is_some() { PollFlags::IN } else { PollFlags::empty() };
            let mut fds = [PollFd::from_borrowed_fd(fd, flags), PollFd::from_borrowed_fd(told, heeded)];
            match poll(&mut fds, patience.as_ref()) {
                Err(Errno::INTR) => continue,
                Ok(1..) => {}
                // Nothing is taken any more.
                Ok(0) | Err(_) => return self.close(),
            }
            let [ready, told] = fds.map(|fd| !fd.revents().is_empty());
            if told && signals.is_some_and(ends) {
                return self.close();
            }
            if ready {
                self.step();
            }
        }
    }

    /// Stops reading. What the program has left unread of a file is put back, so that whoever shares its position (a
    /// loop of a shell) goes on from there.
    pub(crate) fn put_back(&mut self) {
        self.to = None;
        let (Some(from), Some((read, copied))) = (self.from.take(), self.shared.take()) else { return };
        let in_pipe = rustix::io::ioctl_fionread(&read).unwrap_or(0);
        // A program can write into its own pipe; no more goes back than came.
        let unread = (self.chunk.len() as u64 + in_pipe).min(copied);
        if let Ok(back @ 1..) = i64::try_from(unread) {
            let _not_of_this_kind = rustix::fs::seek(&from, SeekFrom::Current(-back));
        }
    }

    /// Whether it is something that the program prints.
    pub(crate) fn is_out(&self) -> bool {
        self.out
    }

    /// What went wrong on the caller's side.
    pub(crate) fn failed(&self) -> Option<Errno> {
        self.failed
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
    }

    #[test]
    fn what_a_program_left_unread_of_a_file_is_put_back() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 300_000]).unwrap();
        file.rewind().unwrap();
        let (read, write) = pipe();
        let mut copy = Copy::into_pipe(file.try_clone().unwrap().into(), write, &read).unwrap();
        for _ in 0..100 {
            copy.step();
        }
        let mut program = std::fs::File::from(read);
        program.read_exact(&mut [0; 1000]).unwrap();
        drop(program);
        copy.put_back();
        assert_eq!(file.stream_position().unwrap(), 1000);
    }

    #[test]
    fn a_file_that_takes_nothing_is_a_failure_and_a_reader_that_left_is_none() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (read, write) = pipe();
        rustix::io::write(&write, b"lost").unwrap();
        drop(write);
        let mut copy = Copy::out(read, Outlet::of(full.as_fd()).unwrap());
        copy.finish(false, None);
        assert_eq!(copy.failed(), Some(Errno::NOSPC));

        let ((read, write), (gone, to)) = (pipe(), pipe());
        drop(gone);
        rustix::io::write(&write, b"unread").unwrap();
        let mut copy = Copy::out(read, Outlet::ours(to));
        copy.finish(false, None);
        assert_eq!(copy.failed(), None);
        // The program is told likewise.
        assert_eq!(rustix::io::write(&write, b"more"), Err(Errno::PIPE));
    }
}
