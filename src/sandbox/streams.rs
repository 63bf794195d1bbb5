//! The standard streams of a run: pipes that are fed and drained, or the caller's own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fs_err as fs;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::error::{Doing as _, SandboxError};
use super::policy::Limits;
use super::ring::{Captured, Ring};

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
            Self { input, output: [stdout, stderr], total: 0, total_cap: limits.output_total_bytes };
        Ok((streams, [program_in, program_out, program_err]))
    }

    /// Hands the caller's own streams on.
    pub(crate) fn inherited() -> Result<(Self, ProgramEnds), SandboxError> {
        let copy = |fd: BorrowedFd<'_>| match rustix::io::fcntl_dupfd_cloexec(fd, 3) {
            // Started without it.
            Err(Errno::BADF) => null(),
            other => other.doing("pass a stream on"),
        };
        let ends = [
            copy(std::io::stdin().as_fd())?,
            copy(std::io::stdout().as_fd())?,
            copy(std::io::stderr().as_fd())?,
        ];
        let none = || Drain { pipe: None, ring: Ring::new(0) };
        Ok((Self { input: None, output: [none(), none()], total: 0, total_cap: u64::MAX }, ends))
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
