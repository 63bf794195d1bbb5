//! Running an installed command, in the caller's own process.

use std::path::{Path, PathBuf};

use crate::names::{CommandName, NameError};
use crate::sandbox::{self, SandboxError};

use super::launch::Launch;

/// Why a command could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// What was asked for can't be the name of a command.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is no such command.
    #[error("the command `{command}` is not installed below {root}")]
    NotInstalled {
        /// The command.
        command: String,
        /// Where it was looked for.
        root: PathBuf,
    },
    /// Somebody else could have written the launch file.
    #[error("{path} is not trusted: {why}")]
    Unsafe {
        /// What is not trusted.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// The launch file is not as it was written.
    #[error("{path} was altered: {why}")]
    Altered {
        /// The launch file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The pack's files are gone.
    #[error("the files of the pack are not at {path}")]
    TreeMissing {
        /// Where they should be.
        path: PathBuf,
    },
    /// Reading failed.
    #[error("reading {path} failed: {source}")]
    Io {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The jail could not be made.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl ExecError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "command_invalid",
            Self::NotInstalled { .. } => "command_not_installed",
            Self::Unsafe { .. } => "launch_file_not_trusted",
            Self::Altered { .. } => "launch_file_altered",
            Self::TreeMissing { .. } => "tree_missing",
            Self::Io { .. } => "exec_io",
            Self::Sandbox(error) => error.code(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotInstalled { .. } => "`pantry list` shows what is installed",
            Self::Unsafe { .. } => {
                "only root, you, or the owner of the root may own it, and nobody else may write it"
            }
            Self::Altered { .. } | Self::TreeMissing { .. } => {
                "start the daemon again, which mends it, or install the package again"
            }
            Self::Sandbox(error) => return error.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// Runs an installed command with the caller's streams and gives its exit code.
///
/// `command` is the path of a wrapper, as the kernel passes it for a `#!` line, or the name of a command below `root`
/// (`None` = the default one). No daemon, no state and no socket are needed. Call it while the process has one thread.
///
/// # Errors
/// [`ExecError`]; what the program does is no error.
pub fn exec(root: Option<&Path>, command: &str, arguments: &[String]) -> Result<i32, ExecError> {
    let (root, command) = find(root, command)?;
    let launch = Launch::read(&root, &command)?;
    check_trees(&launch)?;
    let mut policy = launch.policy(arguments);
    if let Some(kind) = sandbox::terminal_kind() {
        policy.env.entry("TERM".to_owned()).or_insert(kind);
    }
    Ok(sandbox::exec(&policy)?.code)
}

/// The root and the name behind what was asked for.
fn find(root: Option<&Path>, command: &str) -> Result<(PathBuf, CommandName), ExecError> {
    if command.contains('/') {
        let given = PathBuf::from(command);
        let lost = || ExecError::NotInstalled { command: command.to_owned(), root: PathBuf::from(command) };
        let wrapper = fs_err::canonicalize(&given).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => lost(),
            _ => ExecError::Io { path: given, source },
        })?;
        let name = wrapper.file_name().and_then(std::ffi::OsStr::to_str).ok_or_else(lost)?;
        let root = wrapper.parent().and_then(Path::parent).ok_or_else(lost)?;
        return Ok((root.to_owned(), CommandName::parse(name)?));
    }
    let name = CommandName::parse(command)?;
    let root = root.map_or_else(
        || crate::config::default_root(&std::env::vars_os().filter_map(text_pair).collect()),
        Path::to_owned,
    );
    let found = fs_err::canonicalize(&root).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            ExecError::NotInstalled { command: command.to_owned(), root: root.clone() }
        }
        _ => ExecError::Io { path: root, source },
    })?;
    Ok((found, name))
}

fn text_pair((name, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

fn check_trees(launch: &Launch) -> Result<(), ExecError> {
    for path in launch.trees() {
        let there = fs_err::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        if !there {
            return Err(ExecError::TreeMissing { path: path.to_owned() });
        }
    }
    Ok(())
}
