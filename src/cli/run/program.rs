//! Finding the program inside, from outside: over the layers, the mounts and the links as the program will see them.
//!
//! Nothing of the host can be reached by what a root holds: every component is opened by itself, a link is followed by
//! its text alone, and `..` at the top stays there.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::cli::failure::Failure;
use crate::cli::output::safe;
use crate::sandbox::Policy;

/// The longest chain of links that is followed, as in the kernel.
const MOST_LINKS: u32 = 40;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Directory,
    Program,
    File,
    Link(PathBuf),
    Nothing,
}

/// The path of a program inside: a name without a slash is looked up in the policy's `PATH`, any other counts from the
/// working directory.
pub(super) fn find(policy: &Policy, name: &str) -> Result<String, Failure> {
    let shown = safe(name);
    if name.contains('/') {
        let path = policy.cwd.join(name).to_string_lossy().into_owned();
        return match resolve(policy, &path)? {
            Entry::Program => Ok(path),
            Entry::Nothing | Entry::Link(_) => {
                Err(Failure::usage("program_not_found", format!("there is no {shown} in the root"))
                    .with_hint(Some("name a program that is there, such as /bin/sh".to_owned())))
            }
            Entry::Directory => {
                Err(Failure::usage("program_not_executable", format!("{shown} is a directory"))
                    .with_hint(Some("name a program in it".to_owned())))
            }
            Entry::File => Err(Failure::usage("program_not_executable", format!("{shown} is no program"))
                .with_hint(Some("it needs an execute bit (chmod +x)".to_owned()))),
        };
    }
    let path = policy.env.get("PATH").map(String::as_str).unwrap_or_default();
    for folder in path.split(':').filter(|folder| folder.starts_with('/')) {
        let candidate = format!("{}/{name}", folder.trim_end_matches('/'));
        if !name.is_empty() && resolve(policy, &candidate)? == Entry::Program {
            return Ok(candidate);
        }
    }
    Err(Failure::usage(
        "program_not_found",
        format!("there is no {shown:?} in the root's PATH, {}", safe(path)),
    )
    .with_hint(Some("name its path, or set another by --env PATH=…".to_owned())))
}

/// What a path leads to.
fn resolve(policy: &Policy, path: &str) -> Result<Entry, Failure> {
    let mut at = PathBuf::from("/");
    let mut found = Entry::Directory;
    let mut todo: Vec<PathBuf> = parts(Path::new(path));
    let mut followed = 0;
    while let Some(part) = todo.pop() {
        if found != Entry::Directory {
            return Ok(Entry::Nothing);
        }
        if part == Path::new("..") {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        match look(policy, &next)? {
            Entry::Link(target) => {
                followed += 1;
                if followed > MOST_LINKS {
                    return Ok(Entry::Nothing);
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                todo.extend(parts(&target));
            }
            other => (at, found) = (next, other),
        }
    }
    Ok(found)
}

/// The components of a path, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    use std::path::Component;
    let named = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let mut parts: Vec<PathBuf> = named.map(|part| PathBuf::from(part.as_os_str())).collect();
    parts.reverse();
    parts
}

/// What lies at a path whose directories are no links.
fn look(policy: &Policy, path: &Path) -> Result<Entry, Failure> {
    let own = policy.inputs.iter().map(|input| (&input.at, Some(&input.host)));
    let own = own.chain(policy.data.iter().map(|data| (&data.at, Some(&data.host))));
    let own = own.chain(policy.tmpfs.iter().map(|scratch| (&scratch.at, None)));
    let mounts: Vec<_> = own.collect();
    if mounts.iter().any(|(mount, _)| *mount != path && mount.starts_with(path)) {
        return Ok(Entry::Directory);
    }
    let over = mounts.iter().filter(|(mount, _)| path.starts_with(mount));
    if let Some((mount, host)) = over.max_by_key(|(mount, _)| mount.as_os_str().len()) {
        let below = path.strip_prefix(mount).unwrap_or(Path::new(""));
        return match host {
            Some(host) => Ok(in_layer(host, below)?.unwrap_or(Entry::Nothing)),
            None if below.as_os_str().is_empty() => Ok(Entry::Directory),
            None => Ok(Entry::Nothing),
        };
    }
    if ["/proc", "/dev"].iter().any(|own| path.starts_with(own)) {
        return Ok(Entry::Nothing);
    }
    let below = path.strip_prefix("/").unwrap_or(path);
    for layer in policy.root.iter().rev() {
        if let Some(found) = in_layer(layer, below)? {
            return Ok(found);
        }
    }
    Ok(Entry::Nothing)
}

/// What a layer has at a path; none where those below it decide.
fn in_layer(layer: &Path, path: &Path) -> Result<Option<Entry>, Failure> {
    let failed = |errno: Errno| {
        let source = std::io::Error::from(errno);
        Failure::local(
            "root_unreadable",
            format!("cannot read {} in {}: {source}", path.display(), layer.display()),
        )
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here: OwnedFd = rustix::fs::openat(CWD, layer, flags, Mode::empty()).map_err(failed)?;
    for part in path.components() {
        if kind(&here).map_err(failed)?.0 != FileType::Directory {
            // Something else stands where the layers above have a directory: it hides what is below it.
            return Ok(Some(Entry::Nothing));
        }
        here = match rustix::fs::openat(&here, part.as_os_str(), flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok(None),
            // What we may not look into the program can't either, or will tell.
            Err(Errno::ACCESS | Errno::NAMETOOLONG) => return Ok(Some(Entry::Nothing)),
            Err(errno) => return Err(failed(errno)),
        };
    }
    Ok(Some(match kind(&here).map_err(failed)? {
        (FileType::Directory, _) => Entry::Directory,
        (FileType::RegularFile, mode) if mode & 0o111 != 0 => Entry::Program,
        (FileType::RegularFile, _) => Entry::File,
        (FileType::Symlink, _) => {
            let target = rustix::fs::readlinkat(&here, "", Vec::new()).map_err(failed)?;
            Entry::Link(PathBuf::from(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(target.as_bytes())))
        }
        // A deletion mark, or what no program is.
        _ => Entry::Nothing,
    }))
}

fn kind(fd: &OwnedFd) -> Result<(FileType, u32), Errno> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((FileType::from_raw_mode(stat.st_mode), stat.st_mode))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn program(path: &Path) {
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, "#!/bin/sh\n").unwrap();
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn programs_are_found_as_the_jail_will_see_them() {
        let folder = tempfile::tempdir().unwrap();
        let (low, high, tools) =
            (folder.path().join("low"), folder.path().join("high"), folder.path().join("tools"));
        program(&low.join("usr/bin/python3.11"));
        program(&low.join("usr/bin/gone"));
        symlink("usr/bin", low.join("bin")).unwrap();
        symlink("/usr/bin/python3.11", low.join("usr/bin/python3")).unwrap();
        symlink("../../../../usr/bin/python3", low.join("usr/bin/up")).unwrap();
        symlink("circle", low.join("usr/bin/circle")).unwrap();
        symlink("/etc/passwd", low.join("usr/bin/passwd")).unwrap();
        fs_err::write(low.join("usr/bin/text"), "no").unwrap();
        program(&high.join("usr/bin/new"));
        rustix::fs::mknodat(CWD, high.join("usr/bin/gone"), FileType::CharacterDevice, Mode::empty(), 0)
            .unwrap();
        program(&tools.join("tool"));
        let policy = Policy::new(vec![low, high], vec![])
            .input(&tools, "/opt/tools")
            .cwd("/usr")
            .env("PATH", "/opt/tools:bin:/bin");
        for (name, path) in [
            ("python3", "/bin/python3"),
            ("up", "/bin/up"),
            ("new", "/bin/new"),
            ("tool", "/opt/tools/tool"),
            ("bin/new", "/usr/bin/new"),
            ("./bin/new", "/usr/./bin/new"),
            ("/bin/python3", "/bin/python3"),
        ] {
            assert_eq!(find(&policy, name).unwrap(), path);
        }
        for name in [
            "gone",
            "circle",
            "passwd",
            "text",
            "",
            "nothing",
            "/tmp/x",
            "/proc/self/exe",
            "/usr/bin/text",
            "/usr",
        ] {
            let refused = find(&policy, name).unwrap_err();
            assert!(format!("{refused:?}").contains("program_not_"), "{name}: {refused:?}");
        }
    }
}
