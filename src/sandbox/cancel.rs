//! Ending runs from another thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use super::error::{Doing as _, SandboxError};

/// Ends the runs it was given to, once and for all; clones are the same.
#[derive(Clone, Debug)]
pub struct Cancel {
    event: Arc<OwnedFd>,
}

impl Cancel {
    /// Makes one that isn't cancelled.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> Result<Self, SandboxError> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).doing("make an event")?;
        Ok(Self { event: Arc::new(event) })
    }

    /// Ends every run it was given to, also those that start later.
    pub fn cancel(&self) {
        // The counter is never read, so that it stays ready for all; a full one is ready too.
        let _full = rustix::io::write(&*self.event, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
