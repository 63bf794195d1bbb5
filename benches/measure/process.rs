//! The servers under measurement: started, looked at from outside, stopped.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

const PATIENCE: Duration = Duration::from_mins(2);

/// The Pantry to measure: `PANTRY_BENCH_BINARY`, else what `make bundle` leaves.
pub fn pantry_binary() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("PANTRY_BENCH_BINARY").map(PathBuf::from);
    let path = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pantry"));
    ensure!(
        path.is_file(),
        "{} isn't there: run `make bundle`, or name one by PANTRY_BENCH_BINARY",
        path.display()
    );
    Ok(path.canonicalize()?)
}

/// A server that ends with this value.
pub struct Process {
    child: Child,
    /// Where it answers.
    pub address: SocketAddr,
    /// From the start of the process to its first answer.
    pub ready: Duration,
}

/// What a process holds, in MB (10⁶ bytes).
#[derive(Clone, Copy)]
pub struct Memory {
    /// Resident now.
    pub resident: f64,
    /// Resident now and backed by no file.
    pub anonymous: f64,
    /// Resident at the most, since the start.
    pub peak: f64,
}

impl Process {
    /// Starts `pantry serve` on a root and a free port; the log goes beside the root.
    pub fn pantry(binary: &Path, root: &Path, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let log = root.with_extension("log");
        let mut command = Command::new(binary);
        command.arg("--root").arg(root).args(["serve", "--listen", "127.0.0.1:0"]);
        // What a tester has set for other purposes must not change the server that is measured.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PANTRY_"))
        {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?);
        let began = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().context("stdout was asked for as a pipe")?);
        stdout.read_line(&mut line)?;
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("http://")?.parse().ok());
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("pantry did not start: {}", fs_err::read_to_string(&log).unwrap_or_default());
        };
        // Nobody else reads what follows; a full pipe must not stop the server.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        let mut process = Self { child, address, ready: Duration::ZERO };
        process.until_it_answers()?;
        process.ready = began.elapsed();
        Ok(process)
    }

    /// Starts Debian's `docker-registry` on a folder and a free port; `None` when it isn't installed.
    ///
    /// It gets what helps it: descriptors cached in memory, no access log, no tracing hooks.
    pub fn docker_registry(folder: &Path) -> anyhow::Result<Option<Self>> {
        let program = Path::new("/usr/bin/docker-registry");
        if !program.is_file() {
            return Ok(None);
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let data = folder.join("data");
        fs_err::create_dir_all(&data)?;
        let config = folder.join("config.yml");
        let data = data.display();
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage:\n  cache: {{blobdescriptor: inmemory}}\n  filesystem: {{rootdirectory: \"{data}\"}}\n\
             http: {{addr: \"127.0.0.1:{port}\"}}\n"
        );
        fs_err::write(&config, text)?;
        let began = Instant::now();
        let child = Command::new(program)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(File::create(folder.join("out.log"))?)
            .stderr(File::create(folder.join("err.log"))?)
            .spawn()?;
        let mut process =
            Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)), ready: Duration::ZERO };
        process.until_it_answers()?;
        process.ready = began.elapsed();
        Ok(Some(process))
    }

    fn until_it_answers(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if get(self.address, "/v2/").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status} before it answered");
            }
            ensure!(Instant::now() < deadline, "the server at {} does not answer", self.address);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// One GET on a connection of its own; the whole answer as text.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Reads what the kernel says of a process's memory.
pub fn memory(id: u32) -> Option<Memory> {
    let text = fs_err::read_to_string(format!("/proc/{id}/status")).ok()?;
    let field = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib * 1024.0 / 1e6)
    };
    Some(Memory { resident: field("VmRSS:")?, anonymous: field("RssAnon:")?, peak: field("VmHWM:")? })
}

/// Processor time of a process so far, user and kernel together.
pub fn processor_time(id: u32) -> Option<Duration> {
    let text = fs_err::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}
