//! Control groups: which the host lets us use, and the group of one run.
//!
//! Nothing is read off a setting: a group is made and its limit files are written, and what fails is left to the
//! watchdog. Groups lie below our own, so that limits set for us from outside hold for the runs too.

mod hierarchy;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use self::hierarchy::Hierarchies;
use super::policy::Limits;
use super::receipt::Enforcement;

/// The groups that this host lets us make.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cgroups {
    unified: Option<PathBuf>,
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    cpu: Option<PathBuf>,
}

/// Whether our own process may be moved into a group of its own to get controllers delegated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    Allowed,
    Never,
}

impl Cgroups {
    /// Finds out by trying.
    pub(crate) fn detect(moving: Move) -> Self {
        let Some(found) = Hierarchies::read() else { return Self::default() };
        if let Some(unified) = found.unified(moving) {
            return Self { unified: Some(unified), ..Self::default() };
        }
        let usable = |controller: &str, file: &str| {
            let base = found.version1(controller)?;
            let probe = base.join(format!("pantry-probe-{}", std::process::id()));
            let made = fs::create_dir(&probe);
            let has = made.is_ok() && fs::OpenOptions::new().write(true).open(probe.join(file)).is_ok();
            if made.is_ok() {
                let _left_to_sweep = fs::remove_dir(&probe);
            }
            has.then_some(base)
        };
        Self {
            unified: None,
            memory: usable("memory", "memory.limit_in_bytes"),
            pids: usable("pids", "pids.max"),
            cpu: usable("cpu", "cpu.cfs_quota_us"),
        }
    }

    fn bases(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.unified, &self.memory, &self.pids, &self.cpu].into_iter().flatten()
    }

    /// Where [`Self::create`] makes the group of a run, in each hierarchy.
    pub(crate) fn places(&self, name: &str) -> Vec<PathBuf> {
        self.bases().map(|base| base.join(name)).collect()
    }

    /// Makes the group of a run. What can't be made or limited is absent from it.
    pub(crate) fn create(&self, name: &str, limits: &Limits) -> Group {
        let mut group = Group::default();
        if let Some(base) = &self.unified {
            group.create_unified(base.join(name), limits);
        } else {
            group.memory = self.memory.as_ref().and_then(|base| memory_1(base.join(name), limits));
            group.pids = self
                .pids
                .as_ref()
                .and_then(|base| made(base.join(name), |dir| write(dir, "pids.max", limits.processes + 1)));
            group.cpu = self.cpu.as_ref().and_then(|base| {
                made(base.join(name), |dir| {
                    let _optional = write(dir, SHARES.0, SHARES.1);
                    write(dir, "cpu.cfs_period_us", CPU_PERIOD_US)?;
                    write(dir, "cpu.cfs_quota_us", CPU_PERIOD_US * u64::from(limits.cpu_percent) / 100)
                })
            });
        }
        group
    }

    /// Removes groups whose name fits, killing what is still in them; says how many.
    pub(crate) fn sweep(&self, abandoned: impl Fn(&str) -> bool) -> u64 {
        let mut removed = 0;
        for base in self.bases() {
            let Ok(entries) = fs::read_dir(base) else { continue };
            for entry in entries.flatten() {
                if entry.file_name().to_str().is_some_and(&abandoned) && remove(&entry.path()) {
                    removed += 1;
                }
            }
        }
        removed
    }
}

const CPU_PERIOD_US: u64 = 100_000;
/// The weight of a run beside the server and everything else, where they compete: a tenth of the usual one, in
/// version 1 and in version 2. Where nobody else wants the processor a run has all that its limit allows.
const SHARES: (&str, u64) = ("cpu.shares", 102);
const WEIGHT: (&str, u64) = ("cpu.weight", 10);

/// The group of one run, in one hierarchy or several. It is removed when dropped.
#[derive(Debug, Default)]
pub(crate) struct Group {
    unified: Option<PathBuf>,
    unified_cpu: bool,
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    cpu: Option<PathBuf>,
}

/// What the controllers counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Events {
    /// Processes that the kernel ended for want of memory.
    pub(crate) out_of_memory: u64,
    /// Processes that were refused.
    pub(crate) processes_refused: u64,
}

impl Group {
    fn create_unified(&mut self, dir: PathBuf, limits: &Limits) {
        self.unified = made(dir, |dir| {
            write(dir, "memory.max", limits.memory_bytes)?;
            write(dir, "pids.max", limits.processes + 1)?;
            if dir.join("memory.swap.max").exists() {
                write(dir, "memory.swap.max", 0)?;
            }
            Ok(())
        });
        if let Some(dir) = &self.unified {
            let quota = CPU_PERIOD_US * u64::from(limits.cpu_percent) / 100;
            let _optional = write(dir, WEIGHT.0, WEIGHT.1);
            self.unified_cpu = fs::write(dir.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}")).is_ok();
        }
    }

    fn by(&self, version1: Option<&PathBuf>, unified: bool) -> Enforcement {
        if self.unified.is_some() && unified {
            Enforcement::Cgroup2
        } else if version1.is_some() {
            Enforcement::Cgroup1
        } else {
            Enforcement::None
        }
    }

    pub(crate) fn memory_by(&self) -> Enforcement {
        self.by(self.memory.as_ref(), true)
    }

    pub(crate) fn processes_by(&self) -> Enforcement {
        self.by(self.pids.as_ref(), true)
    }

    pub(crate) fn cpu_by(&self) -> Enforcement {
        self.by(self.cpu.as_ref(), self.unified_cpu)
    }

    /// The directory into which a process can be born.
    pub(crate) fn birthplace(&self) -> Option<OwnedFd> {
        let dir = self.unified.as_ref()?;
        rustix::fs::openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
    }

    /// The files of version 1 through which a process brings itself in, see [`join`].
    pub(crate) fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        self.version1()
            .map(|dir| {
                let file = fs::OpenOptions::new().write(true).open(dir.join("tasks"))?;
                Ok(OwnedFd::from(file.into_file()))
            })
            .collect()
    }

    /// Moves a process into the group of version 2, unless it was born there.
    pub(crate) fn add(&self, pid: i32, born_inside: bool) -> io::Result<()> {
        match &self.unified {
            Some(dir) if !born_inside => fs::write(dir.join("cgroup.procs"), pid.to_string()),
            _ => Ok(()),
        }
    }

    fn version1(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.memory, &self.pids, &self.cpu].into_iter().flatten()
    }

    /// Every directory of the group.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &PathBuf> {
        self.unified.iter().chain(self.version1())
    }

    /// Gives way to everybody else on the processor, or comes back to the weight of a run, where the kernel has that
    /// (Linux 5.15). What gives way runs only while nobody else wants to.
    pub(crate) fn give_way(&self, way: bool) {
        let unified = self.unified.iter().map(|dir| (dir, WEIGHT));
        for (dir, (file, weight)) in unified.chain(self.cpu.iter().map(|dir| (dir, SHARES))) {
            let _optional = write(dir, "cpu.idle", way.into());
            if !way {
                let _optional = write(dir, file, weight);
            }
        }
    }

    /// Kills everything in the group at once, where the kernel has that.
    pub(crate) fn kill(&self) {
        if let Some(dir) = &self.unified {
            let _also_by_pidfd = fs::write(dir.join("cgroup.kill"), "1");
        }
    }

    pub(crate) fn events(&self) -> Events {
        let unified = self.unified.as_ref();
        let out_of_memory = unified
            .map(|dir| field(dir, "memory.events", "oom_kill"))
            .or_else(|| self.memory.as_ref().map(|dir| field(dir, "memory.oom_control", "oom_kill")));
        let processes_refused = unified.or(self.pids.as_ref()).map(|dir| field(dir, "pids.events", "max"));
        Events {
            out_of_memory: out_of_memory.unwrap_or(0),
            processes_refused: processes_refused.unwrap_or(0),
        }
    }

    pub(crate) fn peak_memory_bytes(&self) -> Option<u64> {
        let file = match (&self.unified, &self.memory) {
            (Some(dir), _) => dir.join("memory.peak"),
            (None, Some(dir)) => dir.join("memory.max_usage_in_bytes"),
            (None, None) => return None,
        };
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for dir in self.dirs() {
            if !remove(dir) {
                tracing::warn!(group = %dir.display(), "a control group could not be removed; the next start sweeps it");
            }
        }
    }
}

/// Brings the calling process, which must have one thread, into the groups behind these doors.
///
/// A thread that moves itself is the one move for which the kernel doesn't wait until no process of the machine is in
/// the middle of a fork, an exec or an exit; that wait takes milliseconds.
pub(crate) fn join(doors: &[OwnedFd]) -> Result<(), Errno> {
    doors.iter().try_for_each(|door| rustix::io::write(door, b"0").map(|_| ()))
}

/// Whether a directory is a control group, whatever its path says.
pub(crate) fn is_group(dir: &Path) -> bool {
    // Of the kernel's `magic.h`: version 1 and version 2.
    const MAGIC: [u64; 2] = [0x0027_e0eb, 0x6367_7270];
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, dir, flags, Mode::empty())
        .and_then(rustix::fs::fstatfs)
        .is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|kind| MAGIC.contains(&kind)))
}

/// Makes a group and sets it up; removes it again if that fails.
fn made(dir: PathBuf, set_up: impl Fn(&Path) -> io::Result<()>) -> Option<PathBuf> {
    fs::create_dir(&dir).ok()?;
    if let Err(error) = set_up(&dir) {
        tracing::debug!(group = %dir.display(), %error, "a control group takes no limit");
        remove(&dir);
        return None;
    }
    Some(dir)
}

fn memory_1(dir: PathBuf, limits: &Limits) -> Option<PathBuf> {
    made(dir, |dir| {
        write(dir, "memory.limit_in_bytes", limits.memory_bytes)?;
        // Only there with swap accounting; without it, not swapping at all is the next best.
        if dir.join("memory.memsw.limit_in_bytes").exists() {
            write(dir, "memory.memsw.limit_in_bytes", limits.memory_bytes)?;
        }
        let _optional = write(dir, "memory.swappiness", 0);
        Ok(())
    })
}

fn write(dir: &Path, file: &str, value: u64) -> io::Result<()> {
    fs::write(dir.join(file), value.to_string())
}

/// Reads `name value` out of a file of such lines.
fn field(dir: &Path, file: &str, name: &str) -> u64 {
    let Ok(text) = fs::read_to_string(dir.join(file)) else { return 0 };
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Removes a group, killing what is in it. The kernel lets go of a dead process a little after its end and tells
/// nobody, so a refusal is tried again for a while.
pub(crate) fn remove(dir: &Path) -> bool {
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut pause = Duration::from_micros(50);
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
            Err(_) if Instant::now() >= deadline => return false,
            Err(_) => {}
        }
        for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
            if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        std::thread::sleep(pause);
        pause = (2 * pause).min(Duration::from_millis(2));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout)] // A skipped test says so.
mod tests {
    use super::*;

    #[test]
    fn a_run_weighs_a_tenth_and_gives_way_when_told() {
        let name = format!("pantry-weight-{}", std::process::id());
        let group = Cgroups::detect(Move::Never).create(&name, &Limits::tests());
        let (dir, (file, weight)) = match (&group.unified, &group.cpu) {
            (Some(dir), _) if group.unified_cpu => (dir.clone(), WEIGHT),
            (None, Some(dir)) => (dir.clone(), SHARES),
            _ => {
                println!("skipped: no group with a cpu controller can be made here");
                return;
            }
        };
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap().trim().parse::<u64>().unwrap();
        assert_eq!((read(file), read("cpu.idle")), (weight, 0));
        group.give_way(true);
        assert_eq!(read("cpu.idle"), 1);
        group.give_way(false);
        assert_eq!((read(file), read("cpu.idle")), (weight, 0));
    }
}
