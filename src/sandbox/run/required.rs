//! What holds each limit of a run, and whether that is what its policy requires.

use crate::sandbox::cgroup::Group;
use crate::sandbox::error::SandboxError;
use crate::sandbox::policy::{Policy, Stdio};
use crate::sandbox::receipt::{Enforced, EnforcedLimits, Enforcement};

/// What will enforce each limit, given the groups that could be made.
pub(super) fn enforced(policy: &Policy, group: &Group) -> EnforcedLimits {
    let limits = &policy.limits;
    let or_watchdog = |by: Enforcement| if by == Enforcement::None { Enforcement::Watchdog } else { by };
    let clocked = limits.wall_ms > 0;
    let cpu = match group.cpu_by() {
        // The budget of a watchdog is time by wall clock: without one there is none.
        Enforcement::None if clocked => Enforcement::Watchdog,
        by => by,
    };
    let by = |limit: u64, enforced_by: Enforcement| Enforced { limit, enforced_by };
    let when = |set: bool| if set { Enforcement::Watchdog } else { Enforcement::None };
    EnforcedLimits {
        memory: by(limits.memory_bytes, or_watchdog(group.memory_by())),
        processes: by(limits.processes, or_watchdog(group.processes_by())),
        cpu: by(limits.cpu_percent.into(), cpu),
        wall: by(limits.wall_ms, when(clocked)),
        open_files: by(limits.open_files, Enforcement::Rlimit),
        file_size: by(limits.file_size_bytes, Enforcement::Rlimit),
        output: by(limits.output_total_bytes, when(policy.stdio == Stdio::Captured)),
    }
}

pub(super) fn check(policy: &Policy, limits: &EnforcedLimits) -> Result<(), SandboxError> {
    let require = &policy.require;
    for (what, wanted, offered) in [
        ("memory", require.memory, limits.memory),
        ("processes", require.processes, limits.processes),
        ("cpu", require.cpu, limits.cpu),
        ("wall", require.wall, limits.wall),
    ] {
        if offered.enforced_by < wanted {
            return Err(SandboxError::refused(
                format!("require.{what}"),
                format!(
                    "this host enforces it by {}, and {wanted} is the weakest accepted",
                    offered.enforced_by
                ),
                "delegate the memory, pids and cpu controllers to Pantry (Delegate=cpu memory pids), or accept less",
            ));
        }
    }
    Ok(())
}
