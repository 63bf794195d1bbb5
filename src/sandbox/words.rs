//! Policies, receipts and ends in words: the same sentences wherever people read them.
//!
//! What comes from outside (paths, arguments, names) is shown with its control characters escaped, and not at any
//! length.

use std::path::Path;

use nix::sys::signal::Signal;

use super::grant::Grant;
use super::network::{Serve, Server};
use super::outcome::{End, Limit};
use super::policy::{Network, Policy, Require, Stdio};
use super::receipt::{Enforced, EnforcedLimits, Enforcement, OwnExecutable, Receipt};

/// The most characters of one foreign text.
const LONGEST: usize = 200;

impl Policy {
    /// What is run and what it may, a short sentence a line. Of the environment the names alone are told.
    #[must_use]
    pub fn in_words(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "Runs {} in {} on host {}.",
            command(&self.argv),
            path(&self.cwd),
            shown(&self.hostname)
        )];
        lines.push(match self.root.as_slice() {
            [] => "Its root is empty.".to_owned(),
            [only] => format!("Its root is {}, read-only.", path(only)),
            layers => {
                let names: Vec<String> = layers.iter().map(|layer| path(layer)).collect();
                format!(
                    "Its root is {} layers, read-only, the lowest first: {}.",
                    layers.len(),
                    names.join(", ")
                )
            }
        });
        for input in &self.inputs {
            lines.push(format!("Reads {}, which is {} outside.", path(&input.at), path(&input.host)));
        }
        for data in &self.data {
            lines.push(format!("Writes {}, which is {} outside.", path(&data.at), path(&data.host)));
        }
        for scratch in &self.tmpfs {
            let room = room(scratch.size_bytes, scratch.inodes);
            lines.push(format!("Writes {}: {room} in memory, gone at the end.", path(&scratch.at)));
        }
        for output in &self.outputs {
            let (at, room) = (path(&output.at), room(output.size_bytes, output.inodes));
            lines.push(format!("Leaves {at}: {room}, copied to {} at the end.", path(&output.into)));
        }
        lines.extend(network(&self.network));
        lines.push(self.who());
        lines.push(granted(&self.grants));
        if self.emulates_ownership() {
            lines.push("Is told that a file's owner changed when nothing did.".to_owned());
        }
        lines.push(match self.env.len() {
            0 => "Has no environment.".to_owned(),
            _ => format!(
                "Has the variables {}.",
                self.env.keys().map(|name| shown(name)).collect::<Vec<_>>().join(", ")
            ),
        });
        lines.push(self.may_use());
        lines.extend(required(self.require));
        lines
    }

    fn who(&self) -> String {
        let identity = &self.identity;
        let outside = match (identity.host_base, identity.host_group) {
            (Some(id), Some(group)) => format!("user {id} and group {group}, where started by root"),
            (Some(id), None) => format!("user {id}, where started by root"),
            (None, _) => "an id that owns nothing, or the caller's own".to_owned(),
        };
        format!("Is user {} and group {}; outside {outside}.", identity.uid, identity.gid)
    }

    fn may_use(&self) -> String {
        let limits = &self.limits;
        let mut parts = vec![
            format!("{} of memory", bytes(limits.memory_bytes)),
            count(limits.processes, "process", "processes"),
            cpus(limits.cpu_percent.into()),
            if limits.wall_ms == 0 {
                "unlimited time".to_owned()
            } else {
                format!("{} of time", time(limits.wall_ms))
            },
            format!("{} open files a process", limits.open_files),
            format!("{} a file", bytes(limits.file_size_bytes)),
        ];
        if self.stdio == Stdio::Captured {
            parts.push(format!("{} of output", bytes(limits.output_total_bytes)));
        }
        format!("May use {}.", parts.join(", "))
    }
}

impl Receipt {
    /// What really held a run, a short sentence a line.
    #[must_use]
    pub fn in_words(&self) -> Vec<String> {
        let limits = &self.limits;
        let peak = self.peak_memory_bytes.map(|peak| format!("; it used up to {}", bytes(peak)));
        let mut lines = vec![
            format!(
                "Memory: {}, {}{}.",
                bytes(limits.memory.limit),
                by(limits.memory),
                peak.unwrap_or_default()
            ),
            format!("Processes: {}, {}.", limits.processes.limit, by(limits.processes)),
            format!("Processor: {}, {}.", cpus(limits.cpu.limit), by(limits.cpu)),
            match limits.wall.limit {
                0 => "Time: unlimited.".to_owned(),
                ms => format!("Time: {}, {}.", time(ms), by(limits.wall)),
            },
            format!("Open files: {} a process, {}.", limits.open_files.limit, by(limits.open_files)),
            format!("File size: {}, {}.", bytes(limits.file_size.limit), by(limits.file_size)),
        ];
        lines.push(match limits.output.limit {
            u64::MAX => "Output: unlimited.".to_owned(),
            most => format!("Output: {}, {}.", bytes(most), by(limits.output)),
        });
        lines.push(self.kernel());
        let started = if self.root_mode { "by root" } else { "without root" };
        lines.push(format!("Started {started}; outside it was user {}.", self.host_uid));
        if !self.grants.is_empty() {
            lines.push(granted(&self.grants));
        }
        if self.ownership_emulated {
            lines.push("Changes of a file's owner were pretended.".to_owned());
        }
        lines.extend(self.notes.iter().map(|note| format!("Note: {}.", shown(note).trim_end_matches('.'))));
        lines
    }

    fn kernel(&self) -> String {
        let features = &self.features;
        let mut held = Vec::new();
        for (is, what) in [
            (features.user_namespace, "users of its own"),
            (features.network_namespace, "a network of its own"),
            (features.seccomp, "a filter of system calls"),
        ] {
            if is {
                held.push(what.to_owned());
            }
        }
        held.push(match features.landlock_abi {
            Some(abi) => format!("Landlock ABI {abi}"),
            None => "no Landlock".to_owned(),
        });
        if features.own_executable == Some(OwnExecutable::SealedCopy) {
            held.push("a sealed copy of Pantry".to_owned());
        }
        format!("Linux {}: {}.", shown(&self.kernel), held.join(", "))
    }
}

impl End {
    /// How a run ended, as the rest of a sentence; with the limits of its receipt or policy the value that was reached
    /// is named.
    #[must_use]
    pub fn in_words(self, limits: Option<&EnforcedLimits>) -> String {
        let of = |value: Option<String>| value.map(|value| format!(" of {value}")).unwrap_or_default();
        match self {
            Self::Exited(code) => format!("exited with {code}"),
            Self::Signaled(signal) => format!("was killed by {}", signal_name(signal)),
            Self::TimedOut => {
                let time =
                    limits.filter(|limits| limits.wall.limit > 0).map(|limits| time(limits.wall.limit));
                format!("ran out of its time{}", of(time))
            }
            Self::Cancelled => "was cancelled".to_owned(),
            Self::Denied => "was killed by the filter of system calls".to_owned(),
            Self::LimitHit(limit) => match limit {
                Limit::Memory => {
                    format!("hit its limit of memory{}", of(limits.map(|limits| bytes(limits.memory.limit))))
                }
                Limit::Processes => {
                    format!(
                        "hit its limit of processes{}",
                        of(limits.map(|limits| limits.processes.limit.to_string()))
                    )
                }
                Limit::Output => {
                    format!("hit its limit of output{}", of(limits.map(|limits| bytes(limits.output.limit))))
                }
                Limit::Files => "hit a limit of its output directories".to_owned(),
                Limit::Cpu => format!(
                    "hit its limit of processor time{}",
                    of(limits.map(|limits| cpus(limits.cpu.limit)))
                ),
            },
        }
    }
}

fn network(network: &Network) -> Vec<String> {
    match network {
        Network::None => vec!["Has no network.".to_owned()],
        Network::Service => {
            vec!["Has a network of its own, into which whoever starts it puts what it reaches.".to_owned()]
        }
        Network::Host => vec!["Uses the host's network.".to_owned()],
        Network::Socket { servers } => {
            let one = |server: &Server| {
                let leads = match &server.serve {
                    Serve::Proxy { allow } => {
                        let hosts: Vec<String> =
                            allow.iter().map(|host| shown(&format!("{}:{}", host.host, host.port))).collect();
                        format!("a proxy to {}", hosts.join(", "))
                    }
                    Serve::Service { name } => format!("the service {}", shown(name)),
                };
                format!("Reaches 127.0.0.1:{}, {leads}.", server.port)
            };
            let mut lines: Vec<String> = servers.iter().map(one).collect();
            lines.push("Has no other network.".to_owned());
            lines
        }
    }
}

fn granted(grants: &[Grant]) -> String {
    if grants.is_empty() {
        return "Is granted nothing.".to_owned();
    }
    let names: Vec<String> = grants.iter().map(ToString::to_string).collect();
    format!("Is granted {}.", names.join(", "))
}

fn required(require: Require) -> Option<String> {
    let asked = [
        ("memory", require.memory),
        ("processes", require.processes),
        ("cpu", require.cpu),
        ("time", require.wall),
    ];
    let asked: Vec<String> = asked
        .into_iter()
        .filter(|(_, by)| *by > Enforcement::None)
        .map(|(what, by)| format!("{what} by {by}"))
        .collect();
    (!asked.is_empty()).then(|| format!("Requires {}, or stronger.", asked.join(", ")))
}

/// What holds a limit.
fn by(enforced: Enforced) -> String {
    match enforced.enforced_by {
        Enforcement::None => "held by nothing".to_owned(),
        other => format!("held by {other}"),
    }
}

fn signal_name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

/// A command as a shell would take it, more or less.
fn command(argv: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    let word = |text: &String| {
        let text = shown(text);
        if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{text}'") }
    };
    cut(&argv.iter().map(word).collect::<Vec<_>>().join(" "))
}

fn path(path: &Path) -> String {
    shown(&path.to_string_lossy())
}

/// Foreign text, so that it can't drive a terminal.
fn shown(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(LONGEST + 1) {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    cut(&out)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn room(size: u64, inodes: u64) -> String {
    format!("{} in {inodes} files", bytes(size))
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Bytes in the largest unit that gives at least one.
fn bytes(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    if bytes == u64::MAX {
        return "any number of bytes".to_owned();
    }
    for (shift, unit) in UNITS {
        if bytes >> shift > 0 {
            let tenths = (u128::from(bytes) * 10) >> shift;
            let (whole, tenth) = (tenths / 10, tenths % 10);
            return if tenth == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") };
        }
    }
    format!("{bytes} bytes")
}

/// Hundredths of one CPU.
fn cpus(percent: u64) -> String {
    let unit = if percent <= 100 { "CPU" } else { "CPUs" };
    match (percent / 100, percent % 100) {
        (whole, 0) => format!("{whole} {unit}"),
        (whole, part) => format!("{} {unit}", format!("{whole}.{part:02}").trim_end_matches('0')),
    }
}

/// Milliseconds in the largest unit that they fill.
fn time(ms: u64) -> String {
    match ms {
        _ if ms.is_multiple_of(3_600_000) => format!("{} h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{} min", ms / 60_000),
        _ if ms.is_multiple_of(1000) => format!("{} s", ms / 1000),
        _ => format!("{ms} ms"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
