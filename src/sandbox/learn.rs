//! Learning runs: what a run is refused is told, so that an author finds out at home why a package fails.
//!
//! The program's process loads a filter that reports what the ordinary one refuses, and the calls that name paths or
//! addresses; a thread of ours answers each report just as the ordinary filter would. So a learning run lets nothing more through,
//! and holds no less when that thread is gone: the kernel refuses what nobody answers.
//!
//! What is told is for people, and no verdict rests on it. A path is read from the memory of the program, which can
//! change it a moment later, and whether a write to it would be refused is worked out from mounts and file modes, not
//! from what the kernel answered.

mod detail;
mod look;
mod reach;
mod serve;

use std::collections::HashMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::filter;
use super::ring::printable_line;
pub(crate) use serve::{Facts, Learning};

/// How many different calls, and how many different paths, are listed.
const MOST: usize = 256;

/// What a learning run was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// The calls that the filter refused, in the order of their first time; at most 256.
    pub calls: Vec<RefusedCall>,
    /// The paths that mounts, masks or modes refused, in the order of their first time; at most 256.
    pub paths: Vec<RefusedPath>,
    /// The addresses that are out of reach, in the order of their first time; at most 256.
    pub addresses: Vec<RefusedAddress>,
    /// How many refusals are in no list because the lists were full.
    pub left_out: u64,
    /// How many calls name a path or an address that couldn't be read or looked up.
    pub unread: u64,
}

/// A call that the filter refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedCall {
    /// Its name as the manual has it; for one without a name `call` and its number.
    pub name: String,
    /// Its number on this architecture.
    pub number: u32,
    /// What of its arguments made the difference, where there is something to say.
    pub detail: Option<String>,
    /// The error number that it was answered.
    pub errno: i32,
    /// How often.
    pub times: u64,
}

/// A path that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPath {
    /// The path inside, control characters escaped and `.` and `..` taken out.
    pub path: String,
    /// The name of the call.
    pub call: String,
    /// Why.
    pub why: PathRefusal,
    /// How often.
    pub times: u64,
}

/// An address that is out of reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedAddress {
    /// Address and port.
    pub address: SocketAddr,
    /// The name of the call: `connect` or `bind`.
    pub call: String,
    /// Why.
    pub why: AddressRefusal,
    /// How often.
    pub times: u64,
}

/// Why an address is out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressRefusal {
    /// No network leads there.
    NoNetwork,
    /// Landlock shuts this port for TCP; UDP isn't held by it.
    Landlock,
    /// A port below 1024.
    LowPort,
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathRefusal {
    /// It lies on a read-only mount.
    ReadOnly,
    /// It is a masked part of `/proc`: it reads as empty, and what is written to it is lost.
    Masked,
    /// Its owner and mode don't allow it.
    NoPermission,
    /// Landlock allows no writing there.
    Landlock,
    /// Nothing is executed from that mount.
    NoExec,
}

impl Learned {
    /// Gives it in words: a line for each refusal, with what helps. Empty when nothing was refused.
    #[must_use]
    pub fn in_words(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.calls.iter().map(RefusedCall::in_words).collect();
        lines.extend(self.paths.iter().map(RefusedPath::in_words));
        lines.extend(self.addresses.iter().map(RefusedAddress::in_words));
        if self.left_out > 0 {
            lines.push(format!("{} further refusals are not listed", self.left_out));
        }
        if self.unread > 0 {
            lines.push(format!("{} calls name paths or addresses that could not be looked at", self.unread));
        }
        lines
    }
}

impl RefusedCall {
    fn in_words(&self) -> String {
        let detail = self.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let answer = detail::error_name(self.errno);
        format!("{}{detail} ×{}: refused with {answer}; {}", self.name, self.times, self.hint())
    }

    /// What helps, or that nothing does.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        let detail = self.detail.as_deref().unwrap_or_default();
        match self.name.as_str() {
            "chroot" => "the grant SYS_CHROOT allows it",
            "socket" | "socketpair" if detail.starts_with("AF_INET") && detail.contains("SOCK_RAW") => {
                "the grant NET_RAW allows it"
            }
            "socket" | "socketpair" => {
                "no grant gives it; there are UNIX sockets, TCP, UDP and ping of IPv4 and IPv6, and routing netlink"
            }
            "clone3" => "harmless: C libraries go on with clone",
            "mmap" | "fcntl" | "prctl" | "memfd_create" | "shmget" | "msgget" | "semget" | "vmsplice" => {
                "memory that outlives its mappings is not to be had where memory is watched by sampling; a host with a \
                 memory controller allows it"
            }
            "open" | "openat" | "creat" | "chmod" | "fchmod" | "fchmodat" | "fchmodat2" | "mknod"
            | "mknodat" => "no grant gives setuid and setgid bits; leave them out of the mode",
            _ if self.errno == nix::libc::ENOSYS => "programs go on as on a kernel that has no such call",
            _ => "no grant gives it",
        }
    }
}

impl RefusedPath {
    fn in_words(&self) -> String {
        let (why, hint) = match self.why {
            PathRefusal::ReadOnly => ("read-only", "write below /tmp or bind a directory"),
            PathRefusal::Masked => ("masked", "it reads as empty, and nothing unmasks it"),
            PathRefusal::NoPermission => {
                ("no permission", "the program's id may not; see the file's owner and mode")
            }
            PathRefusal::Landlock => ("shut by Landlock", "write below /tmp or bind a directory"),
            PathRefusal::NoExec => ("not executable there", "execute from the root or a bound directory"),
        };
        format!("{}: {why} ({} ×{}); {hint}", self.path, self.call, self.times)
    }
}

impl RefusedAddress {
    fn in_words(&self) -> String {
        let (why, hint) = match (self.why, self.call.as_str()) {
            (AddressRefusal::NoNetwork, _) => {
                ("no network leads there", "the policy has to name a network that does")
            }
            (AddressRefusal::Landlock, "bind") => {
                ("shut for TCP", "the grant NET_BIND_SERVICE lets it listen in a network of its own")
            }
            (AddressRefusal::Landlock, _) => {
                ("shut for TCP", "only the ports that the policy names are open")
            }
            (AddressRefusal::LowPort, _) => {
                ("a port below 1024", "take a higher one, or the grant NET_BIND_SERVICE")
            }
        };
        format!("{}: {why} ({} ×{}); {hint}", self.address, self.call, self.times)
    }
}

/// Collects refusals within bounds.
#[derive(Debug, Default)]
struct Book {
    learned: Learned,
    calls: HashMap<(u32, i32, Option<String>), usize>,
    paths: HashMap<(String, u32, PathRefusal), usize>,
    addresses: HashMap<(SocketAddr, u32, AddressRefusal), usize>,
}

impl Book {
    fn note_call(&mut self, number: u32, errno: i32, detail: Option<String>) {
        let key = (number, errno, detail);
        if let Some(index) = self.calls.get(&key) {
            self.learned.calls[*index].times += 1;
        } else if self.learned.calls.len() == MOST {
            self.learned.left_out += 1;
        } else {
            let detail = key.2.clone();
            self.calls.insert(key, self.learned.calls.len());
            self.learned.calls.push(RefusedCall { name: name_of(number), number, detail, errno, times: 1 });
        }
    }

    fn note_path(&mut self, number: u32, path: &[u8], why: PathRefusal) {
        let key = (printable_line(path), number, why);
        if let Some(index) = self.paths.get(&key) {
            self.learned.paths[*index].times += 1;
        } else if self.learned.paths.len() == MOST {
            self.learned.left_out += 1;
        } else {
            let path = key.0.clone();
            self.paths.insert(key, self.learned.paths.len());
            self.learned.paths.push(RefusedPath { path, call: name_of(number), why, times: 1 });
        }
    }

    fn note_address(&mut self, number: u32, address: SocketAddr, why: AddressRefusal) {
        let key = (address, number, why);
        if let Some(index) = self.addresses.get(&key) {
            self.learned.addresses[*index].times += 1;
        } else if self.learned.addresses.len() == MOST {
            self.learned.left_out += 1;
        } else {
            self.addresses.insert(key, self.learned.addresses.len());
            self.learned.addresses.push(RefusedAddress { address, call: name_of(number), why, times: 1 });
        }
    }
}

fn name_of(number: u32) -> String {
    filter::name(number).map_or_else(|| format!("call {number}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_have_an_end_and_what_is_beyond_is_counted() {
        let mut book = Book::default();
        for turn in 0..10_000_u32 {
            book.note_call(41, 1, Some(format!("family {turn}")));
            book.note_path(2, format!("/{turn}").as_bytes(), PathRefusal::ReadOnly);
        }
        book.note_call(41, 1, Some("family 0".to_owned()));
        book.note_path(2, b"/255", PathRefusal::ReadOnly);
        let learned = book.learned;
        assert_eq!((learned.calls.len(), learned.paths.len()), (MOST, MOST));
        assert_eq!((learned.calls[0].times, learned.paths[255].times), (2, 2));
        assert_eq!(learned.left_out, 2 * (10_000 - 256));
        assert!(learned.in_words().last().is_some_and(|line| line.starts_with("19488 further")));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn each_refusal_is_told_with_what_helps() {
        let mut book = Book::default();
        book.note_call(101, 1, None);
        book.note_call(101, 1, None);
        book.note_call(161, 1, None);
        book.note_call(41, 1, Some("AF_INET, SOCK_RAW, protocol 1".to_owned()));
        book.note_call(999, 38, None);
        book.note_path(257, b"/etc/\x1b[2Jfoo\n", PathRefusal::ReadOnly);
        assert_eq!(
            book.learned.in_words(),
            [
                "ptrace ×2: refused with EPERM; no grant gives it",
                "chroot ×1: refused with EPERM; the grant SYS_CHROOT allows it",
                "socket (AF_INET, SOCK_RAW, protocol 1) ×1: refused with EPERM; the grant NET_RAW allows it",
                "call 999 ×1: refused with ENOSYS; programs go on as on a kernel that has no such call",
                "/etc/\\u{1b}[2Jfoo\\u{a}: read-only (openat ×1); write below /tmp or bind a directory",
            ]
        );
        assert_eq!(Learned::default().in_words(), Vec::<String>::new());
    }
}
