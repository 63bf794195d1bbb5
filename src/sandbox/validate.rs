//! What a policy may ask for; everything else is refused before anything is started, with the field, the reason and
//! what to write instead.

mod places;
#[cfg(test)]
mod tests;

use super::error::SandboxError;
use super::grant::Grant;
use super::landlock;
use super::policy::{Limits, Network, Policy, SeccompProfile};

/// Most bytes of arguments and environment together, a pointer for each included; the kernel has a limit of its own
/// behind it, which depends on the caller's stack.
const MOST_TEXT: usize = 1024 * 1024;
/// Most bytes of one argument or variable, its end included. *Source*: `MAX_ARG_STRLEN` of the kernel.
const LONGEST_TEXT: usize = 128 * 1024;
/// The longest wall clock: a month. What runs longer is no run but a service.
const LONGEST_MS: u64 = 31 * 24 * 3600 * 1000;
/// Most processor time in hundredths of one CPU.
const MOST_CPU: u32 = 100 * 4096;

impl Policy {
    /// Looks at what is asked for, as a run does before anything is started.
    ///
    /// # Errors
    /// `SandboxError::Refused`, with what and why.
    pub fn check(&self) -> Result<(), SandboxError> {
        check(self)
    }
}

/// Refuses what can't or may not be done.
pub(crate) fn check(policy: &Policy) -> Result<(), SandboxError> {
    program(policy)?;
    places::check(policy)?;
    limits(policy)?;
    identity(policy)?;
    grants(policy)
}

fn program(policy: &Policy) -> Result<(), SandboxError> {
    let Some(program) = policy.argv.first() else {
        return Err(SandboxError::refused("argv", "it is empty", "name the program"));
    };
    if !program.starts_with('/') {
        return Err(SandboxError::refused(
            format!("argv[0] {program:?}"),
            "it is not absolute, and no search path is consulted",
            "write the path of the program inside the jail",
        ));
    }
    let mut size = 0;
    let variables = policy.env.iter().map(|(name, value)| (name.len() + value.len() + 1, [name, value]));
    for (length, texts) in policy.argv.iter().map(|text| (text.len(), [text, text])).chain(variables) {
        if texts.iter().any(|text| text.contains('\0')) {
            return Err(SandboxError::refused("argv and env", "a value has a NUL byte", "remove it"));
        }
        if length + 1 > LONGEST_TEXT {
            let why = format!("one of them has {length} bytes, and the kernel takes {}", LONGEST_TEXT - 1);
            return Err(SandboxError::refused("argv and env", why, "pass large data as an input"));
        }
        size += length + 1 + size_of::<usize>();
    }
    if size > MOST_TEXT {
        return Err(SandboxError::refused(
            "argv and env",
            "they are over 1 MiB together",
            "pass large data as an input",
        ));
    }
    match policy.env.keys().find(|name| name.is_empty() || name.contains('=')) {
        Some(name) => {
            Err(SandboxError::refused(format!("env {name:?}"), "it is no variable name", "rename it"))
        }
        None => Ok(()),
    }
}

fn identity(policy: &Policy) -> Result<(), SandboxError> {
    let name = &policy.hostname;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if name.len() > 64 || !name.bytes().all(fits) || name.split('.').any(str::is_empty) {
        return Err(SandboxError::refused(
            "hostname",
            "it is no host name",
            "use letters, digits and '-', with single '.' between, at most 64",
        ));
    }
    let nobody = u32::MAX;
    let identity = &policy.identity;
    let outside = [identity.host_base, identity.host_group];
    if identity.uid == nobody || identity.gid == nobody || outside.contains(&Some(nobody)) {
        return Err(SandboxError::refused("identity", "4294967295 is no id", "choose another id"));
    }
    if identity.host_base == Some(0) {
        return Err(SandboxError::refused(
            "identity.host_base",
            "the program would be the host's root outside",
            "choose an id that owns nothing on the host",
        ));
    }
    if identity.host_group == Some(0) {
        return Err(SandboxError::refused(
            "identity.host_group",
            "the program would be of the host's root group outside",
            "choose a group that owns nothing on the host",
        ));
    }
    Ok(())
}

fn limits(policy: &Policy) -> Result<(), SandboxError> {
    let limits = &policy.limits;
    for (what, value, least, most) in bounds(limits) {
        if value < least {
            let why = format!("{value} is less than {least}, with which nothing runs");
            return Err(SandboxError::refused(what, why, "raise it"));
        }
        if value > most {
            let why = format!("{value} is over {most}, the most that can be held");
            return Err(SandboxError::refused(what, why, "lower it"));
        }
    }
    if limits.wall_ms == 0 && policy.profile != SeccompProfile::Command {
        return Err(SandboxError::refused(
            "limits.wall_ms",
            "only commands may run without a wall clock",
            "set a time in milliseconds",
        ));
    }
    let scratch = policy.tmpfs.iter().map(|tmpfs| ("tmpfs", &tmpfs.at, tmpfs.size_bytes, tmpfs.inodes));
    let outputs =
        policy.outputs.iter().map(|output| ("outputs", &output.at, output.size_bytes, output.inodes));
    for (kind, at, size, inodes) in scratch.chain(outputs) {
        let what = format!("{kind} {}", at.display());
        // To the kernel 0 means without limit.
        if size < 4096 || inodes < 2 {
            let why = "it needs at least 4096 bytes and 2 inodes";
            return Err(SandboxError::refused(what, why, "raise them"));
        }
        if size > limits.memory_bytes {
            let memory = limits.memory_bytes;
            let why =
                format!("its {size} bytes are memory, of which the run has {memory} (limits.memory_bytes)");
            return Err(SandboxError::refused(what, why, "lower its size, or raise the memory"));
        }
        if inodes > i64::MAX.cast_unsigned() {
            return Err(SandboxError::refused(what, "it has too many inodes", "lower them"));
        }
    }
    for output in &policy.outputs {
        if output.max_files == 0 || output.max_depth == 0 {
            return Err(SandboxError::refused(
                format!("outputs {}", output.at.display()),
                "it may have no file or no depth, so nothing could be taken of it",
                "raise max_files and max_depth, or leave the output out",
            ));
        }
    }
    Ok(())
}

/// Each limit with its least and its greatest value.
fn bounds(limits: &Limits) -> [(&'static str, u64, u64, u64); 7] {
    const MIB: u64 = 1024 * 1024;
    let most = i64::MAX.cast_unsigned();
    [
        ("limits.memory_bytes", limits.memory_bytes, 4 * MIB, most),
        ("limits.processes", limits.processes, 1, 4_000_000),
        ("limits.cpu_percent", limits.cpu_percent.into(), 1, MOST_CPU.into()),
        ("limits.wall_ms", limits.wall_ms, 0, LONGEST_MS),
        ("limits.open_files", limits.open_files, 8, most),
        // It is kept in memory, twice.
        ("limits.output_bytes", limits.output_bytes, 0, 64 * MIB),
        ("limits.output_total_bytes", limits.output_total_bytes, 1, u64::MAX),
    ]
}

fn grants(policy: &Policy) -> Result<(), SandboxError> {
    for (index, grant) in policy.grants.iter().enumerate() {
        let refused =
            |why: &str, hint: &str| Err(SandboxError::refused(format!("grants {grant}"), why, hint));
        if policy.grants[..index].iter().any(|earlier| earlier.name() == grant.name()) {
            return refused("it is named twice", "name it once, with all its ports");
        }
        let host = policy.network == Network::Host;
        match grant {
            Grant::NetworkClient(_) if !policy.leads_out() => {
                return refused(
                    "no port of a host is reached from the run's own network",
                    "ask for the host's network too, or for servers on loopback",
                );
            }
            Grant::NetworkServer(_) if !policy.leads_out() => {
                return refused(
                    "nobody reaches a port of the run's own network",
                    "ask for the host's network too",
                );
            }
            Grant::NetworkClient(_) | Grant::NetworkServer(_) if !landlock::holds_ports() => {
                return refused(
                    "this kernel can't hold a run to ports: its Landlock is off or older than ABI 4",
                    "use a kernel of 6.7 or later with `landlock` among its lsm=",
                );
            }
            Grant::Capability(capability) if host && capability.name().starts_with("NET_") => {
                return refused(
                    "it counts in a network of the run's own only, and the policy asks for the host's",
                    "leave the grant out, or take network `none`",
                );
            }
            _ => {}
        }
    }
    Ok(())
}
