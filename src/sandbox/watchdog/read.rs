//! What the files of `/proc` say, and how they are read: none is trusted to be short.

use std::collections::BTreeSet;
use std::io::{self, Read as _};

use fs_err as fs;
use nix::libc;

/// Beyond this no file that is read here says anything new.
const MOST_BYTES: u64 = 64 * 1024;

/// The processes that there are.
pub(super) fn pids() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// What of a process's pages is its own: those that several share are divided among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Bytes(u64),
    /// It has ended.
    Gone,
    /// It lets nobody look.
    Hidden,
}

/// Reads files into one buffer, which is kept.
pub(super) struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { buffer: Vec::with_capacity(4096) }
    }

    fn open_and_read(&mut self, path: &str) -> io::Result<()> {
        self.buffer.clear();
        fs::File::open(path)?.take(MOST_BYTES).read_to_end(&mut self.buffer).map(|_| ())
    }

    fn read(&mut self, path: &str, behind_name: bool) -> Option<&str> {
        self.open_and_read(path).ok()?;
        self.text(behind_name)
    }

    /// What was read, from behind a program's name in brackets if there is one: it may be any bytes.
    fn text(&self, behind_name: bool) -> Option<&str> {
        let from = if behind_name {
            self.buffer.iter().rposition(|byte| *byte == b')').map_or(0, |at| at + 1)
        } else {
            // `Name:` has the program's name, with newlines escaped.
            self.buffer.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1)
        };
        std::str::from_utf8(&self.buffer[from..]).ok()
    }

    pub(super) fn stat(&mut self, pid: u32) -> Option<Stat> {
        self.read(&format!("/proc/{pid}/stat"), true).and_then(parse_stat)
    }

    /// The status of a process, with the thread by which it is seen: once its first thread has ended, that one has
    /// neither memory nor descriptors any more, while the others go on with both.
    pub(super) fn status(&mut self, pid: u32) -> Option<(u32, Status)> {
        let status = self.read(&format!("/proc/{pid}/status"), false).map(parse_status)?;
        if status.tables > 0 || status.threads < 2 {
            return Some((pid, status));
        }
        for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
            let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let seen = self.read(&format!("/proc/{thread}/status"), false).map(parse_status);
            if let Some(seen) = seen.filter(|seen| seen.tables > 0) {
                return Some((thread, seen));
            }
        }
        Some((pid, status))
    }

    /// What of a process's pages is its own share.
    pub(super) fn share(&mut self, pid: u32) -> Share {
        match self.open_and_read(&format!("/proc/{pid}/smaps_rollup")) {
            Ok(()) => {
                let text = self.text(false).and_then(parse_rollup);
                text.map_or(Share::Hidden, Share::Bytes)
            }
            Err(error) => match error.raw_os_error() {
                // Its memory is no more, whether or not somebody still has to reap it.
                Some(libc::ENOENT | libc::ESRCH) => Share::Gone,
                _ => Share::Hidden,
            },
        }
    }

    /// Sockets of this network namespace, also those that are under way in a message.
    pub(super) fn sockets(&mut self) -> Option<u64> {
        self.open_and_read("/proc/self/net/sockstat").ok()?;
        parse_sockstat(std::str::from_utf8(&self.buffer).ok()?)
    }
}

/// What open descriptors stand for, each counted once however many processes have it.
#[derive(Default)]
pub(super) struct Descriptors {
    pub(super) pipes: BTreeSet<String>,
    pub(super) sockets: BTreeSet<String>,
    /// Slots of the tables of processes that let nobody look.
    pub(super) hidden: u64,
}

impl Descriptors {
    pub(super) fn add(&mut self, pid: u32, slots: u64) {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            self.hidden += slots;
            return;
        };
        for entry in entries.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let Some(target) = target.to_str() else { continue };
            if target.starts_with("pipe:[") {
                self.pipes.insert(target.to_owned());
            } else if target.starts_with("socket:[") {
                self.sockets.insert(target.to_owned());
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Processor time, with that of reaped children.
    pub(super) ticks: u64,
    pub(super) threads: u64,
}

/// Reads the fields behind the program's name.
fn parse_stat(fields: &str) -> Option<Stat> {
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Stat { ticks, threads: number(17)? })
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Anonymous and shared pages, wherever they are; files that it maps don't count.
    pub(super) pages: u64,
    /// Those of them that no process has twice.
    pub(super) anonymous: u64,
    /// What the kernel keeps to find them: also a page that is never written needs it.
    pub(super) tables: u64,
    /// Slots of its table of descriptors.
    pub(super) slots: u64,
    threads: u64,
}

fn parse_status(text: &str) -> Status {
    let mut status = Status::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(key), Some(Ok(value))) = (words.next(), words.next().map(str::parse::<u64>)) else {
            continue;
        };
        match key {
            "RssAnon:" | "VmSwap:" => {
                status.pages += value * 1024;
                status.anonymous += value * 1024;
            }
            "RssShmem:" => status.pages += value * 1024,
            "VmPTE:" | "HugetlbPages:" => status.tables += value * 1024,
            "FDSize:" => status.slots = value,
            "Threads:" => status.threads = value,
            _ => {}
        }
    }
    status
}

fn parse_rollup(text: &str) -> Option<u64> {
    let mut share = None;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some("Pss_Anon:" | "Pss_Shmem:" | "SwapPss:"), Some(Ok(kib))) =
            (words.next(), words.next().map(str::parse::<u64>))
        {
            share = Some(share.unwrap_or(0) + kib * 1024);
        }
    }
    share
}

fn parse_sockstat(text: &str) -> Option<u64> {
    text.lines().next()?.strip_prefix("sockets: used ")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_name() {
        let line =
            " R 1 7 7 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 5 0 999 1000000 250 18446744073709551615 1 1";
        assert_eq!(parse_stat(line), Some(Stat { ticks: 127, threads: 5 }));
        assert_eq!(parse_stat(" R 1"), None);
    }

    #[test]
    fn a_status_is_summed_without_files() {
        let text = "FDSize:\t256\nVmPTE:\t 40 kB\nVmSwap:\t 1 kB\nHugetlbPages:\t 2048 kB\nRssAnon:\t 100 kB\nRssFile:\t 900 kB\nRssShmem:\t 3 kB\nThreads:\t2\n";
        assert_eq!(
            parse_status(text),
            Status { pages: 104 * 1024, anonymous: 101 * 1024, tables: 2088 * 1024, slots: 256, threads: 2 }
        );
        assert_eq!(parse_status(""), Status::default());
    }

    #[test]
    fn a_share_is_that_of_memory_and_not_of_files() {
        let text =
            "Rss: 99 kB\nPss: 50 kB\nPss_Anon: 7 kB\nPss_File: 40 kB\nPss_Shmem: 3 kB\nSwapPss: 1 kB\n";
        assert_eq!(parse_rollup(text), Some(11 * 1024));
        assert_eq!(parse_rollup("Rss: 9 kB\n"), None);
    }

    #[test]
    fn sockets_are_on_the_first_line() {
        assert_eq!(parse_sockstat("sockets: used 12\nTCP: inuse 0\n"), Some(12));
        assert_eq!(parse_sockstat(""), None);
    }
}
