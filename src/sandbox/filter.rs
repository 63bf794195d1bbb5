//! The system call filter: an allow-list by profile, compiled to one classic BPF program.
//!
//! The programs for runs without grants are compiled with the program itself, by `build.rs` from the same lists.
//!
//! Three answers and no more: allowed (some only with certain arguments), `EPERM` for what is denied by name, and
//! `ENOSYS` for what is unknown, so that C libraries fall back. A foreign architecture kills the process. Numbers,
//! families and modes are compared as the 32 bits that the kernel itself looks at (CVE-2019-10063).

mod calls;
#[cfg(all(test, target_arch = "x86_64"))]
#[allow(clippy::unwrap_used)]
mod golden;
mod interpreter;
mod names;
mod places;
mod program;

use std::borrow::Cow;

pub(crate) use interpreter::Call;
pub(crate) use names::name;
pub(crate) use places::{Place, Use, names_address, places};

use super::policy::{Policy, SeccompProfile};
use super::sys::Insn;
use nix::libc;
use program::{Action, Rules};
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

impl Choice {
    /// The one for a run of this policy.
    pub(crate) fn of(policy: &Policy, watched_memory: bool) -> Self {
        Self { profile: policy.profile, emulate_ownership: policy.emulates_ownership(), watched_memory }
    }
}

include!(concat!(env!("OUT_DIR"), "/filters.rs"));

/// The filter that was compiled for a choice beforehand; none in a program that was built on a machine of another kind.
fn prepared(choice: Choice) -> Option<&'static [Insn]> {
    let helper = choice.profile == SeccompProfile::Helper;
    let place = 4 * usize::from(helper)
        + 2 * usize::from(choice.emulate_ownership)
        + usize::from(choice.watched_memory);
    PREPARED.get(place).copied()
}

/// Gives the filter for a program that has these capabilities: without them the calls that they are for stay denied.
///
/// Those are `chroot` and raw sockets of the internet families; the other capabilities that can be granted are for calls
/// that everybody has.
pub(crate) fn compile(choice: Choice, granted: CapabilitySet) -> Cow<'static, [Insn]> {
    if !granted.intersects(CapabilitySet::SYS_CHROOT | CapabilitySet::NET_RAW)
        && let Some(filter) = prepared(choice)
    {
        return Cow::Borrowed(filter);
    }
    Cow::Owned(program::compile(&rules(choice, granted)))
}

fn rules(choice: Choice, granted: CapabilitySet) -> Rules {
    let mut rules = calls::rules(choice);
    if granted.contains(CapabilitySet::SYS_CHROOT) {
        let chroot = u32::try_from(libc::SYS_chroot).expect("invariant: call numbers are small and positive");
        rules.by_number.insert(chroot, program::Rule::always(Action::Allow));
    }
    if granted.contains(CapabilitySet::NET_RAW) {
        calls::allow_raw_sockets(&mut rules);
    }
    rules
}

/// Compiles the filter of a learning run: what [`compile`] refuses is reported instead, and so are the allowed calls that
/// name paths or addresses.
///
/// It lets through nothing more: whoever reads the reports answers each as [`judge`] says, and when nobody reads them any
/// more the kernel answers `ENOSYS`. What kills still kills, and what is answered 0 without acting still is.
pub(crate) fn compile_reporting(choice: Choice, granted: CapabilitySet) -> Vec<Insn> {
    let mut rules = rules(choice, granted);
    for (number, rule) in &mut rules.by_number {
        let names = !places(*number).is_empty() || names_address(*number);
        let actions = rule.clauses.iter_mut().map(|(_, action)| action).chain([&mut rule.otherwise]);
        for action in actions {
            *action = reported(*action, names);
        }
    }
    rules.unknown = reported(rules.unknown, false);
    program::compile(&rules)
}

fn reported(action: Action, names: bool) -> Action {
    match action {
        Action::Errno(1..) => Action::Report,
        Action::Allow if names => Action::Report,
        other => other,
    }
}

/// What an ordinary run answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    /// It fails with this error number, or with 0 does nothing.
    Refused(i32),
    Killed,
}

/// The answer of a program that [`compile`] made; what isn't understood is never allowed.
pub(crate) fn judge(program: &[Insn], call: &Call) -> Verdict {
    let Some(value) = interpreter::answer(program, call) else { return Verdict::Killed };
    match value & libc::SECCOMP_RET_ACTION_FULL {
        libc::SECCOMP_RET_ALLOW => Verdict::Allowed,
        libc::SECCOMP_RET_ERRNO => Verdict::Refused((value & libc::SECCOMP_RET_DATA).cast_signed()),
        _ => Verdict::Killed,
    }
}
