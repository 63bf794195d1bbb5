//! The sampling of memory, processes and processor time, for hosts whose controllers can't be written.
//!
//! It runs in the jail's init, whose `/proc` lists the processes of the run and no others. It sees the pages that
//! processes have, their page tables, and what sockets and pipes could hold; the filter leaves out what it could not
//! see. What it can't read it counts as the most that it could be, and when it can't look at all the run ends.

mod looks;
mod read;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::libc;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use self::looks::{Judgement, Looks, Part};
use self::read::{Descriptors, Reader, Share};
use super::error::{Fault, Step as _};
use super::outcome::Limit;
use super::sys;
use super::wire::{Launch, Sampled, Watch};

const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// A sample may take this part of the time, no more …
const SHARE: u32 = 20;
/// … unless that left too much time to a program which makes samples slow.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How long a run may sit at its process limit before it is taken for one that forks without end.
pub(crate) const PINNED: Duration = Duration::from_secs(2);
/// In what `/proc` counts processor time; the same on every architecture that we build for. Before 6.4 the kernel tells it
/// in a file only, which the init, whose memory is shut, can't read.
const TICKS_PER_SECOND: u128 = 100;
/// What a pipe holds; the filter denies to make one larger.
const PIPE_BYTES: u64 = 64 * 1024;
/// The smallest table of descriptors: as few aren't worth a look.
const FEW_SLOTS: u64 = 64;

/// Ourselves.
const INIT: u32 = 1;
/// How often one look asks for processes that were born while others ended.
const ROUNDS: u32 = 2;

/// Samples a run.
pub(crate) struct Watchdog {
    watch: Watch,
    memory_bytes: u64,
    processes: u64,
    cpu_ticks: u64,
    /// What a socket can hold for its peer.
    socket_bytes: u64,
    /// Whether the sockets of the network namespace are all of this run.
    own_network: bool,
    seen: Sampled,
    pinned_since: Option<Instant>,
    pause: Duration,
    reader: Reader,
}

impl Watchdog {
    /// Makes one if anything is to be watched.
    pub(crate) fn new(launch: &Launch) -> Result<Option<Self>, Fault> {
        let watch = launch.watch;
        if !(watch.memory || watch.processes || watch.cpu) {
            return Ok(None);
        }
        let limits = &launch.policy.limits;
        let budget_ms = u128::from(limits.wall_ms) * u128::from(limits.cpu_percent) / 100;
        let ticks = budget_ms * TICKS_PER_SECOND / 1000;
        Ok(Some(Self {
            watch,
            memory_bytes: limits.memory_bytes,
            processes: limits.processes,
            cpu_ticks: u64::try_from(ticks).unwrap_or(u64::MAX),
            socket_bytes: socket_bytes()?,
            own_network: launch.policy.has_own_network(),
            seen: Sampled::default(),
            pinned_since: None,
            pause: SHORTEST_PAUSE,
            reader: Reader::new(),
        }))
    }

    pub(crate) fn seen(&self) -> Sampled {
        self.seen
    }

    /// How long to wait before the next sample.
    pub(crate) fn pause(&self) -> Duration {
        self.pause
    }

    /// Looks once; says which limit is reached. A fault is that nothing could be seen.
    pub(crate) fn sample(&mut self) -> Result<Option<Limit>, Fault> {
        let started = Instant::now();
        let reached = self.look(started);
        self.pause = (started.elapsed() * SHARE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        reached
    }

    fn look(&mut self, now: Instant) -> Result<Option<Limit>, Fault> {
        let (mut tasks, mut ticks) = (0, 0);
        for pid in pids()? {
            let Some(stat) = self.reader.stat(pid) else { continue };
            ticks += stat.ticks;
            if pid != INIT {
                tasks += stat.threads;
            }
        }
        if self.watch.memory && self.memory_is_over()? {
            return Ok(Some(Limit::Memory));
        }
        if self.watch.cpu && self.cpu_ticks > 0 && ticks > self.cpu_ticks {
            return Ok(Some(Limit::Cpu));
        }
        if self.watch.processes && tasks >= self.processes {
            self.seen.at_process_limit = true;
            let since = *self.pinned_since.get_or_insert(now);
            return Ok((now.duration_since(since) >= PINNED).then_some(Limit::Processes));
        }
        self.pinned_since = None;
        Ok(None)
    }

    fn memory_is_over(&mut self) -> Result<bool, Fault> {
        let (mut used, mut largest) = (0, 0);
        let mut open = Descriptors::default();
        for_each_process(|pid, _| {
            let Some((seen_by, status)) = self.reader.status(pid) else { return Met::Vanished };
            used += status.pages + status.tables;
            largest = largest.max(status.anonymous + status.tables);
            if status.slots > FEW_SLOTS || !self.own_network {
                open.add(seen_by, status.slots);
            }
            Met::Seen
        })?;
        let buffers = self.buffers(&open);
        let mut over = largest + buffers > self.memory_bytes;
        if over {
            // One process alone had it all at one moment: nothing can be counted twice.
            used = largest;
        } else if used + buffers > self.memory_bytes {
            // A page that forks share is counted in each of them so far, and an address space in each process that
            // has it: look closer, which takes its time.
            let mut looks = Looks::new(self.memory_bytes.saturating_sub(buffers));
            (used, over) = loop {
                match looks.judge(self.look_closer()?) {
                    Judgement::Within(used) => break (used, false),
                    Judgement::Over(used) => break (used, true),
                    Judgement::LookAgain => {}
                }
            };
        }
        // What buffers could hold is no use of memory, unless it ends the run.
        let used = used + if over { buffers } else { 0 };
        self.seen.peak_memory_bytes = self.seen.peak_memory_bytes.max(used);
        Ok(over)
    }

    /// The processes with what each has of the memory: of pages that several share a share each, and an address space
    /// that several have once.
    fn look_closer(&mut self) -> Result<Vec<Part>, Fault> {
        let mut parts: Vec<Part> = Vec::new();
        for_each_process(|pid, round| {
            let Some((pid, status)) = self.reader.status(pid) else { return Met::Vanished };
            if parts.iter().any(|part| sys::same_memory(part.pid, pid)) {
                return Met::Seen;
            }
            let bytes = match self.reader.share(pid) {
                Share::Bytes(pages) => pages + status.tables,
                Share::Hidden => status.pages + status.tables,
                Share::Gone if status.pages == 0 => return Met::Seen,
                Share::Gone if round < ROUNDS => return Met::Vanished,
                // Nobody looks any more who may have it now.
                Share::Gone => status.pages,
            };
            parts.push(Part { pid, bytes });
            Met::Seen
        })?;
        Ok(parts)
    }

    /// What sockets and pipes hold at the most.
    fn buffers(&mut self, open: &Descriptors) -> u64 {
        let listed = open.sockets.len() as u64;
        let sockets = if self.own_network { self.reader.sockets().unwrap_or(listed) } else { listed };
        // A pipe has two ends.
        let pipes = open.pipes.len() as u64 + open.hidden / 2;
        sockets * self.socket_bytes + pipes * PIPE_BYTES
    }
}

/// How it went with a process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Met {
    Seen,
    /// It ended before it could be looked at.
    Vanished,
}

/// Looks at every process but the init. While some vanish, those that were born meanwhile have their turn too, in the next
/// round: memory can't hide by being handed on to a child.
fn for_each_process(mut meet: impl FnMut(u32, u32) -> Met) -> Result<(), Fault> {
    let mut known = BTreeSet::from([INIT]);
    for round in 1..=ROUNDS {
        let mut vanished = false;
        for pid in pids()? {
            vanished |= known.insert(pid) && meet(pid, round) == Met::Vanished;
        }
        if !vanished {
            break;
        }
    }
    Ok(())
}

fn pids() -> Result<Vec<u32>, Fault> {
    read::pids().map_err(|error| Fault {
        step: "list the processes".to_owned(),
        errno: error.raw_os_error().unwrap_or(libc::EIO),
    })
}

/// Asks a fresh socket; the filter ignores wishes for more. A last message goes in while there is any room, so that
/// twice as much can be held.
fn socket_bytes() -> Result<u64, Fault> {
    let step = "measure a socket";
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .step(step)?;
    Ok(2 * rustix::net::sockopt::socket_send_buffer_size(&socket).step(step)? as u64)
}
