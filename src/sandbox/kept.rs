//! The helper that is kept: one process of ours, of which each run gets a copy as its helper.
//!
//! Starting this program costs about as much as all the rest of an empty run: its image is relocated page by page. The
//! kept helper has that behind it, and a copy (`clone3` with `CLONE_PARENT`) is a child of the caller as if the caller
//! had started it. It knows no policy and takes no part in a run; while it waits it holds one socket, whose end ends it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Child;
use std::sync::{Mutex, PoisonError};

use super::error::{Doing as _, SandboxError};
use super::wire;

/// Starts it; says whether it runs from a read-only mount.
pub(crate) type Start<'a> = &'a dyn Fn(&OwnedFd) -> Result<(Child, bool), SandboxError>;

/// The kept helper of a sandbox, started by the first run and again should it be gone. Dropped, it ends.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Option<Keeper>>);

#[derive(Debug)]
struct Keeper {
    child: Child,
    requests: Option<OwnedFd>,
    guarded: bool,
}

impl Kept {
    /// Has a helper made that is at the other end of `control`; says whether it runs from a read-only mount.
    ///
    /// The helper's pid comes over the control socket.
    pub(crate) fn helper_at(&self, control: &OwnedFd, start: Start<'_>) -> Result<bool, SandboxError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = &*kept
            && keeper.ask(control).is_ok()
        {
            return Ok(keeper.guarded);
        }
        // None yet, or somebody has ended it.
        *kept = None;
        let keeper = kept.insert(Keeper::start(start)?);
        keeper.ask(control).doing("start the helper")?;
        Ok(keeper.guarded)
    }
}

impl Keeper {
    fn start(start: Start<'_>) -> Result<Self, SandboxError> {
        let (requests, theirs) = wire::pair().doing("make a socket for the helper")?;
        let (child, guarded) = start(&theirs)?;
        Ok(Self { child, requests: Some(requests), guarded })
    }

    fn ask(&self, control: &OwnedFd) -> Result<(), rustix::io::Errno> {
        let Some(requests) = &self.requests else { return Err(rustix::io::Errno::PIPE) };
        wire::send(requests, wire::HELP, &[control.as_fd()])
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.requests = None;
        let _reaped = self.child.wait();
    }
}
