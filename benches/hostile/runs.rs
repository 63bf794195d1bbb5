//! The hostile runs: a process of their own, which makes them one after another with the limits of a package's tests.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use pantry::sandbox::{Cancel, Policy, Sandbox, StdinBytes};
use serde::{Deserialize, Serialize};

use crate::process;

/// What they do, in turn.
pub const MODES: [&str; 4] = ["forks", "memory", "disk", "output"];

/// One run: what it did, how that ended, and when, in milliseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
pub struct Run {
    pub mode: String,
    pub end: String,
    pub began_ms: u128,
    pub ended_ms: u128,
}

/// What came of all of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ran {
    pub runs: Vec<Run>,
    /// Resident memory of the process that made them after the first of each mode, and after all, in MB.
    pub resident: (f64, f64),
    /// Entries of the run directory at the end.
    pub entries: usize,
}

/// Makes the root of the runs.
pub fn make_root(folder: &Path) -> anyhow::Result<PathBuf> {
    let root = folder.join("root");
    for name in ["bin", "dev", "proc", "sys", "tmp"] {
        fs_err::create_dir_all(root.join(name))?;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/hostile/hostile.c");
    let built = Command::new("cc")
        .args(["-static", "-O1", "-o"])
        .arg(root.join("bin/hostile"))
        .arg(source)
        .output()?;
    ensure!(built.status.success(), "cc -static failed: {}", String::from_utf8_lossy(&built.stderr));
    for path in [folder, &root, &root.join("bin"), &root.join("dev"), &root.join("proc"), &root.join("sys")] {
        fs_err::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    Ok(root)
}

/// Starts the process that makes so many.
pub fn start(folder: &Path, count: usize) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--hostile").arg(folder).args(["--runs", &count.to_string()]);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
}

/// What it said.
pub fn finish(child: Child) -> anyhow::Result<Ran> {
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the hostile runs ended with {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// That process.
pub fn make(folder: &Path, count: usize) -> anyhow::Result<Ran> {
    let jails = folder.join("jails");
    let sandbox = Sandbox::new(&jails)?.with_helper(process::pantry_binary()?);
    let mut runs = Vec::new();
    let resident =
        || process::memory(std::process::id()).map(|held| held.resident).context("no memory of our own");
    let mut first = 0.0;
    for number in 0..count {
        let mode = MODES[number % MODES.len()].to_owned();
        let policy = Policy::new(vec![folder.join("root")], vec!["/bin/hostile".to_owned(), mode.clone()]);
        let began_ms = since_1970_ms(SystemTime::now());
        let outcome = sandbox.run(&policy, StdinBytes::Empty, &Cancel::new()?)?;
        let (end, ended_ms) = (format!("{:?}", outcome.end), since_1970_ms(SystemTime::now()));
        runs.push(Run { mode, end, began_ms, ended_ms });
        drop(outcome);
        if number + 1 == MODES.len().min(count) {
            first = resident()?;
        }
    }
    Ok(Ran { runs, resident: (first, resident()?), entries: fs_err::read_dir(&jails)?.count() })
}

/// A moment as [`Run`] has it.
pub fn since_1970_ms(moment: SystemTime) -> u128 {
    moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}
