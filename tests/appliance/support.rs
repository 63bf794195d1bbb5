//! Starts servers and clients for the tests; knows public interfaces only.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::accounts::Account;
use super::leaks::Watch;

/// The longest that anything in a test may take before it counts as hanging.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How long after the end of work something of it may still be there.
const TIDY: Duration = Duration::from_secs(15);

/// The program under test.
pub const PANTRY: &str = env!("CARGO_BIN_EXE_pantry");

/// The name of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The folder of the checkout.
pub fn checkout() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The bundle that all tests share.
pub fn bundle() -> PathBuf {
    let named = std::env::var_os("PANTRY_TEST_BUNDLE").map(PathBuf::from);
    let bundle = named.unwrap_or_else(|| checkout().join("target/test-bundle"));
    assert!(
        bundle.join("index.json").exists(),
        "{} is no bundle: run `make test`, or `make test-bundle` once before `cargo test`",
        bundle.display()
    );
    bundle
}

/// How a server is started.
#[derive(Clone, Copy, Default)]
pub struct Start<'a> {
    pub account: Account,
    /// Another program than the one under test, such as one with a bundle inside.
    pub program: Option<&'a Path>,
    /// Leaves the address to the environment, and the bundle to the program.
    pub bare: bool,
    pub environment: &'a [(&'a str, &'a str)],
    /// Another place for stderr than a file beside the root.
    pub log: Option<&'a Path>,
}

impl Start<'_> {
    /// On a fresh root with the bundle unpacked.
    pub fn fresh(self) -> Server {
        let folder = self.account.fresh_root();
        let mut server = self.on(&folder.path().join("root"));
        server.folder = Some(folder);
        server
    }

    /// On a given root, which stays.
    pub fn on(self, root: &Path) -> Server {
        match self.try_on(root) {
            Ok(server) => server,
            Err(log) => panic!("the server did not start:\n{log}"),
        }
    }

    /// As `on`; gives what the server said when it does not start.
    pub fn try_on(self, root: &Path) -> Result<Server, String> {
        let log = self.log.map_or_else(|| root.with_extension("log"), Path::to_path_buf);
        std::fs::create_dir_all(root.parent().unwrap()).unwrap();
        let program = self.program.map_or_else(|| self.account.program(), Path::to_path_buf);
        let mut command = self.account.command(&program);
        command.arg("--root").arg(root).arg("serve").env_remove("PANTRY_FAULT");
        command.env("PANTRY_STORE_INDEX_URL", index_url());
        if !self.bare {
            command.args(["--listen", "127.0.0.1:0"]).env("PANTRY_BUNDLE_LAYOUT", self.account.bundle());
        }
        command
            .envs(self.environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap());
        let watch = Watch::begin(root);
        let mut child = command.spawn().unwrap();
        let (line, _) = first_line(&mut child);
        let Some(line) = line else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(std::fs::read_to_string(&log).unwrap_or_default());
        };
        let url = line.split_whitespace().find(|word| word.contains("://")).unwrap().to_owned();
        let (account, root) = (self.account, root.to_path_buf());
        let fault = self.environment.iter().find(|(name, _)| *name == "PANTRY_FAULT");
        let fault = fault.map(|(_, point)| (*point).to_owned());
        let child = Mutex::new(child);
        Ok(Server { child, url, root, log, account, program, watch, fault, folder: None })
    }
}

/// A running `pantry serve` on a root of its own.
pub struct Server {
    child: Mutex<Child>,
    pub url: String,
    pub root: PathBuf,
    log: PathBuf,
    pub account: Account,
    program: PathBuf,
    watch: Watch,
    /// The point at which it is to end.
    fault: Option<String>,
    /// Removed with the server.
    folder: Option<tempfile::TempDir>,
}

impl Server {
    /// A server on a fresh root with the bundle unpacked.
    pub fn start() -> Self {
        Start::default().fresh()
    }

    /// The same with environment variables.
    pub fn start_with(environment: &[(&str, &str)]) -> Self {
        Start { environment, ..Start::default() }.fresh()
    }

    /// A server on a given root, which stays.
    pub fn start_on(root: &Path, environment: &[(&str, &str)]) -> Self {
        Start { environment, ..Start::default() }.on(root)
    }

    /// As `start_on`; gives what the server said when it does not start.
    pub fn try_start(root: &Path, environment: &[(&str, &str)]) -> Result<Self, String> {
        Start { environment, ..Start::default() }.try_on(root)
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// SIGTERM, and waits for a clean end.
    pub fn stop(&self) {
        let mut child = self.child.lock().unwrap();
        signal(child.id(), nix::sys::signal::Signal::SIGTERM);
        let status = wait_for(&mut child, Duration::from_secs(20)).expect("the server must stop within 20 s");
        assert!(status.success(), "the server ended with {status}:\n{}", self.log());
    }

    /// SIGKILL: nothing of ours runs any more.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        child.wait().unwrap();
    }

    /// Waits until the process has ended by itself (a fault point).
    pub fn until_dead(&self) {
        let mut child = self.child.lock().unwrap();
        wait_for(&mut child, PATIENCE).unwrap_or_else(|| {
            panic!("the server lives on, though it should end at {:?}:\n{}", self.fault, self.log())
        });
    }

    /// Everything that the server has logged.
    pub fn whole_log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of what the server has logged, without the requests that went well: for messages.
    pub fn log(&self) -> String {
        let log = self.whole_log();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("\"http.status\":2")).collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Waits until foreign code is admitted and every check is well.
    pub fn until_healthy(&self) {
        until("the run-time proof has passed", || {
            let sandbox = &self.admin_get("/v1/status")["sandbox"];
            sandbox.is_object() && sandbox["proof"].is_null()
        });
        until("the server is healthy", || self.get("/health").0 == 200);
    }

    /// GET: status and JSON.
    pub fn get(&self, path: &str) -> (u16, Value) {
        let response = http().get(format!("{}{path}", self.url)).send().unwrap();
        (response.status().as_u16(), response.json().unwrap_or(Value::Null))
    }

    /// The administrator's token.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.root.join("keys/admin-token")).unwrap().trim().to_owned()
    }

    /// Runs a client command against this server.
    pub fn pantry(&self, arguments: &[&str]) -> Output {
        self.pantry_as(self.account, &self.program, arguments)
    }

    /// The same as somebody else.
    pub fn pantry_as(&self, account: Account, program: &Path, arguments: &[&str]) -> Output {
        account.command(program).arg("--root").arg(&self.root).args(arguments).output().unwrap()
    }

    /// Runs the wrapper of an installed command.
    pub fn run_installed(&self, command: &str, arguments: &[&str]) -> Output {
        self.account.command(self.root.join("bin").join(command)).args(arguments).output().unwrap()
    }

    /// The same, which must succeed; gives its JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--output", "json"];
        all.extend(arguments);
        let output = self.pantry(&all);
        assert!(output.status.success(), "{arguments:?}: {}\n{}", show(&output), self.log());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Submits a folder and follows it to its end.
    pub fn submit(&self, folder: &Path) -> Value {
        let output = self.pantry(&["--output", "json", "submit", folder.to_str().unwrap(), "--watch"]);
        let text = String::from_utf8_lossy(&output.stdout);
        let mut documents = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        documents.next().unwrap_or_else(|| panic!("no answer: {}\n{}", show(&output), self.log())).unwrap()
    }

    /// All submissions, newest last or first as the server has them.
    pub fn submissions(&self) -> Vec<Value> {
        self.admin_get("/v1/submissions")["items"].as_array().unwrap().clone()
    }

    /// GET with the administrator's token.
    pub fn admin_get(&self, path: &str) -> Value {
        http().get(format!("{}{path}", self.url)).bearer_auth(self.token()).send().unwrap().json().unwrap()
    }

    /// The address without scheme, as engines want it.
    pub fn address(&self) -> &str {
        self.url.rsplit('/').next().unwrap()
    }

    /// What is left of work: files, mounts, control groups and processes, in words.
    pub fn leftovers(&self) -> Vec<String> {
        self.watch.left(Some(self.pid()))
    }

    /// Waits until no work has left anything.
    pub fn until_nothing_is_left(&self, when: &str) {
        let began = Instant::now();
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(began.elapsed() < TIDY, "left {when}: {left:#?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if matches!(child.try_wait(), Ok(None)) {
            // Asked first: who is killed cannot take the control groups of its jails away.
            signal(child.id(), nix::sys::signal::Signal::SIGTERM);
            if wait_for(&mut child, Duration::from_secs(5)).is_none() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// A folder with a `root` in it on which the bundle is unpacked.
pub fn fresh_root() -> tempfile::TempDir {
    Account::Caller.fresh_root()
}

/// The stand-in index of the checkout, one for all tests of this process; it ends with the process.
pub fn index_url() -> String {
    struct Index(Mutex<Child>, String);
    static INDEX: LazyLock<Index> = LazyLock::new(|| {
        let mut child = Command::new("/usr/bin/python3")
            .arg(checkout().join("examples/local-index/serve.py"))
            // It ends when this process, which holds the other end, is gone.
            .arg("--until-stdin-closes")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (line, _) = first_line(&mut child);
        Index(Mutex::new(child), line.expect("the local index must start"))
    });
    assert!(INDEX.0.lock().unwrap().try_wait().unwrap().is_none(), "the local index must live");
    INDEX.1.clone()
}

/// A client for requests to the server.
pub fn http() -> reqwest::blocking::Client {
    static CLIENT: LazyLock<reqwest::blocking::Client> =
        LazyLock::new(|| reqwest::blocking::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap());
    CLIENT.clone()
}

/// Looks again and again until it holds; panics with `what` when it never does.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A package of the examples, copied so that a test may alter it.
pub fn example(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = checkout().join("examples").join(name);
    let copied = Command::new("cp")
        .arg("-a")
        .arg(format!("{}/.", from.display()))
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(copied.success(), "no example {name}");
    folder
}

/// Replaces text in a file of a package.
pub fn edit(folder: &Path, file: &str, from: &str, to: &str) {
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} does not contain {from:?}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

/// An output as a person would see it.
pub fn show(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Is a program there?
pub fn has(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Says on stdout that a test cannot run here, in the form that CI collects.
pub fn skip(test: &str, why: &str) {
    println!("SKIPPED {test}: {why}");
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

pub fn wait_for(child: &mut Child, patience: Duration) -> Option<std::process::ExitStatus> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if began.elapsed() > patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The first line on stdout; the rest is read away by a thread.
pub fn first_line(child: &mut Child) -> (Option<String>, std::thread::JoinHandle<()>) {
    let stdout = child.stdout.take().unwrap();
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    (receiver.recv_timeout(PATIENCE).ok(), reader)
}
