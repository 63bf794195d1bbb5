//! The threads that serve the listeners of a run.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::super::cancel::Cancel;
use super::super::error::{Doing as _, SandboxError};
use super::super::world::timespec;
use super::contact::{Contact, Contacts};
use super::io;
use super::proxy::Proxy;
use super::relay::{self, Budget, Upload};
use super::{Outside, Serve, Server, ServiceAddress};

/// Most connections of a run at a time; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 64;
/// How often it is looked for a free place when all are taken.
const GLANCE: Duration = Duration::from_millis(20);
/// For a service of the caller to accept.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// The servers of a run; dropped, they and their threads are gone.
#[derive(Debug)]
pub(crate) struct Servers {
    stop: Cancel,
    contacts: Arc<Contacts>,
    acceptor: Option<JoinHandle<()>>,
}

/// What is behind one listener.
#[derive(Debug)]
enum Behind {
    Proxy(Box<Proxy>),
    Service(ServiceAddress),
}

impl Behind {
    fn serve(&self, program: &OwnedFd, stop: &Cancel) {
        let address = match self {
            Self::Proxy(proxy) => return proxy.serve(program, stop),
            Self::Service(address) => address,
        };
        let until = Instant::now() + CONNECT_TIME;
        let peer = match address {
            ServiceAddress::Tcp(address) => io::connect(*address, until, stop),
            ServiceAddress::Unix(path) => io::connect_unix(path, until, stop),
        };
        if let Ok(peer) = peer {
            // The service has caps of its own.
            relay::carry(program, &peer, Upload::Any, &Budget::new(u64::MAX), stop);
        }
    }
}

impl Servers {
    /// Starts serving the listeners, which are those of `servers` in their order.
    pub(crate) fn start(
        listeners: Vec<OwnedFd>,
        servers: &[Server],
        outside: &Outside,
    ) -> Result<Self, SandboxError> {
        let doing = "serve the network of the run";
        let contacts = Arc::new(Contacts::default());
        let mut served = Vec::new();
        for (listener, server) in listeners.into_iter().zip(servers) {
            rustix::io::ioctl_fionbio(&listener, true).doing(doing)?;
            let behind = match &server.serve {
                Serve::Proxy { allow } => Behind::Proxy(Box::new(Proxy::new(
                    allow.clone(),
                    outside.upstream.clone(),
                    Arc::clone(&contacts),
                ))),
                Serve::Service { name } => match outside.services.get(name) {
                    Some(address) => Behind::Service(address.clone()),
                    // Refused before the launch.
                    None => continue,
                },
            };
            served.push((listener, Arc::new(behind)));
        }
        let stop = Cancel::new()?;
        let theirs = stop.clone();
        let acceptor = Builder::new()
            .name("jail-network".to_owned())
            .spawn(move || accept(&served, &theirs))
            .doing(doing)?;
        Ok(Self { stop, contacts, acceptor: Some(acceptor) })
    }

    /// Ends every connection and thread; gives whom the run asked for, and how many attempts are not among them.
    pub(crate) fn finish(mut self) -> (Vec<Contact>, u64) {
        self.end();
        self.contacts.take()
    }

    fn end(&mut self) {
        self.stop.cancel();
        if let Some(acceptor) = self.acceptor.take() {
            let _panicked = acceptor.join();
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.end();
    }
}

/// Accepts until the run ends, then waits for every connection's thread.
fn accept(served: &[(OwnedFd, Arc<Behind>)], stop: &Cancel) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    loop {
        let mut at = 0;
        while at < threads.len() {
            if threads[at].is_finished() {
                let _panicked = threads.swap_remove(at).join();
            } else {
                at += 1;
            }
        }
        let full = threads.len() >= MOST_CONNECTIONS;
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        if !full {
            fds.extend(served.iter().map(|(fd, _)| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
        }
        let timeout = full.then(|| timespec(GLANCE));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
        if !fds[0].revents().is_empty() {
            break;
        }
        let ready: Vec<usize> = (1..fds.len()).filter(|index| !fds[*index].revents().is_empty()).collect();
        for index in ready {
            let (listener, behind) = &served[index - 1];
            let accepted = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
            let program = match accepted {
                Ok(program) => program,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    // It stays to be accepted: later there may be room.
                    std::thread::sleep(GLANCE);
                    continue;
                }
                Err(_) => continue,
            };
            let (behind, stop) = (Arc::clone(behind), stop.clone());
            let thread = Builder::new().name("jail-connection".to_owned()).stack_size(256 * 1024);
            // Where no thread can be had, the connection ends.
            threads.extend(thread.spawn(move || behind.serve(&program, &stop)));
        }
    }
    for thread in threads {
        let _panicked = thread.join();
    }
}
