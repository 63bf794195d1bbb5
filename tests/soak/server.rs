//! The server under the soak: started on one port, killed again and again, started again.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// How a server is started.
pub struct Program {
    pub binary: PathBuf,
    /// The bundle, when there is none in the program.
    pub bundle: Option<PathBuf>,
    /// Settings beside the address, as variables.
    pub settings: Vec<(&'static str, String)>,
}

/// A server on a root of its own that always comes back at the same address.
pub struct Server {
    binary: PathBuf,
    bundle: Option<PathBuf>,
    settings: Mutex<Vec<(&'static str, String)>>,
    pub root: PathBuf,
    port: u16,
    child: Mutex<Option<Child>>,
    /// Even while it runs, odd from just before its death until it answers again.
    epoch: AtomicU64,
}

impl Server {
    pub fn start(program: Program, root: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let Program { binary, bundle, settings } = program;
        let (root, settings) = (root.to_owned(), Mutex::new(settings));
        let server =
            Self { binary, bundle, settings, root, port, child: Mutex::default(), epoch: AtomicU64::new(1) };
        server.revive()?;
        Ok(server)
    }

    /// Changes a setting from the next start on.
    pub fn set(&self, variable: &'static str, value: impl Into<String>) {
        self.settings().push((variable, value.into()));
    }

    fn settings(&self) -> std::sync::MutexGuard<'_, Vec<(&'static str, String)>> {
        self.settings.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn token(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.root.join("keys/admin-token"))?.trim().to_owned())
    }

    /// The number of its present life; changes with every death, before it.
    pub fn life(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Waits until it runs; gives the number of that life.
    pub fn alive(&self, patience: Duration) -> Option<u64> {
        let began = Instant::now();
        loop {
            let life = self.life();
            if life.is_multiple_of(2) {
                return Some(life);
            }
            if began.elapsed() > patience {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kill -9.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let mut child = self.child().take().context("there is no server to kill")?;
        ensure!(child.try_wait()?.is_none(), "the server had ended by itself:\n{}", self.log());
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for a clean end.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let mut child = self.child().take().context("there is no server to stop")?;
        let id = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM)?;
        let status = child.wait()?;
        ensure!(status.success(), "the server ended with {status}:\n{}", self.log());
        Ok(())
    }

    /// Starts it after its death; gives how long that took.
    pub fn revive(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PANTRY_"))
        {
            command.env_remove(name);
        }
        if let Some(bundle) = &self.bundle {
            command.env("PANTRY_BUNDLE_LAYOUT", bundle);
        }
        command.envs(self.settings().iter().map(|(name, value)| (name, value)));
        command.arg("--root").arg(&self.root).args([
            "serve",
            "--listen",
            &format!("127.0.0.1:{}", self.port),
        ]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout was asked for as a pipe")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        if !line.contains("http://") {
            let _ = child.kill();
            let _ = child.wait();
            bail!("the server did not start again:\n{}", self.log());
        }
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        *self.child() = Some(child);
        self.epoch.fetch_add(1, Ordering::SeqCst);
        Ok(began.elapsed())
    }

    /// Waits until the work of a start is done, so that what it leaves is there.
    pub fn until_settled(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_mins(1) {
            let health = reqwest::blocking::Client::builder().no_proxy().build()?.get(self.url() + "/health");
            let answer = health.send()?;
            if answer.status().is_success() && !answer.text()?.contains("under way") {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the server does not get well:\n{}", self.log())
    }

    /// Runs a command of the program against this server.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<std::process::Output> {
        Ok(Command::new(&self.binary).arg("--root").arg(&self.root).args(arguments).output()?)
    }

    /// Resident memory at present, in MB.
    pub fn resident(&self) -> Option<u64> {
        let id = self.child().as_ref()?.id();
        let text = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024 / 1_000_000)
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn log_file(&self) -> PathBuf {
        self.root.with_extension("log")
    }

    /// Everything that it said. A death may have cut a line off anywhere.
    pub fn whole_log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// The end of what it said, without the requests that it answered as it should.
    pub fn log(&self) -> String {
        let log = self.whole_log();
        let answered =
            |line: &&str| ["2", "4"].iter().any(|class| line.contains(&format!("\"http.status\":{class}")));
        let lines: Vec<&str> = log.lines().filter(|line| !answered(line)).collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
