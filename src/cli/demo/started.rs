//! What a demo that is interrupted must take with it: its processes and its folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

/// A process has so long to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The processes that were started and still count.
#[derive(Clone)]
pub(super) struct Started {
    processes: Arc<Mutex<Vec<Pid>>>,
    folder: PathBuf,
}

impl Started {
    /// Watches for SIGINT and SIGTERM from here on: then every process ends, `folder` goes, and so does this program.
    pub(super) fn watched(folder: PathBuf) -> Self {
        let started = Self { processes: Arc::default(), folder };
        let watching = started.clone();
        let (ready, until_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let number = runtime.and_then(|runtime| {
                runtime.block_on(async {
                    let mut interrupt = signal(SignalKind::interrupt())?;
                    let mut terminate = signal(SignalKind::terminate())?;
                    let _waiting = ready.send(());
                    tokio::select! {
                        _ = interrupt.recv() => Ok(Signal::SIGINT),
                        _ = terminate.recv() => Ok(Signal::SIGTERM),
                    }
                })
            });
            let Ok(number) = number else { return };
            // Held to the end: nothing more is started, and the demo itself waits at `settle`.
            let processes = watching.lock();
            for process in processes.iter() {
                let _gone = kill(*process, Signal::SIGTERM);
            }
            for process in processes.iter() {
                end(*process);
            }
            remove(&watching.folder);
            std::process::exit(128 + number as i32);
        });
        // Nothing is started before the signals are watched; an error here means that they never will be.
        let _unwatched = until_ready.recv();
        started
    }

    /// Starts a process that an interrupted demo ends.
    pub(super) fn spawn(&self, command: &mut Command) -> std::io::Result<Child> {
        let mut processes = self.lock();
        // What a process that is interrupted forgets goes with the folder.
        let child = command.env("TMPDIR", &self.folder).spawn()?;
        processes.push(pid(&child));
        Ok(child)
    }

    /// The process was waited for: its number may be another's now.
    pub(super) fn forget(&self, child: &Child) {
        self.lock().retain(|process| *process != pid(child));
    }

    /// Waits here for ever when the demo is being interrupted: the end is the watcher's then.
    pub(super) fn settle(&self) {
        drop(self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("invariant: the kernel's process numbers are positive"))
}

/// Removes the folder. What a process of ours started in turn may write there for a moment longer.
fn remove(folder: &Path) {
    let began = Instant::now();
    while let Err(error) = fs_err::remove_dir_all(folder) {
        if error.kind() == std::io::ErrorKind::NotFound || began.elapsed() >= PATIENCE {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for a process that was told to end, and kills it when it does not.
fn end(process: Pid) {
    let began = Instant::now();
    loop {
        match waitpid(process, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(WaitStatus::StillAlive) => {
                let _gone = kill(process, Signal::SIGKILL);
                let _reaped = waitpid(process, None);
                return;
            }
            Err(Errno::EINTR) => {}
            _ => return,
        }
    }
}
