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
        let address = line.split_whitespace().find_map(|word| {
            word.strip_prefix("http://").or_else(|| word.strip_prefix("https://"))?.parse().ok()
        });
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("pantry did not start: {}", fs_err::read_to_string(&log).unwrap_or_default());
        };
        // Nobody else reads what follows; a full pipe must not stop the server.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        let mut process = Self { child, address, ready: Duration::ZERO };
        process.until_it_answers(line.contains("https://"))?;
        process.ready = began.elapsed();
        Ok(process)
    }

    /// Starts Debian's `docker-registry` on a folder and a free port; `None` when it isn't installed.
    ///
    /// It gets what helps it: descriptors cached in memory, no access log, no tracing hooks.
    pub fn docker_registry(folder: &Path, pair: Option<&Pair>) -> anyhow::Result<Option<Self>> {
        let program = Path::new("/usr/bin/docker-registry");
        if !program.is_file() {
            return Ok(None);
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let data = folder.join("data");
        fs_err::create_dir_all(&data)?;
        let config = folder.join("config.yml");
        let data = data.display();
        let tls = pair.map_or_else(String::new, |pair| {
            format!(
                ", tls: {{certificate: \"{}\", key: \"{}\"}}",
                pair.certificate.display(),
                pair.key.display()
            )
        });
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage:\n  cache: {{blobdescriptor: inmemory}}\n  filesystem: {{rootdirectory: \"{data}\"}}\n\
             http: {{addr: \"127.0.0.1:{port}\"{tls}}}\n"
        );
        fs_err::write(&config, text)?;
        let mut command = Command::new(program);
        command.arg("serve").arg(&config).stdout(File::create(folder.join("out.log"))?);
        Self::other(command, folder, port, pair.is_some()).map(Some)
    }

    /// Starts nginx on a folder of files and a free port; `None` when it isn't installed.
    ///
    /// It gets what makes it fast on loopback: large buffers in place of sendfile, one worker a core, no log, and
    /// connections that never end.
    pub fn nginx(folder: &Path, pair: Option<&Pair>) -> anyhow::Result<Option<Self>> {
        let program = Path::new("/usr/sbin/nginx");
        if !program.is_file() {
            return Ok(None);
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let files = folder.join("files");
        fs_err::create_dir_all(&files)?;
        let (here, files) = (folder.display(), files.display());
        let (secure, tls) = pair.map_or(("", String::new()), |pair| {
            let (certificate, key) = (pair.certificate.display(), pair.key.display());
            (" ssl", format!("ssl_certificate {certificate}; ssl_certificate_key {key};"))
        });
        let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
        let text = format!(
            "{user} daemon off; worker_processes auto; pid {here}/nginx.pid; error_log {here}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile off; output_buffers 2 512k; tcp_nodelay on; keepalive_requests 100000000;\n\
             open_file_cache max=1000; client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n\
             fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;\n\
             server {{ listen 127.0.0.1:{port}{secure}; {tls} root {files}; location = /v2/ {{ return 200; }} }} }}\n"
        );
        let config = folder.join("nginx.conf");
        fs_err::write(&config, text)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&config).arg("-p").arg(folder).stdout(Stdio::null());
        Self::other(command, folder, port, pair.is_some()).map(Some)
    }

    /// Starts another's server, which was told to listen on that port.
    fn other(mut command: Command, folder: &Path, port: u16, secure: bool) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stderr(File::create(folder.join("err.log"))?);
        let (began, address) = (Instant::now(), SocketAddr::from(([127, 0, 0, 1], port)));
        let mut process = Self { child: command.spawn()?, address, ready: Duration::ZERO };
        process.until_it_answers(secure)?;
        process.ready = began.elapsed();
        Ok(process)
    }

    /// Who asks without credentials, or without TLS, is answered too.
    fn until_it_answers(&mut self, secure: bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answers = if secure {
                TcpStream::connect(self.address).is_ok()
            } else {
                get(self.address, "/v2/").is_ok_and(|text| {
                    ["HTTP/1.1 200", "HTTP/1.1 401"].iter().any(|line| text.starts_with(line))
                })
            };
            if answers {
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

    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
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
            // Asked first: who is killed cannot end the processes that it started.
            let id = i32::try_from(self.child.id()).map(nix::unistd::Pid::from_raw);
            let asked =
                id.is_ok_and(|id| nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).is_ok());
            let deadline = Instant::now() + Duration::from_secs(5);
            while asked && Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A certificate for 127.0.0.1 and its key, as files.
pub struct Pair {
    /// The certificate; believing it is enough.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Pair {
    /// Makes both in a folder.
    pub fn make(folder: &Path) -> anyhow::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        let pair = Self { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") };
        fs_err::write(&pair.certificate, made.cert.pem())?;
        fs_err::write(&pair.key, made.signing_key.serialize_pem())?;
        fs_err::set_permissions(&pair.key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(pair)
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
