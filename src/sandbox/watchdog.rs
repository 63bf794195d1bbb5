//! The sampling of memory, processes and processor time, for hosts whose controllers can't be written.
//!
//! It runs in the jail's init, whose `/proc` lists the processes of the run and no others.

use std::io::Read as _;
use std::time::{Duration, Instant};

use fs_err as fs;

use super::outcome::Limit;
use super::wire::{Launch, Sampled, Watch};

const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// A sample may take this part of the time, no more.
const SHARE: u32 = 20;
/// How long a run may sit at its process limit before it is taken for one that forks without end.
pub(crate) const PINNED: Duration = Duration::from_secs(2);

/// Samples a run.
pub(crate) struct Watchdog {
    watch: Watch,
    memory_bytes: u64,
    processes: u64,
    cpu_ticks: u64,
    page: u64,
    seen: Sampled,
    pinned_since: Option<Instant>,
    pause: Duration,
    buffer: Vec<u8>,
}

impl Watchdog {
    /// Makes one if anything is to be watched.
    pub(crate) fn new(launch: &Launch) -> Option<Self> {
        let watch = launch.watch;
        if !(watch.memory || watch.processes || watch.cpu) {
            return None;
        }
        let limits = &launch.policy.limits;
        let budget_ms = u128::from(limits.wall_ms) * u128::from(limits.cpu_percent) / 100;
        let ticks = budget_ms * u128::from(rustix::param::clock_ticks_per_second()) / 1000;
        Some(Self {
            watch,
            memory_bytes: limits.memory_bytes,
            processes: limits.processes,
            cpu_ticks: u64::try_from(ticks).unwrap_or(u64::MAX),
            page: rustix::param::page_size() as u64,
            seen: Sampled::default(),
            pinned_since: None,
            pause: SHORTEST_PAUSE,
            buffer: Vec::with_capacity(4096),
        })
    }

    pub(crate) fn seen(&self) -> Sampled {
        self.seen
    }

    /// How long to wait before the next sample.
    pub(crate) fn pause(&self) -> Duration {
        self.pause
    }

    /// Looks once; says which limit is reached.
    pub(crate) fn sample(&mut self) -> Option<Limit> {
        let started = Instant::now();
        let reached = self.look(started);
        self.pause = (started.elapsed() * SHARE).max(SHORTEST_PAUSE);
        reached
    }

    fn look(&mut self, now: Instant) -> Option<Limit> {
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc").ok()?.flatten() {
            if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) {
                pids.push(pid);
            }
        }
        let (mut resident, mut tasks, mut ticks) = (0, 0, 0);
        for pid in &pids {
            let Some(stat) = self.read(&format!("/proc/{pid}/stat")).and_then(parse_stat) else { continue };
            ticks += stat.ticks;
            if *pid != 1 {
                resident += stat.resident_pages * self.page;
                tasks += stat.threads;
            }
        }
        let mut memory = resident + self.shared_segments();
        if memory > self.memory_bytes {
            // Pages of files are counted in every process that maps them, and can be dropped: look closer.
            memory = self.shared_segments()
                + pids.iter().filter(|pid| **pid != 1).map(|pid| self.own_memory(*pid)).sum::<u64>();
        }
        self.seen.peak_memory_bytes = self.seen.peak_memory_bytes.max(memory);
        if self.watch.memory && memory > self.memory_bytes {
            return Some(Limit::Memory);
        }
        if self.watch.cpu && self.cpu_ticks > 0 && ticks > self.cpu_ticks {
            return Some(Limit::Cpu);
        }
        if self.watch.processes && tasks >= self.processes {
            self.seen.at_process_limit = true;
            let since = *self.pinned_since.get_or_insert(now);
            return (now.duration_since(since) >= PINNED).then_some(Limit::Processes);
        }
        self.pinned_since = None;
        None
    }

    fn read(&mut self, path: &str) -> Option<&str> {
        self.buffer.clear();
        fs::File::open(path).ok()?.take(64 * 1024).read_to_end(&mut self.buffer).ok()?;
        // A program's name may be any bytes; the fields behind it are not.
        let from = self.buffer.iter().rposition(|byte| *byte == b')').map_or(0, |at| at + 1);
        std::str::from_utf8(&self.buffer[from..]).ok()
    }

    /// System V segments, which need no process to be there.
    fn shared_segments(&mut self) -> u64 {
        let Some(table) = self.read("/proc/sysvipc/shm") else { return 0 };
        let bytes =
            |line: &str| line.split_ascii_whitespace().nth(14).and_then(|rss| rss.parse::<u64>().ok());
        table.lines().skip(1).filter_map(bytes).sum()
    }

    /// Anonymous and shared memory of a process; files it maps don't count.
    fn own_memory(&mut self, pid: u32) -> u64 {
        self.read(&format!("/proc/{pid}/status")).map_or(0, |status| {
            let kib =
                |line: &str| line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
            status
                .lines()
                .filter(|line| line.starts_with("RssAnon:") || line.starts_with("RssShmem:"))
                .filter_map(kib)
                .map(|kib| kib * 1024)
                .sum()
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Processor time, with that of reaped children.
    ticks: u64,
    threads: u64,
    resident_pages: u64,
}

/// Reads the fields behind the program's name.
fn parse_stat(fields: &str) -> Option<Stat> {
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Stat { ticks, threads: number(17)?, resident_pages: number(21)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_name() {
        let line =
            " R 1 7 7 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 5 0 999 1000000 250 18446744073709551615 1 1";
        assert_eq!(parse_stat(line), Some(Stat { ticks: 127, threads: 5, resident_pages: 250 }));
        assert_eq!(parse_stat(" R 1"), None);
    }
}
