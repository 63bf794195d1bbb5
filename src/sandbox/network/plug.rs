//! The network mode `service`: the caller puts devices into the run's own network namespace.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Plugs the network of a run in. It gets a descriptor of the run's network namespace, once that is there with loopback
/// up and before the program starts, which waits for it; a failure is the run's. It
/// must not wait for long: nothing else of the run is attended to meanwhile.
///
/// The namespace belongs to the run's user namespace: who may act in it is whoever started the run. What was put into it
/// is gone with the run's last process.
#[derive(Clone)]
pub struct Plug(Arc<dyn Fn(BorrowedFd<'_>) -> io::Result<()> + Send + Sync>);

impl Plug {
    /// Makes one of what is to be done.
    pub fn new(act: impl Fn(BorrowedFd<'_>) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(act))
    }

    pub(crate) fn put_in(&self, namespace: BorrowedFd<'_>) -> io::Result<()> {
        (self.0)(namespace)
    }
}

impl std::fmt::Debug for Plug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plug")
    }
}
