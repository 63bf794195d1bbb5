//! The options of `pantry run`, read into a policy that has no root and no program yet.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{mounts, refused};
use crate::cli::arguments::{Run, RunNetwork, RunTerminal};
use crate::cli::failure::Failure;
use crate::sandbox::{
    Enforcement, Grant, Identity, Limits, Network, Policy, Require, SeccompProfile, Stdio, Tmpfs,
};

const MIB: u64 = 1 << 20;
/// The scratch space where no size is named.
const SCRATCH: u64 = 64 * MIB;

/// What was asked for.
pub(super) struct Asked {
    /// All but the root and the program.
    pub(super) policy: Policy,
    /// The variables that were named, which go before those of the image.
    pub(super) env: BTreeMap<String, String>,
}

pub(super) fn parse(options: &Run) -> Result<Asked, Failure> {
    let mut policy = Policy::new(Vec::new(), Vec::new());
    policy.profile = SeccompProfile::Command;
    policy.stdio = match options.terminal {
        RunTerminal::Auto => Stdio::Terminal,
        RunTerminal::Never => Stdio::Inherit,
    };
    policy.limits = limits(options)?;
    policy.tmpfs.clear();
    for text in &options.tmpfs {
        policy.tmpfs.push(scratch(text, policy.limits.memory_bytes)?);
    }
    for text in &options.ro_bind {
        let (host, at) = bind("--ro-bind", text)?;
        policy = policy.input(host, at);
    }
    for text in &options.bind {
        let (host, at) = bind("--bind", text)?;
        policy = policy.data(host, at);
    }
    let own = |at: &PathBuf| at == Path::new("/tmp");
    let taken = policy.tmpfs.iter().any(|scratch| own(&scratch.at))
        || policy.data.iter().any(|data| own(&data.at))
        || policy.inputs.iter().any(|input| own(&input.at));
    if !taken {
        policy.tmpfs.push(tmpfs(PathBuf::from("/tmp"), SCRATCH.min(policy.limits.memory_bytes)));
    }
    let owner = owner(policy.data.iter().map(|data| data.host.as_path()))?;
    policy.identity.host_base = owner.map(|owner| owner.uid);
    policy.identity.host_group = owner.map(|owner| owner.gid);
    policy.network = match options.network {
        RunNetwork::None => Network::None,
        RunNetwork::Host => Network::Host,
    };
    for text in &options.grant {
        policy = policy.grant(text.parse::<Grant>().map_err(refused)?);
    }
    policy.require = require(&options.require)?;
    if let Some(name) = &options.hostname {
        policy = policy.hostname(name);
    }
    if let Some(cwd) = &options.cwd {
        policy = policy.cwd(cwd);
    }
    Ok(Asked { policy, env: environment(&options.env)? })
}

fn limits(options: &Run) -> Result<Limits, Failure> {
    let mut limits = Limits::command();
    if let Some(text) = &options.memory {
        limits.memory_bytes = size("--memory", text)?;
    }
    if let Some(processes) = options.processes {
        limits.processes = processes;
    }
    if let Some(text) = &options.cpus {
        limits.cpu_percent = cpus(text)?;
    }
    if let Some(text) = &options.time {
        limits.wall_ms = time(text)?;
    }
    Ok(limits)
}

/// `HOST:INSIDE`; the place on the host may be relative and lead over links, as it is the caller's own.
fn bind(option: &str, text: &str) -> Result<(PathBuf, PathBuf), Failure> {
    let Some((host, at)) = text.rsplit_once(':').filter(|(host, at)| !host.is_empty() && !at.is_empty())
    else {
        return Err(Failure::usage("bind_not_valid", format!("{option} {text:?} is not HOST:INSIDE"))
            .with_hint(Some(
                "write the place on the host, a colon, and the place inside: ./data:/data".to_owned(),
            )));
    };
    let found = Path::new(host).canonicalize().map_err(|error| {
        Failure::usage("bind_not_found", format!("{option} {host:?}: {error}"))
            .with_hint(Some("name a file or directory that is there".to_owned()))
    })?;
    if option == "--bind" && !found.is_dir() {
        return Err(Failure::usage("bind_not_valid", format!("--bind: {host:?} is no directory"))
            .with_hint(Some("a file can be shown by --ro-bind".to_owned())));
    }
    // The policy refuses the host's own places; what is mounted elsewhere it doesn't know.
    if !mounts::is_the_hosts(&found) {
        mounts::refuse_kernels("bind_not_valid", &format!("{option} {host:?}"), &found)?;
    }
    Ok((found, PathBuf::from(at)))
}

/// Who the program is outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    uid: u32,
    /// The group of the directories, or nobody's.
    gid: u32,
}

/// As whom the program has to run outside, as root, to write what is bound: as the owner. Nothing is given to anybody
/// else, and the program is never root.
///
/// Its group is that of the directories, which may be another number: the group with the user's number may be allowed
/// things that the user is not. Where that group is root's, or they have several, it is nobody's.
fn owner<'a>(mut bound: impl Iterator<Item = &'a Path>) -> Result<Option<Owner>, Failure> {
    if !rustix::process::geteuid().is_root() {
        // There is one id only, the caller's.
        let closed = bound.find(|path| {
            rustix::fs::access(*path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_err()
        });
        return match closed {
            Some(path) => {
                Err(Failure::usage("bind_not_writable", format!("you may not write {}", path.display()))
                    .with_hint(Some(
                        "bind a directory of your own, or show this one by --ro-bind".to_owned(),
                    )))
            }
            None => Ok(None),
        };
    }
    let mut owner: Option<Owner> = None;
    for path in bound {
        let found = fs_err::metadata(path)?;
        let (uid, gid) = (found.uid(), found.gid());
        let hint = "bind a directory of another user (the program then runs as that user outside), or show it by --ro-bind";
        if uid == 0 {
            let detail = format!("{} belongs to root, which no program in a jail may be", path.display());
            return Err(Failure::usage("bind_owned_by_root", detail).with_hint(Some(hint.to_owned())));
        }
        if owner.is_some_and(|other| other.uid != uid) {
            let detail = "the directories of --bind belong to several users, and the program is one";
            return Err(Failure::usage("bind_owners_differ", detail)
                .with_hint(Some("bind directories of one user".to_owned())));
        }
        let shared = owner.is_none_or(|other| other.gid == gid) && gid != 0;
        let Some(gid) = Some(gid).filter(|_| shared).or_else(Identity::free_group) else {
            // Without one named it would be the group with the user's number, whatever that may do.
            let detail = format!("{} leaves the program no group, as none is free here", path.display());
            return Err(Failure::usage("bind_group_not_valid", detail)
                .with_hint(Some("give all bound directories one group that is not root's".to_owned())));
        };
        owner = Some(Owner { uid, gid });
    }
    Ok(owner)
}

/// `PATH[:SIZE]`.
fn scratch(text: &str, memory: u64) -> Result<Tmpfs, Failure> {
    match text.rsplit_once(':') {
        Some((at, size_text)) => Ok(tmpfs(PathBuf::from(at), size("--tmpfs", size_text)?)),
        None => Ok(tmpfs(PathBuf::from(text), SCRATCH.min(memory))),
    }
}

/// With a file for each page, as the kernel has it.
fn tmpfs(at: PathBuf, size_bytes: u64) -> Tmpfs {
    Tmpfs { at, size_bytes, inodes: (size_bytes / 4096).max(256) }
}

fn environment(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut env = BTreeMap::new();
    for text in texts {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            // Its value is not repeated: it may be a secret that stands in the wrong place.
            return Err(Failure::usage("env_not_valid", "--env is not NAME=VALUE").with_hint(Some(
                "nothing is inherited: write --env \"NAME=$NAME\" to pass one on".to_owned(),
            )));
        };
        env.insert(name.to_owned(), value.to_owned());
    }
    Ok(env)
}

fn require(texts: &[String]) -> Result<Require, Failure> {
    let mut require = Require::anything();
    for text in texts {
        let parsed = text.split_once('=').and_then(|(what, by)| Some((what, enforcement(by)?)));
        let place = match parsed {
            Some(("memory", _)) => &mut require.memory,
            Some(("processes", _)) => &mut require.processes,
            Some(("cpu", _)) => &mut require.cpu,
            Some(("time", _)) => &mut require.wall,
            _ => {
                return Err(Failure::usage(
                    "require_not_valid",
                    format!("--require {text:?} is not LIMIT=BY"),
                )
                .with_hint(Some(
                    "LIMIT is memory, processes, cpu or time; BY is rlimit, watchdog, cgroup1 or cgroup2"
                        .to_owned(),
                )));
            }
        };
        *place = parsed.map_or(Enforcement::None, |(_, by)| by);
    }
    Ok(require)
}

fn enforcement(text: &str) -> Option<Enforcement> {
    [
        Enforcement::None,
        Enforcement::Rlimit,
        Enforcement::Watchdog,
        Enforcement::Cgroup1,
        Enforcement::Cgroup2,
    ]
    .into_iter()
    .find(|one| one.to_string() == text)
}

/// A number of digits alone: `parse` takes a plus sign too.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Bytes: a number, perhaps with a K, M, G or T of 1024.
fn size(option: &str, text: &str) -> Result<u64, Failure> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &lower[digits.len()..] {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        _ => None,
    };
    let bytes = shift.and_then(|shift| number(digits)?.checked_mul(1 << shift));
    bytes.ok_or_else(|| {
        Failure::usage("size_not_valid", format!("{option}: {text:?} is no size"))
            .with_hint(Some("write a number of bytes, or with K, M, G: 256M".to_owned()))
    })
}

/// Hundredths of a CPU from a number such as `2` or `0.5`.
fn cpus(text: &str) -> Result<u32, Failure> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let hundredths =
        if part.len() <= 2 { number(part).and_then(|_| number(&format!("{part:0<2}"))) } else { None };
    let parsed =
        number(whole).zip(hundredths).and_then(|(whole, part)| whole.checked_mul(100)?.checked_add(part));
    let parsed = parsed.and_then(|percent| u32::try_from(percent).ok());
    parsed.ok_or_else(|| {
        Failure::usage("cpus_not_valid", format!("--cpus: {text:?} is no number of CPUs"))
            .with_hint(Some("write 2 or 0.5".to_owned()))
    })
}

/// Milliseconds from `90`, `90s`, `1500ms`, `5m` or `2h`.
fn time(text: &str) -> Result<u64, Failure> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "ms" => Some(1),
        "" | "s" => Some(1000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let ms = unit.and_then(|unit| number(digits)?.checked_mul(unit)).filter(|ms| *ms > 0);
    ms.ok_or_else(|| {
        Failure::usage("time_not_valid", format!("--time: {text:?} is no time"))
            .with_hint(Some("write seconds, or 30s, 5m, 2h".to_owned()))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (text, bytes) in [("4096", 4096), ("64k", 65_536), ("128M", 128 * MIB), ("2GiB", 2048 * MIB)] {
            assert_eq!(size("--memory", text).unwrap(), bytes, "{text}");
        }
        for (text, percent) in [("1", 100), ("0.5", 50), ("1.25", 125), ("16", 1600)] {
            assert_eq!(cpus(text).unwrap(), percent, "{text}");
        }
        for (text, ms) in
            [("90", 90_000), ("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000), ("250ms", 250)]
        {
            assert_eq!(time(text).unwrap(), ms, "{text}");
        }
        for bad in ["", "M", "-1", "+1", "1X", "1 M", "9999999999999T", "1.5G", "é"] {
            assert!(size("--memory", bad).is_err(), "{bad}");
        }
        for bad in ["", ".5", "1.", "-1", "+1", "1.234", "x", "99999999999"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
        for bad in ["", "0", "s", "-1s", "1d", "1.5s", "99999999999999999999h"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_required_is_named_limit_by_limit() {
        let texts = ["memory=watchdog", "time=rlimit"].map(str::to_owned);
        let require = require(&texts).unwrap();
        assert_eq!((require.memory, require.wall), (Enforcement::Watchdog, Enforcement::Rlimit));
        assert_eq!(require.processes, Enforcement::None);
        for bad in ["memory", "memory=", "memory=hope", "disk=watchdog", ""] {
            assert!(super::require(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
