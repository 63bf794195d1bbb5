//! The ways to start a program that does nothing: bare, in our jail, by bubblewrap.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use pantry::sandbox::{Cancel, Policy, Sandbox, StdinBytes};

/// Something that runs `/bin/true` of the tree once.
pub trait Launcher: Sync {
    /// Its name in the table.
    fn name(&self) -> String;

    /// Runs it to the end.
    fn launch(&self) -> anyhow::Result<()>;
}

/// Spawn and exec only: what any way costs at least.
pub struct Bare(pub PathBuf);

impl Launcher for Bare {
    fn name(&self) -> String {
        "spawn and exec only".to_owned()
    }

    fn launch(&self) -> anyhow::Result<()> {
        succeed(&mut Command::new(self.0.join("bin/true")))
    }
}

/// Our jail, with the limits of a package's tests.
pub struct Jail {
    sandbox: Sandbox,
    policy: Policy,
    layers: usize,
}

impl Jail {
    /// On a root of these layers; `helper` is the Pantry to measure.
    pub fn new(helper: &Path, runs: &Path, root: Vec<PathBuf>) -> anyhow::Result<Self> {
        let sandbox = Sandbox::new(runs)?.with_helper(helper.to_owned());
        let layers = root.len();
        Ok(Self { sandbox, policy: Policy::new(root, vec!["/bin/true".to_owned()]), layers })
    }

    /// Which limits are really held here, as JSON.
    pub fn receipt(&self) -> anyhow::Result<String> {
        let outcome = self.sandbox.run(&self.policy, StdinBytes::Empty, &Cancel::new()?)?;
        Ok(serde_json::to_string(&outcome.receipt)?)
    }
}

impl Launcher for Jail {
    fn name(&self) -> String {
        match self.layers {
            1 => "jail".to_owned(),
            layers => format!("jail, root of {layers} layers"),
        }
    }

    fn launch(&self) -> anyhow::Result<()> {
        let outcome = self.sandbox.run(&self.policy, StdinBytes::Empty, &Cancel::new()?)?;
        ensure!(outcome.end.success(), "the jail ended with {:?}: {}", outcome.end, outcome.stderr.text());
        Ok(())
    }
}

/// bubblewrap with all namespaces, a read-only root, and `/proc`, `/dev` and `/tmp` of its own; no filter, no limits.
pub struct Bubblewrap(pub PathBuf);

impl Launcher for Bubblewrap {
    fn name(&self) -> String {
        "bwrap".to_owned()
    }

    fn launch(&self) -> anyhow::Result<()> {
        let mut command = Command::new("bwrap");
        command.args([
            "--unshare-all",
            "--unshare-user",
            "--uid",
            "65532",
            "--gid",
            "65532",
            "--cap-drop",
            "ALL",
        ]);
        command.args([
            "--die-with-parent",
            "--new-session",
            "--hostname",
            "pantry",
            "--clearenv",
            "--ro-bind",
        ]);
        command.arg(&self.0).args(["/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/bin/true"]);
        succeed(&mut command)
    }
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status =
        command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    ensure!(status.success(), "{} ended with {status}", command.get_program().display());
    Ok(())
}
