//! What a policy may ask for; everything else is refused before anything is started.

use std::path::{Component, Path};

use super::error::SandboxError;
use super::policy::{Policy, SeccompProfile};
use super::wire::MAX_FDS;

const MOST_MOUNTS: usize = 256;
const MOST_LAYERS: usize = 32;
/// Most bytes of arguments and environment together; the kernel has a limit of its own behind it.
const MOST_TEXT: usize = 1024 * 1024;

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
    places(policy)?;
    limits(policy)?;
    let name = &policy.hostname;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
        return Err(SandboxError::refused(
            "hostname",
            "it is no host name",
            "use letters, digits, '-' and '.', at most 64",
        ));
    }
    let nobody = u32::MAX;
    let identity = &policy.identity;
    if identity.uid == nobody || identity.gid == nobody || identity.host_base == Some(nobody) {
        return Err(SandboxError::refused("identity", "4294967295 is no id", "choose another id"));
    }
    if identity.host_base == Some(0) {
        return Err(SandboxError::refused(
            "identity.host_base",
            "the program would be the host's root outside",
            "choose an id that owns nothing on the host",
        ));
    }
    Ok(())
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
    for text in policy.argv.iter().chain(policy.env.keys()).chain(policy.env.values()) {
        size += text.len() + 1;
        if text.contains('\0') {
            return Err(SandboxError::refused("argv and env", "a value has a NUL byte", "remove it"));
        }
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

fn inside(what: &str, path: &Path) -> Result<(), SandboxError> {
    let normal = path.is_absolute()
        && path.as_os_str().len() < 4096
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        // `components` drops what a parser elsewhere might not.
        && path.components().collect::<std::path::PathBuf>().as_os_str() == path.as_os_str()
        && !path.as_os_str().as_encoded_bytes().contains(&0);
    if normal {
        Ok(())
    } else {
        Err(SandboxError::refused(
            format!("{what} {}", path.display()),
            "it is not an absolute, normalized path",
            "write it from / on, without '.', '..', double or trailing slashes",
        ))
    }
}

fn places(policy: &Policy) -> Result<(), SandboxError> {
    inside("cwd", &policy.cwd)?;
    for layer in &policy.root {
        inside("root", layer)?;
    }
    let hosts = policy.inputs.iter().map(|input| &input.host);
    for host in hosts.chain(policy.data.iter().map(|data| &data.host)) {
        inside("host path", host)?;
    }
    for output in &policy.outputs {
        inside("outputs.into", &output.into)?;
    }
    let mut points: Vec<(&Path, bool)> = Vec::new();
    points.extend(policy.inputs.iter().map(|input| (input.at.as_path(), true)));
    points.extend(policy.tmpfs.iter().map(|tmpfs| (tmpfs.at.as_path(), false)));
    points.extend(policy.data.iter().map(|data| (data.at.as_path(), true)));
    points.extend(policy.outputs.iter().map(|output| (output.at.as_path(), false)));
    if points.len() > MOST_MOUNTS || policy.root.len() > MOST_LAYERS || policy.outputs.len() > MAX_FDS / 2 {
        return Err(SandboxError::refused(
            "mounts",
            format!("at most {MOST_MOUNTS} mounts, {MOST_LAYERS} layers and {} outputs fit", MAX_FDS / 2),
            "merge some of them",
        ));
    }
    for (index, (point, _)) in points.iter().enumerate() {
        inside("mount point", point)?;
        let reserved = ["/proc", "/dev", "/sys"].iter().any(|own| point.starts_with(own));
        if reserved || *point == Path::new("/") {
            return Err(SandboxError::refused(
                format!("mount point {}", point.display()),
                "that place is the jail's own",
                "choose a path outside /, /proc, /dev and /sys",
            ));
        }
        for (other, foreign) in points.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, other)| other)
        {
            if point == other {
                return Err(SandboxError::refused(
                    format!("mount point {}", point.display()),
                    "it is named twice",
                    "give each mount a place of its own",
                ));
            }
            if *foreign && point.starts_with(other) {
                return Err(SandboxError::refused(
                    format!("mount point {}", point.display()),
                    format!("it lies in {}, which comes from the host", other.display()),
                    "mount it elsewhere, or below scratch space",
                ));
            }
        }
    }
    Ok(())
}

fn limits(policy: &Policy) -> Result<(), SandboxError> {
    let limits = &policy.limits;
    let least = [
        ("limits.memory_bytes", limits.memory_bytes, 4 * 1024 * 1024),
        ("limits.processes", limits.processes, 1),
        ("limits.cpu_percent", u64::from(limits.cpu_percent), 1),
        ("limits.open_files", limits.open_files, 8),
        ("limits.output_total_bytes", limits.output_total_bytes, 1),
    ];
    for (what, value, minimum) in least {
        if value < minimum {
            let why = format!("{value} is less than {minimum}, with which nothing runs");
            return Err(SandboxError::refused(what, why, "raise it"));
        }
    }
    if limits.memory_bytes > i64::MAX.cast_unsigned() || limits.processes > 4_000_000 {
        return Err(SandboxError::refused("limits", "a value is beyond what the kernel takes", "lower it"));
    }
    if limits.output_bytes > 64 * 1024 * 1024 {
        return Err(SandboxError::refused(
            "limits.output_bytes",
            "over 64 MiB would be kept in memory",
            "lower it",
        ));
    }
    if limits.wall_ms == 0 && policy.profile != SeccompProfile::Command {
        return Err(SandboxError::refused(
            "limits.wall_ms",
            "only commands may run without a wall clock",
            "set a time in milliseconds",
        ));
    }
    let scratch = policy.tmpfs.iter().map(|tmpfs| (tmpfs.size_bytes, tmpfs.inodes));
    for (size, inodes) in
        scratch.chain(policy.outputs.iter().map(|output| (output.size_bytes, output.inodes)))
    {
        // To the kernel 0 means without limit.
        if size < 4096 || inodes < 2 {
            return Err(SandboxError::refused(
                "tmpfs",
                "it needs at least 4096 bytes and 2 inodes",
                "raise them",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::policy::Tmpfs;
    use super::*;

    fn good() -> Policy {
        Policy::new(vec!["/srv/root".into()], vec!["/bin/true".to_owned()])
    }

    #[test]
    fn the_defaults_pass() {
        assert!(check(&good()).is_ok());
    }

    #[rstest]
    #[case::no_program(|p: &mut Policy| p.argv.clear())]
    #[case::relative_program(|p: &mut Policy| p.argv = vec!["true".into()])]
    #[case::nul(|p: &mut Policy| p.argv.push("a\0b".into()))]
    #[case::bad_variable(|p: &mut Policy| { p.env.insert("A=B".into(), String::new()); })]
    #[case::dotted_cwd(|p: &mut Policy| p.cwd = "/tmp/../etc".into())]
    #[case::descriptor_relative(|p: &mut Policy| p.cwd = "proc/self/fd/7".into())]
    #[case::trailing_slash(|p: &mut Policy| *p = p.clone().input("/etc", "/etc/"))]
    #[case::over_proc(|p: &mut Policy| *p = p.clone().input("/etc", "/proc/sys"))]
    #[case::over_root(|p: &mut Policy| *p = p.clone().data("/srv", "/"))]
    #[case::twice(|p: &mut Policy| *p = p.clone().input("/etc", "/x").input("/usr", "/x"))]
    #[case::below_foreign(|p: &mut Policy| *p = p.clone().data("/srv", "/data").input("/etc", "/data/etc"))]
    #[case::no_wall(|p: &mut Policy| p.limits.wall_ms = 0)]
    #[case::no_memory(|p: &mut Policy| p.limits.memory_bytes = 0)]
    #[case::unlimited_tmpfs(|p: &mut Policy| p.tmpfs.push(Tmpfs { at: "/x".into(), size_bytes: 0, inodes: 10 }))]
    #[case::host_root(|p: &mut Policy| p.identity.host_base = Some(0))]
    #[case::host_name(|p: &mut Policy| p.hostname = "a b".into())]
    fn the_impossible_is_refused_with_a_hint(#[case] spoil: fn(&mut Policy)) {
        let mut policy = good();
        spoil(&mut policy);
        let refused = check(&policy);
        assert!(
            matches!(&refused, Err(SandboxError::Refused { hint, .. }) if !hint.is_empty()),
            "{refused:?}"
        );
    }

    #[test]
    fn scratch_may_hold_other_mounts() {
        assert!(check(&good().input("/etc", "/tmp/etc")).is_ok());
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let mut value = serde_json::to_value(good()).expect("serializes");
        value["privileged"] = true.into();
        assert!(serde_json::from_value::<Policy>(value).is_err());
    }
}
