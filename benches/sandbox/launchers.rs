//! The ways to start a program that does nothing: bare, in our jail, by bubblewrap.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use pantry::sandbox::{Cancel, Outcome, Policy, Sandbox, StdinBytes};

use crate::tree;

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
    /// On a root of so many layers; what it writes lies in a folder of this name.
    pub fn new(folder: &Path, name: &str, layers: usize) -> anyhow::Result<Self> {
        let sandbox = Sandbox::new(&folder.join(format!("runs-{name}")))?.with_helper(folder.join("pantry"));
        let root = tree::layers(folder, layers);
        Ok(Self { sandbox, policy: Policy::new(root, vec!["/bin/true".to_owned()]), layers })
    }

    /// The same with another program.
    pub fn running(mut self, program: &str) -> Self {
        self.policy.argv = vec![program.to_owned()];
        self
    }

    /// One run.
    pub fn run(&self, cancel: &Cancel) -> anyhow::Result<Outcome> {
        Ok(self.sandbox.run(&self.policy, StdinBytes::Empty, cancel)?)
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
        let outcome = self.run(&Cancel::new()?)?;
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

/// Runs a command that says nothing when it succeeds.
pub fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status =
        command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    ensure!(status.success(), "{} ended with {status}", command.get_program().display());
    Ok(())
}
