//! The same program by the runtimes of the container engines, from a bundle with the jail's namespaces.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::launchers::{Launcher, succeed};

/// Which runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    Runc,
    Crun,
}

impl Runtime {
    fn program(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }
}

/// A runtime with its bundle.
pub struct Engine {
    runtime: Runtime,
    bundle: PathBuf,
    state: PathBuf,
    next: AtomicU64,
}

impl Engine {
    /// With a bundle of its own, made anew.
    pub fn new(runtime: Runtime, folder: &Path, name: &str) -> anyhow::Result<Self> {
        if runtime == Runtime::Crun {
            // It refuses hosts that have both versions of control groups mounted. This is done to a mount namespace
            // that was made for this process.
            let _none = rustix::mount::unmount("/sys/fs/cgroup/unified", rustix::mount::UnmountFlags::DETACH);
        }
        let bundle = folder.join(format!("runs-{name}")).join(runtime.program());
        let state = bundle.join("state");
        fs_err::create_dir_all(&state)?;
        fs_err::write(
            bundle.join("config.json"),
            serde_json::to_vec(&config(runtime, &folder.join("root")))?,
        )?;
        Ok(Self { runtime, bundle, state, next: AtomicU64::new(0) })
    }
}

impl Launcher for Engine {
    fn name(&self) -> String {
        self.runtime.program().to_owned()
    }

    fn launch(&self) -> anyhow::Result<()> {
        let id = format!("{}-{}", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed));
        let mut command = Command::new(self.runtime.program());
        command.arg("--root").arg(&self.state);
        if self.runtime == Runtime::Crun {
            command.arg("--cgroup-manager=disabled");
        }
        succeed(command.args(["run", "--bundle"]).arg(&self.bundle).arg(format!("pantry-bench-{id}")))
    }
}

/// A read-only root, `/proc`, `/dev`, `/tmp`, an ordinary id, no capability, no filter, no limits.
fn config(runtime: Runtime, root: &Path) -> Value {
    // runc wants a root inside.
    let (first, size) = if runtime == Runtime::Runc { (0, 65536) } else { (65532, 1) };
    let map = json!([{ "containerID": first, "hostID": 1_000_000, "size": size }]);
    let tmpfs =
        |at: &str| json!({ "destination": at, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"] });
    let namespaces = ["pid", "ipc", "uts", "mount", "network", "user"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 65532, "gid": 65532 }, "args": ["/bin/true"],
            "env": [], "cwd": "/", "noNewPrivileges": true,
        },
        "root": { "path": root, "readonly": true },
        "hostname": "pantry",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" }, tmpfs("/dev"), tmpfs("/tmp"),
        ],
        "linux": { "namespaces": namespaces, "uidMappings": map, "gidMappings": map },
    })
}
