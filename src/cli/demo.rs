//! `pantry demo`: a server on a temporary root, and a package that walks through everything.
//!
//! Every step runs this very program as a person would type it, and shows what it prints.

mod started;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use started::{Started, pid};

use super::arguments::Demo;
use super::failure::Failure;

pub(super) fn run(options: &Demo) -> Result<(), Failure> {
    let began = Instant::now();
    if !options.package.join("pantry_package.yaml").is_file() {
        return Err(Failure::usage(
            "manifest_not_found",
            format!("{} has no pantry_package.yaml", options.package.display()),
        )
        .with_hint(Some("run it in a checkout of Pantry, or name a package by --package".to_owned())));
    }
    let temporary = tempfile::Builder::new().prefix("pantry-demo-").tempdir()?;
    let walk = Walk {
        program: std::env::current_exe()?,
        package: fs_err::canonicalize(&options.package)?,
        root: temporary.path().join("root"),
        started: Started::watched(temporary.path().to_path_buf()),
        temporary: temporary.path().to_path_buf(),
    };
    let result = walk.run(options);
    walk.started.settle();
    result?;
    drop(temporary);
    step("Stopped");
    say(&format!(
        "the server has stopped and its root is removed; {:.1} s in all",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

struct Walk {
    program: PathBuf,
    package: PathBuf,
    root: PathBuf,
    temporary: PathBuf,
    started: Started,
}

/// A process of ours that must not outlive the demo.
struct Process {
    child: Child,
    /// What it printed first: the address of a server.
    url: String,
    started: Started,
}

impl Process {
    /// SIGTERM, and waits for a clean end.
    fn stop(mut self) -> Result<(), Failure> {
        nix::sys::signal::kill(pid(&self.child), nix::sys::signal::Signal::SIGTERM)
            .map_err(std::io::Error::from)?;
        ended_well(self.child.wait()?, "pantry serve")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.started.forget(&self.child);
    }
}

impl Walk {
    fn run(&self, options: &Demo) -> Result<(), Failure> {
        let index = self.choose_index(options)?;
        let mut server = self.serve(index.as_ref().map(|index| index.url.as_str()))?;
        let command = self.walk(&server.url)?;
        if options.keep {
            self.print_next(&server.url, &command);
            // The server stays with the person who typed it; Ctrl-C ends both.
            server.child.wait()?;
        }
        server.stop()
    }

    /// Gives the name of the installed command.
    fn walk(&self, url: &str) -> Result<String, Failure> {
        let package = self.package.display().to_string();

        step("Submit: checks, lockfile, build, sandboxed test, signed callback, publication");
        self.pantry(&["submit", &package, "--watch"])?;

        let id = text(&self.get("/v1/submissions")?["items"][0], "id")?;
        let submission = &self.get(&format!("/v1/submissions/{id}"))?;
        let reference = text(submission, "reference")?;
        let lockfile = text(submission, "lockfile")?;
        step("The lockfile that was resolved");
        say(lockfile.trim_end());

        step("The image's manifest, as any client of the registry sees it");
        let (repository, tag) = reference
            .rsplit_once(':')
            .ok_or_else(|| Failure::local("demo_failed", "the submission names no reference"))?;
        let manifest = self.get(&format!("/v2/{repository}/manifests/{tag}"))?;
        say(&serde_json::to_string_pretty(&manifest).unwrap_or_default());

        let name = text(submission, "name")?;
        step("Install, and run the installed command");
        self.pantry(&["install", &name])?;
        self.pantry(&["list"])?;
        let installed = self.get("/v1/installed")?;
        let command = installed["items"][0]["commands"][0]
            .as_str()
            .ok_or_else(|| Failure::local("demo_failed", "the installed package has no command"))?
            .to_owned();
        let wrapper = self.root.join("bin").join(&command);
        let from_wrapper = self.show(Command::new(&wrapper).arg("pantry"))?;

        step("The same image by an ordinary engine");
        self.engine(url, &reference, &from_wrapper)?;

        step("The changes behind all this");
        self.pantry(&["changes"])?;
        Ok(command)
    }

    /// Runs the image where an engine is at hand, and compares what it prints with the installed command.
    fn engine(&self, url: &str, reference: &str, expected: &str) -> Result<(), Failure> {
        let address = url.rsplit('/').next().unwrap_or(url);
        let image = format!("{address}/{reference}");
        if self.quiet(Command::new("docker").arg("info")) {
            let printed =
                self.show(Command::new("docker").args(["run", "--rm", "--network=none", &image, "pantry"]))?;
            let _ = self.quiet(Command::new("docker").args(["rmi", &image]));
            return same(&printed, expected);
        }
        if !self.quiet(Command::new("podman").arg("--version")) {
            say("no container engine is at hand (neither a docker that answers nor podman): skipped");
            return Ok(());
        }
        let store = self.temporary.join("podman");
        let outcome = self.by_podman(&store, &image, expected);
        // Without root the store belongs to ids of podman's own.
        let _ = self.quiet(self.podman(&store).args(["rmi", "--all", "--force"]));
        let _ = self.quiet(self.podman(&store).args(["unshare", "rm", "-rf"]).arg(&store));
        outcome
    }

    /// podman with all its folders below `store`.
    fn podman(&self, store: &Path) -> Command {
        let mut command = Command::new("podman");
        command
            .env("HOME", store)
            .env("XDG_RUNTIME_DIR", store)
            .env("XDG_CONFIG_HOME", store)
            .env("XDG_DATA_HOME", store)
            .arg("--root")
            .arg(store.join("root"))
            .arg("--runroot")
            .arg(store.join("run"))
            .args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none"]);
        if self.quiet(Command::new("runc").arg("--version")) {
            command.args(["--runtime", "runc"]);
        }
        command
    }

    fn by_podman(&self, store: &Path, image: &str, expected: &str) -> Result<(), Failure> {
        fs_err::create_dir_all(store)?;
        // Small limits of its own: podman's defaults ask for more than a confined root may set.
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        let run = |argument: &str| {
            let mut command = self.podman(store);
            command
                .args(["run", "--rm", "--tls-verify=false", "--network=none"])
                .args(limits)
                .args([image, argument]);
            command
        };
        // The command's help has passed its test: where it does not print here, it is podman that cannot run it.
        if !self.quiet(&mut run("--help")) {
            say("podman is installed but cannot work for this user here: skipped");
            return Ok(());
        }
        let printed = self.show(&mut run("pantry"))?;
        same(&printed, expected)
    }

    /// The package index that answers: the configured one, else the stand-in of this checkout.
    fn choose_index(&self, options: &Demo) -> Result<Option<Process>, Failure> {
        step("Which package index");
        let wheels = self.temporary.join("probe");
        let answers = self.quiet(
            Command::new("timeout")
                .args([
                    "20",
                    "python3",
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--no-deps",
                    "--only-binary=:all:",
                ])
                .args(["--no-cache-dir", "--retries", "0", "--dest"])
                .arg(&wheels)
                .arg(first_dependency(&options.package)?),
        );
        if answers {
            say("the package index that this machine is configured for answers: it is used");
            return Ok(None);
        }
        say("the configured package index does not answer: stand-in wheels are served on loopback instead");
        self.serve_index(&options.local_index).map(Some)
    }

    fn serve(&self, index: Option<&str>) -> Result<Process, Failure> {
        step("Start: pantry serve on a fresh root and a free port");
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(["serve", "--listen", "127.0.0.1:0"]);
        if let Some(index) = index {
            command.env("PANTRY_STORE_INDEX_URL", index);
        }
        let log = fs_err::File::create(self.temporary.join("serve.log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.into_parts().0);
        let mut server = self.process(&mut command)?;
        let line = first_line(&mut server.child, Duration::from_mins(2));
        let line = line.ok_or_else(|| {
            let _ = server.child.kill();
            let log = fs_err::read_to_string(self.temporary.join("serve.log")).unwrap_or_default();
            Failure::local("demo_failed", format!("the server did not start:\n{log}"))
        })?;
        say(&line);
        line.split_whitespace()
            .find(|word| word.starts_with("http://") || word.starts_with("https://"))
            .unwrap_or_default()
            .clone_into(&mut server.url);
        Ok(server)
    }

    /// Runs this program with the arguments, showing the line and what it prints.
    fn pantry(&self, arguments: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(arguments);
        say(&format!("$ pantry {}", arguments.join(" ")));
        self.run_shown(&mut command)
    }

    /// Reads a path over the server's own socket, which needs neither a token nor a certificate.
    fn get(&self, path: &str) -> Result<Value, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = self.root.join("run/pantry.sock");
        let answer = runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().unix_socket(socket.as_path()).build()?;
            client.get(format!("http://localhost{path}")).send().await?.error_for_status()?.bytes().await
        });
        let bytes = answer.map_err(|error| Failure::local("demo_failed", error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| Failure::local("demo_failed", error.to_string()))
    }

    fn show(&self, command: &mut Command) -> Result<String, Failure> {
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        say(&format!("$ {}", words.join(" ")));
        self.run_shown(command)
    }

    fn run_shown(&self, command: &mut Command) -> Result<String, Failure> {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let mut printed = String::new();
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                let line = line?;
                say(&super::output::safe(&line));
                printed.push_str(&line);
                printed.push('\n');
            }
        }
        let status = child.wait()?;
        self.started.forget(&child);
        ended_well(status, "the command")?;
        Ok(printed)
    }

    /// The stand-in index of the checkout, on loopback.
    fn serve_index(&self, program: &Path) -> Result<Process, Failure> {
        let mut command = Command::new("python3");
        command.arg(program).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = self.process(&mut command)?;
        let line = first_line(&mut process.child, Duration::from_secs(20));
        process.url = line
            .filter(|line| line.starts_with("http://127.0.0.1:"))
            .ok_or_else(|| Failure::local("demo_failed", format!("{} did not start", program.display())))?;
        Ok(process)
    }

    /// Runs it without showing anything; did it succeed?
    fn quiet(&self, command: &mut Command) -> bool {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut child) = self.started.spawn(command) else { return false };
        let ended = child.wait();
        self.started.forget(&child);
        ended.is_ok_and(|status| status.success())
    }

    fn process(&self, command: &mut Command) -> Result<Process, Failure> {
        let child = self.started.spawn(command)?;
        Ok(Process { child, url: String::new(), started: self.started.clone() })
    }

    fn print_next(&self, url: &str, command: &str) {
        let (program, root) = (self.program.display(), self.root.display());
        step("Yours to type next, in another terminal (Ctrl-C here ends the server and removes its root)");
        say(&format!("{root}/bin/{command} ada"));
        say(&format!("{program} --root {root} submit {} --preview", self.package.display()));
        let trust = self.root.join("ca.pem");
        let trust = if trust.exists() { format!("--cacert {} ", trust.display()) } else { String::new() };
        say(&format!("curl {trust}{url}/health"));
    }
}

/// The first line on the child's stdout; the rest is read away, so that the child never blocks on it.
fn first_line(child: &mut Child, patience: Duration) -> Option<String> {
    let stdout = child.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver.recv_timeout(patience).ok()
}

/// The first of the package's dependencies, to ask an index for.
fn first_dependency(package: &Path) -> Result<String, Failure> {
    let manifest = fs_err::read_to_string(package.join("pantry_package.yaml"))?;
    let value: Value = serde_saphyr::from_str(&manifest)
        .map_err(|error| Failure::local("manifest_parse_error", error.to_string()))?;
    let first = &value["packages"][0];
    let name = first.as_str().or(first["name"].as_str());
    Ok(name.unwrap_or("pip").split(['=', '<', '>', '~', '!', ' ', '[']).next().unwrap_or("pip").to_owned())
}

fn ended_well(status: ExitStatus, what: &str) -> Result<(), Failure> {
    if status.success() {
        Ok(())
    } else {
        Err(Failure::local("demo_failed", format!("{what} ended with {status}")))
    }
}

fn same(printed: &str, expected: &str) -> Result<(), Failure> {
    if printed == expected {
        say("the engine and the installed command print the same");
        return Ok(());
    }
    Err(Failure::local("demo_failed", format!("the engine printed {printed:?}, the command {expected:?}")))
}

fn text(value: &Value, key: &str) -> Result<String, Failure> {
    value[key]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::local("demo_failed", format!("the answer has no {key}: {value}")))
}

fn step(title: &str) {
    let _ = writeln!(std::io::stdout(), "\n== {title}");
}

fn say(text: &str) {
    for line in text.lines() {
        let _ = writeln!(std::io::stdout(), "   {line}");
    }
}
