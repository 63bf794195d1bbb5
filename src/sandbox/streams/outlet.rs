//! A stream of the caller's that is written to without ever waiting for it: whoever attends a run must go on to attend its
//! clock and the caller's signals, however slow the reader.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;

/// Most bytes written at once to what would be waited for: so many fit wherever there is any room.
const SIP: usize = 256;

/// Where to write to.
pub(crate) struct Outlet {
    fd: OwnedFd,
    how: How,
}

enum How {
    /// A file, or what does not wait by itself.
    Plain,
    Socket,
    /// What is shared with others and can't be opened anew: little by little, when it is ready.
    Sips,
}

impl Outlet {
    /// One of the caller's streams. Whether it waits for its reader is a property of what was opened, which others may
    /// share, and which is left as it is.
    pub(crate) fn of(stream: BorrowedFd<'_>) -> Result<Self, Errno> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(stream)?.st_mode);
        let how = match kind {
            // Its position is shared, and it never keeps one waiting for somebody.
            FileType::RegularFile => How::Plain,
            FileType::Socket => How::Socket,
            _ => {
                if let Some(fd) = opened_anew(stream) {
                    return Ok(Self { fd, how: How::Plain });
                }
                How::Sips
            }
        };
        Ok(Self { fd: rustix::io::fcntl_dupfd_cloexec(stream, 3)?, how })
    }

    /// What was opened by us so as not to wait.
    pub(crate) fn ours(fd: OwnedFd) -> Self {
        Self { fd, how: How::Plain }
    }

    /// Writes what fits.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        rustix::io::retry_on_intr(|| match self.how {
            How::Plain => rustix::io::write(&self.fd, bytes),
            How::Socket => rustix::net::send(&self.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            How::Sips => rustix::io::write(&self.fd, &bytes[..bytes.len().min(SIP)]),
        })
    }
}

impl AsFd for Outlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The same once more, so that not waiting for it is no affair of whoever else has it open.
fn opened_anew(stream: BorrowedFd<'_>) -> Option<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = |path: &str| rustix::fs::open(path, flags, Mode::empty()).ok();
    open(&format!("/proc/self/fd/{}", stream.as_raw_fd())).or_else(|| {
        // Somebody else's terminal, as after `su`: everybody may open the one that controls him.
        let ours = nix::sys::termios::tcgetsid(stream).ok()? == nix::unistd::getsid(None).ok()?;
        if ours { open("/dev/tty") } else { None }
    })
}
