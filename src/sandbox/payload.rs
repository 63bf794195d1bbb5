//! The last steps before the program: its process gives up every right, then executes it.

use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use fs_err as fs;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use super::error::{Fault, Step};
use super::filter;
use super::landlock;
use super::sys;
use super::terminal::Stand;
use super::wire::{self, FromInit, FromPayload, Launch};

/// Executes the program; comes back only when a step failed, which the init has been told then.
pub(crate) fn execute(launch: &Launch, stand: Option<&Stand>, init: &OwnedFd, status: &OwnedFd) {
    match prepare_and_execute(launch, stand, init, status) {
        Ok(never) => match never {},
        Err(fault) => {
            let _gone = tell(init, &FromPayload::Failed(fault));
        }
    }
}

fn tell(init: &OwnedFd, what: &FromPayload) -> Result<(), Errno> {
    let mut line = serde_json::to_vec(what).map_err(|_| Errno::INVAL)?;
    line.push(b'\n');
    // Far less than a pipe takes at once.
    rustix::io::retry_on_intr(|| rustix::io::write(init, &line)).map(|_| ())
}

fn prepare_and_execute(
    launch: &Launch,
    stand: Option<&Stand>,
    init: &OwnedFd,
    status: &OwnedFd,
) -> Result<std::convert::Infallible, Fault> {
    let policy = &launch.policy;
    let text = |value: &str| {
        CString::new(value).map_err(|_| Fault { step: "take the arguments".into(), errno: libc::EINVAL })
    };
    let arguments = policy.argv.iter().map(|value| text(value)).collect::<Result<Vec<_>, _>>()?;
    let environment = policy
        .env
        .iter()
        .map(|(name, value)| text(&format!("{name}={value}")))
        .collect::<Result<Vec<_>, _>>()?;
    let program =
        arguments.first().ok_or_else(|| Fault { step: "take the arguments".into(), errno: libc::EINVAL })?;

    match stand {
        Some(stand) => stand.sit()?,
        None => {
            rustix::process::setsid().step("make a session")?;
        }
    }
    sys::default_signals();
    set_limits(launch)?;
    // The init keeps its own score, so that the kernel ends the program first. The file belongs to the id inside
    // only while the process is dumpable, which executing makes it anyway.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
        .step("raise the out-of-memory score")?;
    fs::write("/proc/self/oom_score_adj", "1000").map_err(|error| Fault {
        step: "raise the out-of-memory score".into(),
        errno: error.raw_os_error().unwrap_or(libc::EIO),
    })?;
    enter(&policy.cwd)?;
    let granted = policy.granted();
    drop_rights(granted)?;
    let landlock_abi = landlock::restrict(policy, launch.landlock_at_most)?;
    tell(init, &FromPayload::Held { landlock_abi }).step("tell the init")?;
    if launch.watch.memory {
        // A page of a huge one keeps all of it; the process would be counted with the page.
        rustix::thread::disable_transparent_huge_pages(true).step("forbid huge pages")?;
    }
    let choice = filter::Choice::of(policy, launch.watch.memory);
    if launch.learn {
        report_refusals(choice, granted, landlock_abi, status)?;
    } else {
        sys::load_filter(&filter::compile(choice, granted)).step("load the system call filter")?;
    }
    nix::unistd::execve(program, &arguments, &environment)
        .step_at("execute", std::path::Path::new(std::ffi::OsStr::from_bytes(program.as_bytes())))
}

/// Loads the filter of a learning run and passes its descriptor to the caller; no copy is left for the program.
///
/// From here on the caller has to answer, the exec below being the first call that is reported.
fn report_refusals(
    choice: filter::Choice,
    granted: CapabilitySet,
    landlock_abi: Option<u32>,
    status: &OwnedFd,
) -> Result<(), Fault> {
    let step = "load the filter of a learning run";
    if !sys::reports_fit().step(step)? {
        return Err(Fault { step: step.to_owned(), errno: libc::EOPNOTSUPP });
    }
    let listener = sys::load_reporting_filter(&filter::compile_reporting(choice, granted)).step(step)?;
    wire::send_message(status, &FromInit::Learning { landlock_abi }, &[listener.as_fd()]).step(step)
}

/// Goes to the working directory and makes sure that it is inside (CVE-2024-21626).
fn enter(cwd: &std::path::Path) -> Result<(), Fault> {
    rustix::process::chdir(cwd).step_at("go to", cwd)?;
    let here = rustix::process::getcwd(Vec::new()).step("read the working directory")?;
    if here.as_bytes().first() == Some(&b'/') {
        Ok(())
    } else {
        Err(Fault { step: "check that the working directory is inside".into(), errno: libc::EXDEV })
    }
}

fn set_limits(launch: &Launch) -> Result<(), Fault> {
    let limits = &launch.policy.limits;
    // With a controller for processes this is the second line; without, it counts exactly: the init is one too.
    let processes = limits.processes + if launch.watch.processes { 1 } else { 64 };
    let mut wanted = vec![
        (Resource::RLIMIT_NOFILE, limits.open_files),
        (Resource::RLIMIT_FSIZE, limits.file_size_bytes),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NPROC, processes),
        (Resource::RLIMIT_MEMLOCK, 8 * 1024 * 1024),
        (Resource::RLIMIT_MSGQUEUE, 819_200),
        (Resource::RLIMIT_NICE, 0),
        (Resource::RLIMIT_RTPRIO, 0),
    ];
    if launch.watch.memory {
        // Far too generous to be the limit; it stops what would outrun the sampling.
        wanted.push((Resource::RLIMIT_DATA, limits.memory_bytes.saturating_mul(16)));
    }
    for (resource, value) in wanted {
        let (_, hard) = getrlimit(resource).step("read a limit")?;
        let value = value.min(hard);
        setrlimit(resource, value, value).step("set a limit")?;
    }
    Ok(())
}

/// Drops every capability that is not granted, for good, and forbids gaining any by executing.
///
/// What is granted is kept over the exec, whatever the id, by being ambient too; nothing can be made ambient later.
fn drop_rights(granted: CapabilitySet) -> Result<(), Fault> {
    let step = "drop capabilities";
    rustix::thread::clear_ambient_capability_set().step(step)?;
    for bit in 0..63 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if granted.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            // Beyond the kernel's last one.
            Err(Errno::INVAL) => break,
            other => other.step(step)?,
        }
    }
    if !granted.is_empty() {
        let mut sets = rustix::thread::capabilities(None).step(step)?;
        sets.inheritable = granted;
        rustix::thread::set_capabilities(None, sets).step(step)?;
        for one in granted.iter() {
            rustix::thread::configure_capability_in_ambient_set(one, true).step("grant capabilities")?;
        }
    }
    let locked = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(locked).step("lock secure bits")?;
    let sets = CapabilitySets { effective: granted, permitted: granted, inheritable: granted };
    rustix::thread::set_capabilities(None, sets).step(step)?;
    rustix::thread::set_no_new_privs(true).step("forbid new privileges")
}
