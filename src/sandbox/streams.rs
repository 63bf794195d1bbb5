//! The standard streams of a run: pipes that are fed and drained, or the caller's own, most of them copied.

mod copy;
mod outlet;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fs_err as fs;
use nix::sys::signalfd::SignalFd;
use rustix::event::PollFlags;
use rustix::fs::{FileType, OFlags, major, minor};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::error::{Doing as _, SandboxError};
use super::policy::Limits;
use super::ring::{Captured, Ring};
use super::terminal::Terminal;

pub(crate) use copy::{Chunk, PATIENCE};
pub(crate) use outlet::Outlet;

use copy::Copy;

/// What a program reads from its standard input.
#[derive(Debug)]
pub enum StdinBytes {
    /// Nothing.
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file of the caller, from its present position on.
    File(std::fs::File),
}

/// Our ends of the streams.
pub(crate) struct Streams {
    input: Option<Feed>,
    pub(crate) output: [Drain; 2],
    /// The caller's streams that are copied: the input, and the outputs.
    copies: Vec<Copy>,
    /// The caller's terminal, where the run has one of its own.
    pub(crate) terminal: Option<Terminal>,
    total: u64,
    total_cap: u64,
}

struct Feed {
    pipe: OwnedFd,
    bytes: Vec<u8>,
    written: usize,
}

/// Our end of an output stream with what came over it.
pub(crate) struct Drain {
    pipe: Option<OwnedFd>,
    ring: Ring,
}

/// Whether a run may have a terminal of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MayHaveTerminal {
    Yes,
    No,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    In,
    Out,
}

/// The program's ends: stdin, stdout, stderr.
pub(crate) type ProgramEnds = [OwnedFd; 3];

impl Streams {
    /// Makes pipes.
    pub(crate) fn captured(stdin: StdinBytes, limits: &Limits) -> Result<(Self, ProgramEnds), SandboxError> {
        let (input, program_in) = match stdin {
            StdinBytes::Empty => (None, null()?),
            StdinBytes::File(file) => (None, OwnedFd::from(file)),
            StdinBytes::Bytes(bytes) => {
                let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC).doing("make a pipe")?;
                unblocked(&ours)?;
                (Some(Feed { pipe: ours, bytes, written: 0 }), theirs)
            }
        };
        let cap = usize::try_from(limits.output_bytes).unwrap_or(usize::MAX);
        let drain = || -> Result<(Drain, OwnedFd), SandboxError> {
            let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).doing("make a pipe")?;
            unblocked(&ours)?;
            Ok((Drain { pipe: Some(ours), ring: Ring::new(cap) }, theirs))
        };
        let ((stdout, program_out), (stderr, program_err)) = (drain()?, drain()?);
        let streams =
            Self { input, output: [stdout, stderr], total_cap: limits.output_total_bytes, ..Self::none() };
        Ok((streams, [program_in, program_out, program_err]))
    }

    fn none() -> Self {
        let none = || Drain { pipe: None, ring: Ring::new(0) };
        Self {
            input: None,
            output: [none(), none()],
            copies: Vec::new(),
            terminal: None,
            total: 0,
            total_cap: u64::MAX,
        }
    }

    /// Stands for the caller's own streams: with a terminal of the run's own for those that are terminals, if it
    /// `may` have one.
    pub(crate) fn inherited(may: MayHaveTerminal) -> Result<(Self, ProgramEnds), SandboxError> {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let given = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let mut streams = Self::none();
        if may == MayHaveTerminal::Yes {
            streams.terminal = Terminal::among(given)?;
        }
        let seats = streams.terminal.as_ref().map_or([false; 3], |terminal| terminal.seat().streams);
        let mut ends = Vec::with_capacity(3);
        for ((stream, fd), seated) in [Stream::In, Stream::Out, Stream::Out].into_iter().zip(given).zip(seats)
        {
            ends.push(if seated { null()? } else { streams.hand_in(stream, fd)? });
        }
        let ends = ends.try_into().map_err(|_| SandboxError::Io {
            doing: "pass the streams on",
            source: std::io::Error::from(Errno::INVAL),
        })?;
        Ok((streams, ends))
    }

    /// The program's end for one of the caller's streams: itself where that is harmless, else a pipe whose other end
    /// is copied.
    fn hand_in(&mut self, stream: Stream, fd: BorrowedFd<'_>) -> Result<OwnedFd, SandboxError> {
        let doing = "pass a stream on";
        let own = match rustix::io::fcntl_dupfd_cloexec(fd, 3) {
            // Started without it.
            Err(Errno::BADF) => return null(),
            other => other.doing(doing)?,
        };
        if is_harmless(&own, stream).doing(doing)? {
            return Ok(own);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).doing("make a pipe")?;
        Ok(match stream {
            Stream::In => {
                unblocked(&write)?;
                self.copies.push(Copy::into_pipe(own, write, &read).doing(doing)?);
                read
            }
            Stream::Out => {
                unblocked(&read)?;
                self.copies.push(Copy::out(read, Outlet::of(own.as_fd()).doing(doing)?));
                write
            }
        })
    }

    /// What the copies wait for, with their numbers.
    pub(crate) fn copies(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>, PollFlags)> {
        let waits = self.copies.iter().enumerate();
        waits.filter_map(|(index, copy)| copy.waits_for().map(|(fd, flags)| (index, fd, flags)))
    }

    /// Takes a step of a copy.
    pub(crate) fn copy(&mut self, index: usize) {
        if let Some(copy) = self.copies.get_mut(index) {
            copy.step();
        }
    }

    /// Once the program is gone: brings what it printed to the caller, and leaves what it did not read.
    ///
    /// # Errors
    /// When what it printed could not be written, and it does not know.
    pub(crate) fn settle(&mut self, by_force: bool, signals: Option<&SignalFd>) -> Result<(), SandboxError> {
        if let Some(terminal) = &mut self.terminal {
            terminal.end();
        }
        for copy in &mut self.copies {
            if copy.is_out() {
                copy.finish(by_force, signals);
            }
            copy.put_back();
        }
        match self.copies.iter().filter(|copy| copy.is_out()).find_map(Copy::failed) {
            Some(errno) => Err(errno).doing("write what the program printed"),
            None => Ok(()),
        }
    }

    /// The pipe to wait for until it takes more input.
    pub(crate) fn wants_to_write(&self) -> Option<BorrowedFd<'_>> {
        self.input.as_ref().map(|feed| feed.pipe.as_fd())
    }

    /// Writes what the input pipe takes.
    pub(crate) fn write(&mut self) {
        let Some(feed) = &mut self.input else { return };
        while feed.written < feed.bytes.len() {
            match rustix::io::write(&feed.pipe, &feed.bytes[feed.written..]) {
                Ok(written) => feed.written += written,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // Nobody reads any more.
                Err(_) => break,
            }
        }
        self.input = None;
    }

    /// Reads one of the output pipes until it is empty or ended.
    pub(crate) fn read(&mut self, index: usize) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let drain = &mut self.output[index];
            let Some(pipe) = &drain.pipe else { return };
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) => drain.pipe = None,
                Ok(read) => {
                    drain.ring.push(&buffer[..read]);
                    self.total += read as u64;
                    if self.over_cap() {
                        // Its end is near; what it prints until then is not waited for.
                        return;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => drain.pipe = None,
            }
        }
    }

    /// Whether more was printed than may be.
    pub(crate) fn over_cap(&self) -> bool {
        self.total > self.total_cap
    }

    pub(crate) fn finish(self) -> [Captured; 2] {
        self.output.map(|drain| drain.ring.finish())
    }
}

impl Drain {
    pub(crate) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }
}

fn null() -> Result<OwnedFd, SandboxError> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map(|file| OwnedFd::from(file.into_file()))
        .doing("open /dev/null")
}

fn unblocked(fd: &OwnedFd) -> Result<(), SandboxError> {
    let flags = rustix::fs::fcntl_getfl(fd).doing("set up a pipe")?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK).doing("set up a pipe")
}

/// A pipe, or one of the devices that every jail has.
///
/// Who has one end of a pipe, and is its owner, can open the other by `/proc`. Only without root is a program the caller
/// outside; what others print into the same pipe is not for it to read then. Its input is left to it: nobody could tell
/// what it has not read from what the next reader is to have.
fn is_harmless(fd: &OwnedFd, stream: Stream) -> Result<bool, Errno> {
    let found = rustix::fs::fstat(fd)?;
    Ok(match FileType::from_raw_mode(found.st_mode) {
        FileType::Fifo => stream == Stream::In || rustix::process::geteuid().is_root(),
        FileType::CharacterDevice => {
            major(found.st_rdev) == 1 && matches!(minor(found.st_rdev), 3 | 5 | 7 | 8 | 9)
        }
        _ => false,
    })
}
