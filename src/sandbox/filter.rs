//! The system call filter: an allow-list by profile, compiled to one classic BPF program.
//!
//! Three answers and no more: allowed (some only with certain arguments), `EPERM` for what is denied by name, and
//! `ENOSYS` for what is unknown, so that C libraries fall back. A foreign architecture kills the process. Numbers,
//! families and modes are compared as the 32 bits that the kernel itself looks at (CVE-2019-10063).

mod calls;
#[cfg(all(test, target_arch = "x86_64"))]
#[allow(clippy::unwrap_used)]
mod golden;
#[cfg(all(test, target_arch = "x86_64"))]
mod interpreter;
mod program;

use super::policy::SeccompProfile;
use super::sys::Insn;
use nix::libc;
use rustix::thread::CapabilitySet;

/// What varies between the filters of two runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) profile: SeccompProfile,
    /// Calls that change owners answer 0 without acting.
    pub(crate) emulate_ownership: bool,
    /// No memory that outlives its mappings: the watchdog, which samples processes, would not see it.
    pub(crate) watched_memory: bool,
}

/// Compiles the filter for a program that has these capabilities: without them the calls that they are for stay denied.
///
/// Those are `chroot` and raw sockets of the internet families; the other capabilities that can be granted are for calls
/// that everybody has.
pub(crate) fn compile(choice: Choice, granted: CapabilitySet) -> Vec<Insn> {
    let mut rules = calls::rules(choice);
    if granted.contains(CapabilitySet::SYS_CHROOT) {
        let chroot = u32::try_from(libc::SYS_chroot).expect("invariant: call numbers are small and positive");
        rules.by_number.insert(chroot, program::Rule::always(program::Action::Allow));
    }
    if granted.contains(CapabilitySet::NET_RAW) {
        calls::allow_raw_sockets(&mut rules);
    }
    program::compile(&rules)
}
