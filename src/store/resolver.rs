//! The lockfile: what the manifest's requirements come to, by uv in the jail, which reaches the index alone.
//!
//! Only wheels are looked at: building a source package would run foreign code.

use std::path::{Path, PathBuf};

use crate::sandbox::{Cancel, End, Limits, Policy, Sandbox, SandboxError, SeccompProfile};

use super::codes::ReasonCode;
use super::finding::{Finding, tail};
use super::reach::{self, ContactRow, Reach, ReachError};
use super::wheels::Resolved;

const SCRIPT: &str = include_str!("jailed/resolve.py");
/// Largest lockfile in bytes: exactly this much passes.
pub(crate) const LOCKFILE_CAP: usize = 51_200;
const WHEELS_CAP: u64 = 8 << 20;
const WALL_MS: u64 = 30_000;

/// A lockfile and the wheels that the index has for it.
#[derive(Debug)]
pub(crate) struct Resolution {
    pub(crate) lockfile: Vec<u8>,
    pub(crate) resolved: Resolved,
}

/// What the resolver needs.
pub(crate) struct Resolver<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) tools_root: Vec<PathBuf>,
    pub(crate) python_version: &'a str,
    pub(crate) index_url: Option<&'a str>,
}

/// Why there is no resolution.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// The requirements are at fault.
    #[error("the requirements can't be resolved")]
    Refused(Box<Finding>),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the resolver's list of wheels can't be read: {0}")]
    List(#[from] serde_json::Error),
    #[error("the resolver was stopped")]
    Cancelled,
    #[error(transparent)]
    Reach(ReachError),
}

impl From<ReachError> for ResolveError {
    fn from(error: ReachError) -> Self {
        match error {
            ReachError::Cancelled => Self::Cancelled,
            ReachError::Sandbox(error) => Self::Sandbox(error),
            other => Self::Reach(other),
        }
    }
}

impl Resolver<'_> {
    /// Resolves the requirements in `work`, which it may use as it likes; whom it asked for is added to `heard`.
    /// Blocking.
    pub(crate) fn resolve(
        &self,
        packages: &[String],
        work: &Path,
        cancel: &Cancel,
        heard: &mut Vec<ContactRow>,
    ) -> Result<Resolution, ResolveError> {
        if packages.is_empty() {
            let resolved = Resolved { glibc: String::new(), packages: Vec::new() };
            return Ok(Resolution { lockfile: Vec::new(), resolved });
        }
        let (input, output) = (work.join("resolve-input"), work.join("resolve-output"));
        fresh_directory(&input)?;
        remove(&output)?;
        fs_err::write(input.join("requirements.in"), packages.join("\n") + "\n")?;
        let argv = [
            "/usr/bin/python3",
            "-I",
            "-",
            "/input/requirements.in",
            "/output",
            self.python_version,
            &LOCKFILE_CAP.to_string(),
        ];
        let policy = Policy::new(self.tools_root.clone(), argv.into_iter().map(str::to_owned).collect());
        let mut reach = Reach::new(self.index_url, &|name| std::env::var(name).ok())?;
        reach.explore(self.sandbox, &self.tools_root, packages, work, cancel)?;
        let mut policy = reach.connect(policy, &input)?;
        policy = policy.input(&input, "/input").output("/output", &output).profile(SeccompProfile::Build);
        policy = policy.env("UV_CACHE_DIR", "/tmp/cache");
        policy.limits = Limits { wall_ms: WALL_MS, ..Limits::build() };
        for scratch in &mut policy.tmpfs {
            scratch.size_bytes = 512 << 20;
        }
        let outcome = reach.run(self.sandbox, &policy, SCRIPT, cancel, ("resolve", heard))?;
        let refused = |message: String| match reach::told(heard) {
            Some(told) => refused(format!("{told}. {message}")),
            None => refused(message),
        };
        let lockfile = || read_capped(&output.join("lockfile.txt"), 64 << 20);
        match outcome.end {
            End::Exited(0) => {
                let lockfile = lockfile()?;
                check_size(lockfile.len()).map_err(ResolveError::Refused)?;
                let list = read_capped(&output.join("wheels.json"), WHEELS_CAP)?;
                Ok(Resolution { lockfile, resolved: serde_json::from_slice(&list)? })
            }
            End::Exited(4) => {
                let size = lockfile().map_or(LOCKFILE_CAP + 1, |lockfile| lockfile.len());
                Err(ResolveError::Refused(Box::new(over_cap(size))))
            }
            End::Cancelled => Err(ResolveError::Cancelled),
            End::TimedOut => Err(refused("the resolver took longer than 30 seconds".to_owned())),
            End::Exited(_) => Err(refused(tail(&outcome.stderr.text(), 590))),
            other => Err(refused(format!(
                "the resolver ended with {other:?}: {}",
                tail(&outcome.stderr.text(), 500)
            ))),
        }
    }
}

fn refused(message: String) -> ResolveError {
    ResolveError::Refused(Box::new(Finding::new(ReasonCode::LockfileResolutionFailed, message)))
}

fn over_cap(size: usize) -> Finding {
    let message = format!("the lockfile has {size} bytes; {LOCKFILE_CAP} are allowed");
    Finding::new(ReasonCode::ResolvedLockfileExceedsSizeCap, message).value(size.to_string())
}

/// Bytes, not characters: exactly the cap passes.
fn check_size(size: usize) -> Result<(), Box<Finding>> {
    if size <= LOCKFILE_CAP { Ok(()) } else { Err(Box::new(over_cap(size))) }
}

/// An empty directory that jails can read.
pub(crate) fn fresh_directory(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    remove(path)?;
    fs_err::create_dir_all(path)?;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// Removes a directory, if it is there.
pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    match fs_err::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file of a run's output; larger than `cap` is an error.
pub(crate) fn read_capped(path: &Path, cap: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(cap + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > cap {
        return Err(std::io::Error::other(format!("{} has more than {cap} bytes", path.display())));
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_counts_bytes_and_exactly_the_cap_passes() {
        assert!(check_size(LOCKFILE_CAP).is_ok());
        let finding = check_size(LOCKFILE_CAP + 1).unwrap_err();
        assert_eq!(finding.reason_code, "resolved_lockfile_exceeds_size_cap");
        assert_eq!(finding.value.as_deref(), Some("51201"));
        // A text below the cap in characters and above it in bytes.
        let text = "é".repeat(LOCKFILE_CAP / 2 + 1);
        assert!(text.chars().count() < LOCKFILE_CAP && check_size(text.len()).is_err());
    }
}
