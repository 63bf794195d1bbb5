//! The sealed launch file: everything that running a command needs, in one file that nobody else could have written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::names::{CommandName, Digest, PackId, Version};
use crate::packs::{APP_DIR, USER_ID, canonical_json};
use crate::sandbox::{Identity, Limits, Policy, SeccompProfile, Stdio};
use crate::trees::chain_ids;

use super::exec::ExecError;
use super::record::{Command, Installed};

/// The form of the file; others are refused, and mended at the next start of the daemon.
const VERSION: u32 = 1;
/// No launch file is larger.
const SIZE_CAP: u64 = 1 << 20;

/// What stands in `bin/.launch/<command>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Launch {
    version: u32,
    pub(crate) pack: PackId,
    pub(crate) pack_version: Version,
    pub(crate) digest: Digest,
    pub(crate) revision: i64,
    pub(crate) command: CommandName,
    /// The layers' trees, bottom first.
    trees: Vec<Tree>,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    cwd: String,
    identity: Id,
    limits: Caps,
    /// SHA-256 over the canonical form of all the rest.
    #[serde(default)]
    seal: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    chain: Digest,
    path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Id {
    uid: u32,
    gid: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Caps {
    memory_bytes: u64,
    processes: u64,
    cpu_percent: u32,
    open_files: u64,
    file_size_bytes: u64,
}

impl Launch {
    /// The launch file of a command.
    pub(crate) fn of(root: &Path, record: &Installed, command: &Command) -> Self {
        let limits = Limits::command();
        let trees =
            chain_ids(&record.layers).into_iter().map(|chain| Tree { path: tree(root, &chain), chain });
        Self {
            version: VERSION,
            pack: record.id.clone(),
            pack_version: record.version.clone(),
            digest: record.digest.clone(),
            revision: record.revision,
            command: command.name.clone(),
            trees: trees.collect(),
            argv: command.argv.clone(),
            env: record.env.clone(),
            cwd: APP_DIR.to_owned(),
            identity: Id { uid: USER_ID, gid: USER_ID },
            limits: Caps {
                memory_bytes: limits.memory_bytes,
                processes: limits.processes,
                cpu_percent: limits.cpu_percent,
                open_files: limits.open_files,
                file_size_bytes: limits.file_size_bytes,
            },
            seal: None,
        }
    }

    fn seal(&self) -> Result<Digest, serde_json::Error> {
        canonical_json(&Self { seal: None, ..self.clone() }).map(|text| Digest::of(text.as_bytes()))
    }

    /// The bytes of the file, sealed.
    pub(crate) fn sealed(&self) -> Result<Vec<u8>, serde_json::Error> {
        let sealed = Self { seal: Some(self.seal()?), ..self.clone() };
        canonical_json(&sealed).map(|text| (text + "\n").into_bytes())
    }

    /// Reads the launch file of a command below `root` (without links in its path), and refuses one that somebody else
    /// could have written or that is not as we wrote it.
    pub(crate) fn read(root: &Path, command: &CommandName) -> Result<Self, ExecError> {
        let name = format!("bin/.launch/{command}");
        let path = root.join(&name);
        let unsafe_file = |why| ExecError::Unsafe { path: path.clone(), why };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let failed = |path: &Path, errno: rustix::io::Errno| match errno {
            rustix::io::Errno::NOENT => {
                ExecError::NotInstalled { command: command.to_string(), root: root.to_owned() }
            }
            rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => {
                ExecError::Unsafe { path: path.to_owned(), why: "there is a link or a file on its way" }
            }
            errno => ExecError::Io { path: path.to_owned(), source: errno.into() },
        };
        let directory = rustix::fs::open(root, flags, Mode::empty()).map_err(|errno| failed(root, errno))?;
        let owner = rustix::fs::fstat(&directory).map_err(|errno| failed(root, errno))?.st_uid;
        let owners = [0, rustix::process::geteuid().as_raw(), owner];
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let open = |name: &str, flags: OFlags| {
            let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            rustix::fs::openat2(&directory, name, flags, Mode::empty(), inside)
        };
        for folder in ["bin", "bin/.launch"] {
            let at = root.join(folder);
            let fd = open(folder, OFlags::DIRECTORY).map_err(|errno| failed(&at, errno))?;
            let stat = rustix::fs::fstat(&fd).map_err(|errno| failed(&at, errno))?;
            check_owner(&stat, &owners).map_err(|why| ExecError::Unsafe { path: at, why })?;
        }
        let file = open(&name, OFlags::empty()).map_err(|errno| failed(&path, errno))?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed(&path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(unsafe_file("it is no file"));
        }
        check_owner(&stat, &owners).map_err(unsafe_file)?;
        let mut bytes = Vec::new();
        File::from(file)
            .take(SIZE_CAP + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| ExecError::Io { path: path.clone(), source })?;
        Self::parse(&bytes, root, command).map_err(|why| ExecError::Altered { path, why })
    }

    fn parse(bytes: &[u8], root: &Path, command: &CommandName) -> Result<Self, &'static str> {
        if bytes.len() as u64 > SIZE_CAP {
            return Err("it is too large");
        }
        let launch: Self = serde_json::from_slice(bytes).map_err(|_| "it can't be read")?;
        if launch.version != VERSION {
            return Err("it is of another version of Pantry");
        }
        let seal = launch.seal().map_err(|_| "it can't be read")?;
        if launch.seal.as_ref() != Some(&seal) {
            return Err("its seal is broken");
        }
        if launch.command != *command || launch.argv.is_empty() || launch.trees.is_empty() {
            return Err("it is not for this command");
        }
        if launch.trees.iter().any(|found| found.path != tree(root, &found.chain)) {
            return Err("it is for another root");
        }
        Ok(launch)
    }

    /// The directories that make the root, bottom first.
    pub(crate) fn trees(&self) -> impl Iterator<Item = &Path> {
        self.trees.iter().map(|tree| tree.path.as_path())
    }

    /// What to run, with the caller's arguments behind those of the pack.
    pub(crate) fn policy(&self, arguments: &[String]) -> Policy {
        let argv = self.argv.iter().chain(arguments).cloned().collect();
        let mut policy = Policy::new(self.trees().map(Path::to_owned).collect(), argv);
        policy.env.clone_from(&self.env);
        policy.cwd = PathBuf::from(&self.cwd);
        policy.hostname = self.pack.name.to_string().replace('_', "-");
        policy.identity =
            Identity { uid: self.identity.uid, gid: self.identity.gid, host_base: None, host_group: None };
        let mut limits = Limits::command();
        limits.memory_bytes = self.limits.memory_bytes;
        limits.processes = self.limits.processes;
        limits.cpu_percent = self.limits.cpu_percent;
        limits.open_files = self.limits.open_files;
        limits.file_size_bytes = self.limits.file_size_bytes;
        for scratch in &mut policy.tmpfs {
            // It is memory, of which the command may have asked for less.
            scratch.size_bytes = scratch.size_bytes.min(limits.memory_bytes);
        }
        policy.limits = limits;
        policy.stdio = Stdio::Terminal;
        policy.profile = SeccompProfile::Command;
        policy
    }
}

fn tree(root: &Path, chain: &Digest) -> PathBuf {
    root.join("trees").join(chain.hex())
}

/// Whether only those who may could have put this there.
fn check_owner(stat: &rustix::fs::Stat, owners: &[u32]) -> Result<(), &'static str> {
    if !owners.contains(&stat.st_uid) {
        return Err("it belongs to somebody else");
    }
    if stat.st_mode & 0o022 != 0 {
        return Err("others may write it");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
