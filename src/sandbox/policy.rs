//! The policy: what to run and under which limits, as plain data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::grant::Grant;
use super::host;
use super::network::{AllowedHost, Serve, Server};
use super::receipt::Enforcement;

const MIB: u64 = 1024 * 1024;

/// The user id that programs have inside a jail unless the policy says otherwise.
pub const DEFAULT_ID: u32 = 65532;

/// What to run and under which limits.
///
/// All paths "inside" are absolute and normalized (no `.`, `..`, empty or link component); what is mounted below
/// `/proc` and `/dev` is the jail's own business and can't be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Host directories that make the root, bottom layer first. One is a read-only clone, several are a read-only
    /// overlay made inside, none is an empty read-only tmpfs. As root they must be readable by everybody.
    pub root: Vec<PathBuf>,
    /// Read-only files and directories of the host.
    pub inputs: Vec<Input>,
    /// Writable scratch space, gone with the run.
    pub tmpfs: Vec<Tmpfs>,
    /// Writable host directories. As root the *outside* id of the run (`identity.host_base`) must own them, which
    /// the caller arranges.
    pub data: Vec<DataMount>,
    /// The program (an absolute path inside) and its arguments.
    pub argv: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// Working directory inside.
    pub cwd: PathBuf,
    /// Host name inside.
    pub hostname: String,
    /// Who the program is.
    pub identity: Identity,
    /// What it reaches.
    pub network: Network,
    /// How much it may use.
    pub limits: Limits,
    /// The weakest enforcement accepted, limit by limit.
    pub require: Require,
    /// Scratch directories whose content is copied out after the end.
    pub outputs: Vec<OutputDir>,
    /// Where the standard streams go.
    pub stdio: Stdio,
    /// Which system calls are there.
    pub profile: SeccompProfile,
    /// What it may do beyond the ordinary; files of older versions have none.
    #[serde(default)]
    pub grants: Vec<Grant>,
}

/// A read-only file or directory of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Path on the host; a link there is followed.
    pub host: PathBuf,
    /// Path inside.
    pub at: PathBuf,
}

/// A writable scratch directory in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tmpfs {
    /// Path inside.
    pub at: PathBuf,
    /// Cap on its bytes.
    pub size_bytes: u64,
    /// Cap on its files and directories.
    pub inodes: u64,
}

/// A writable directory of the host, mounted without setuid bits and devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataMount {
    /// Path on the host; not a link.
    pub host: PathBuf,
    /// Path inside.
    pub at: PathBuf,
}

/// A scratch directory whose content is copied to the host once every process of the run is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputDir {
    /// Path inside.
    pub at: PathBuf,
    /// Cap on its bytes while the program runs.
    pub size_bytes: u64,
    /// Cap on its files and directories while the program runs.
    pub inodes: u64,
    /// Host directory to make (mode 0700); it must not exist yet.
    pub into: PathBuf,
    /// Most files and directories that are copied.
    pub max_files: u64,
    /// Most bytes that are copied.
    pub max_bytes: u64,
    /// Deepest directory that is copied; 1 is the directory itself.
    pub max_depth: u32,
}

/// The user and group of the program. Inside there is this one id and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// As root: the outside user id that `uid` stands for, and the group id too where `host_group` names none; `None`
    /// lets the sandbox pick one that owns nothing on the host. Without root it is always the caller's own id, and this
    /// is ignored.
    pub host_base: Option<u32>,
    /// As root: the outside group id that `gid` stands for; `None` takes the same number as for the user. A user's
    /// number may be that of a group with rights of its own, so that who names a user of the host had better name a
    /// group too, such as [`Identity::free_group`]. Without root this is ignored.
    #[serde(default)]
    pub host_group: Option<u32>,
}

impl Identity {
    /// The outside group id that a run of this process would get where nothing is named: one that is nobody's. None
    /// without root, or where there are but a few ids.
    #[must_use]
    pub fn free_group() -> Option<u32> {
        host::free_group(u64::from(std::process::id()))
    }
}

/// What a jail reaches over the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "mode")]
#[non_exhaustive]
pub enum Network {
    /// Nothing: a network namespace of its own in which not even loopback is up.
    None,
    /// A network namespace of its own with loopback alone; what is reached there is served from outside.
    Socket {
        /// What listens on 127.0.0.1, at most 8.
        servers: Vec<Server>,
    },
    /// A network namespace of its own with loopback, which the caller plugs into a network of his (a veth of his
    /// bridge) before the program starts, see [`Plug`](super::Plug).
    Service,
    /// The host's network, unconfined.
    Host,
}

/// How much a run may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory of all its processes and scratch space together.
    pub memory_bytes: u64,
    /// Processes and threads at a time.
    pub processes: u64,
    /// Processor time per time, in hundredths of one CPU.
    pub cpu_percent: u32,
    /// Wall clock in milliseconds; 0 is unlimited, which only commands may ask for.
    pub wall_ms: u64,
    /// Open files of a process.
    pub open_files: u64,
    /// Size of a file it writes.
    pub file_size_bytes: u64,
    /// What is kept of stdout and of stderr, each; beyond it the middle is dropped.
    pub output_bytes: u64,
    /// What it may print on both together before the run is ended.
    pub output_total_bytes: u64,
}

impl Limits {
    /// Limits of a package's tests: 128 MiB, 128 processes, one CPU, 180 seconds.
    #[must_use]
    pub fn tests() -> Self {
        Self {
            memory_bytes: 128 * MIB,
            processes: 128,
            cpu_percent: 100,
            wall_ms: 180_000,
            open_files: 1024,
            file_size_bytes: 64 * MIB,
            output_bytes: MIB,
            output_total_bytes: 16 * MIB,
        }
    }

    /// Limits of resolving, downloading and building: 2 GiB, 512 processes, two CPUs, ten minutes.
    #[must_use]
    pub fn build() -> Self {
        Self {
            memory_bytes: 2048 * MIB,
            processes: 512,
            cpu_percent: 200,
            wall_ms: 600_000,
            open_files: 4096,
            file_size_bytes: 2048 * MIB,
            output_bytes: MIB,
            output_total_bytes: 64 * MIB,
        }
    }

    /// Limits of an installed command: 2 GiB, 1,024 processes, four CPUs, no wall clock.
    #[must_use]
    pub fn command() -> Self {
        Self {
            memory_bytes: 2048 * MIB,
            processes: 1024,
            cpu_percent: 400,
            wall_ms: 0,
            open_files: 4096,
            file_size_bytes: 16 * 1024 * MIB,
            output_bytes: MIB,
            output_total_bytes: u64::MAX,
        }
    }
}

/// The weakest enforcement that a policy accepts, limit by limit; what the host can't give is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Require {
    /// For memory.
    pub memory: Enforcement,
    /// For processes.
    pub processes: Enforcement,
    /// For processor time.
    pub cpu: Enforcement,
    /// For the wall clock.
    pub wall: Enforcement,
}

impl Require {
    /// Accepts whatever the host offers.
    #[must_use]
    pub fn anything() -> Self {
        let none = Enforcement::None;
        Self { memory: none, processes: none, cpu: none, wall: none }
    }

    /// What publishing requires: memory, processes and wall clock by at least the watchdog.
    #[must_use]
    pub fn publishing() -> Self {
        let watchdog = Enforcement::Watchdog;
        Self { memory: watchdog, processes: watchdog, cpu: Enforcement::None, wall: watchdog }
    }
}

/// Where the standard streams of the program go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stdio {
    /// Into bounded rings that the outcome carries.
    Captured,
    /// To the caller's own streams (`exec` alone): pipes as they are (without root those that it reads
    /// from), everything else copied, so that no file, socket or terminal of the caller's is ever inside.
    Inherit,
    /// The same, with a terminal of the run's own in place of those that are terminals (`exec` alone). Its kind is the
    /// caller's to name in `TERM`, see [`terminal_kind`](super::terminal_kind).
    Terminal,
}

/// The list of system calls a program gets, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SeccompProfile {
    /// A package's tests and checks.
    Test,
    /// Resolving, downloading, building.
    Build,
    /// An installed command.
    Command,
    /// Our own program in an empty root, handling hostile bytes; has `openat2` beside the rest.
    Helper,
}

impl Policy {
    /// Makes a policy with safe defaults: no network, the limits of tests, an ordinary id, a `/tmp` of 64 MiB,
    /// a minimal environment.
    #[must_use]
    pub fn new(root: Vec<PathBuf>, argv: Vec<String>) -> Self {
        let env = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/tmp"), ("LANG", "C.UTF-8")];
        Self {
            root,
            inputs: Vec::new(),
            tmpfs: vec![Tmpfs { at: PathBuf::from("/tmp"), size_bytes: 64 * MIB, inodes: 16_384 }],
            data: Vec::new(),
            argv,
            env: env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            cwd: PathBuf::from("/"),
            hostname: "pantry".to_owned(),
            identity: Identity { uid: DEFAULT_ID, gid: DEFAULT_ID, host_base: None, host_group: None },
            network: Network::None,
            limits: Limits::tests(),
            require: Require::anything(),
            outputs: Vec::new(),
            stdio: Stdio::Captured,
            profile: SeccompProfile::Test,
            grants: Vec::new(),
        }
    }

    /// Adds a read-only file or directory of the host.
    #[must_use]
    pub fn input(mut self, host: impl AsRef<Path>, at: impl AsRef<Path>) -> Self {
        self.inputs.push(Input { host: host.as_ref().to_owned(), at: at.as_ref().to_owned() });
        self
    }

    /// Adds scratch space, or sizes anew what is there already.
    #[must_use]
    pub fn tmpfs(mut self, at: impl AsRef<Path>, size_bytes: u64, inodes: u64) -> Self {
        let at = at.as_ref().to_owned();
        self.tmpfs.retain(|tmpfs| tmpfs.at != at);
        self.tmpfs.push(Tmpfs { at, size_bytes, inodes });
        self
    }

    /// Adds a writable directory of the host.
    #[must_use]
    pub fn data(mut self, host: impl AsRef<Path>, at: impl AsRef<Path>) -> Self {
        self.data.push(DataMount { host: host.as_ref().to_owned(), at: at.as_ref().to_owned() });
        self
    }

    /// Adds an output directory of 16 MiB whose content is copied to `into`.
    #[must_use]
    pub fn output(mut self, at: impl AsRef<Path>, into: impl AsRef<Path>) -> Self {
        self.outputs.push(OutputDir {
            at: at.as_ref().to_owned(),
            size_bytes: 16 * MIB,
            inodes: 4096,
            into: into.as_ref().to_owned(),
            max_files: 4096,
            max_bytes: 16 * MIB,
            max_depth: 16,
        });
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the working directory inside.
    #[must_use]
    pub fn cwd(mut self, cwd: impl AsRef<Path>) -> Self {
        cwd.as_ref().clone_into(&mut self.cwd);
        self
    }

    /// Sets the host name inside.
    #[must_use]
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = name.into();
        self
    }

    /// Sets the user and group id inside; which ids they stand for outside is left to the sandbox.
    #[must_use]
    pub fn identity(mut self, uid: u32, gid: u32) -> Self {
        self.identity = Identity { uid, gid, host_base: None, host_group: None };
        self
    }

    /// Replaces the weakest enforcement that is accepted.
    #[must_use]
    pub fn require(mut self, require: Require) -> Self {
        self.require = require;
        self
    }

    /// Sets where the standard streams go.
    #[must_use]
    pub fn stdio(mut self, stdio: Stdio) -> Self {
        self.stdio = stdio;
        self
    }

    /// Adds something beyond the ordinary.
    #[must_use]
    pub fn grant(mut self, grant: Grant) -> Self {
        self.grants.push(grant);
        self
    }

    /// Replaces the limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Replaces the network.
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Adds a proxy on 127.0.0.1:`port` that leads to these hosts; any other network is replaced.
    #[must_use]
    pub fn proxy(self, port: u16, allow: Vec<AllowedHost>) -> Self {
        self.server(Server { port, serve: Serve::Proxy { allow } })
    }

    /// Adds a service of the caller on 127.0.0.1:`port`; any other network is replaced. Where it leads to is given
    /// with the run, see [`Outside`](super::Outside).
    #[must_use]
    pub fn service(self, port: u16, name: impl Into<String>) -> Self {
        self.server(Server { port, serve: Serve::Service { name: name.into() } })
    }

    fn server(mut self, server: Server) -> Self {
        match &mut self.network {
            Network::Socket { servers } => servers.push(server),
            other => *other = Network::Socket { servers: vec![server] },
        }
        self
    }

    /// Replaces the list of system calls.
    #[must_use]
    pub fn profile(mut self, profile: SeccompProfile) -> Self {
        self.profile = profile;
        self
    }

    /// The servers on loopback, none unless the network is [`Network::Socket`].
    pub(crate) fn servers(&self) -> &[Server] {
        match &self.network {
            Network::Socket { servers } => servers,
            Network::None | Network::Service | Network::Host => &[],
        }
    }

    /// Whether other machines may be in reach: what they are, the sandbox does not know.
    pub(crate) fn leads_out(&self) -> bool {
        matches!(self.network, Network::Service | Network::Host)
    }

    /// Whether the run has a network namespace of its own.
    pub(crate) fn has_own_network(&self) -> bool {
        self.network != Network::Host
    }

    /// Whether calls that change a file's owner answer 0 without acting.
    ///
    /// A jail has one id, so such calls can't work; programs that expect to be root, and builds, need them to
    /// seem to.
    pub(crate) fn emulates_ownership(&self) -> bool {
        self.identity.uid == 0
            || self.profile == SeccompProfile::Build
            || self.grants.contains(&Grant::PackageManagement)
    }

    /// The capabilities of everything that is granted.
    pub(crate) fn granted(&self) -> CapabilitySet {
        self.grants.iter().fold(CapabilitySet::empty(), |all, grant| all | grant.capabilities())
    }
}
