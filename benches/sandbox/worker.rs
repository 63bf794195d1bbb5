//! The processes that launch: one for each user and each number of host mounts, all told what to do by the one that
//! prints, so that every way has its turn in every busy moment.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use pantry::sandbox::Cancel;
use serde::{Deserialize, Serialize};

use crate::arguments::Arguments;
use crate::containers::{Engine, Runtime};
use crate::launchers::{Bare, Bubblewrap, Jail, Launcher};
use crate::tree;

/// Under which an administrator's launches are repeated without root.
pub const PLAIN_ID: u32 = 61_234;

/// What a worker is to be.
#[derive(Clone, Debug)]
pub struct Kind {
    /// As it stands in the table.
    pub name: &'static str,
    /// As the ordinary user, though the caller is root.
    pub plain: bool,
    /// In a mount namespace of its own, with so many mounts more than the host has.
    pub mounts: Option<usize>,
    /// Which ways to launch it is asked for.
    pub ways: &'static [&'static str],
}

/// What a worker does next.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Launches, so many at once.
    Launch { way: usize, launches: usize, at_once: usize },
    /// Starts a run that waits, and ends it at the next order.
    Idle,
    /// The end of that.
    Enough,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// It can launch in these ways.
    Ready(Vec<String>),
    Launched(Launched),
    /// The order is being, or was, carried out.
    Done,
    Failed(String),
}

/// Times of some launches.
#[derive(Debug, Serialize, Deserialize)]
pub struct Launched {
    /// Of each, in milliseconds.
    pub each_ms: Vec<f64>,
    /// Of all together.
    pub whole_ms: f64,
}

/// A worker, seen from the process that prints.
pub struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub kind: Kind,
    /// The ways in which it can launch.
    pub ways: Vec<String>,
}

impl Worker {
    /// Starts one on the files of this folder.
    pub fn start(folder: &Path, kind: Kind) -> anyhow::Result<Self> {
        let own = folder.join("bench");
        let mut command = if kind.mounts.is_some() {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private"]).arg(&own);
            command
        } else {
            Command::new(&own)
        };
        command.args(["--worker", kind.name, "--ways", &kind.ways.join(","), "--in"]).arg(folder);
        if let Some(mounts) = kind.mounts {
            command.args(["--mounts", &mounts.to_string()]);
        }
        if kind.plain {
            command.uid(PLAIN_ID).gid(PLAIN_ID);
        }
        let mut child = command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().context("stdin was asked for as a pipe")?;
        let answers = BufReader::new(child.stdout.take().context("stdout was asked for as a pipe")?);
        let mut worker = Self { child, orders, answers, kind, ways: Vec::new() };
        match worker.answer()? {
            Answer::Ready(ways) => worker.ways = ways,
            other => bail!("the worker {} began with {other:?}", worker.kind.name),
        }
        Ok(worker)
    }

    /// Its process id; the same before and after `unshare`.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the worker {} is gone", self.kind.name))
    }

    fn ask(&mut self, order: &Order) -> anyhow::Result<Answer> {
        writeln!(self.orders, "{}", serde_json::to_string(order)?)?;
        match self.answer()? {
            Answer::Failed(why) => bail!("the worker {}: {why}", self.kind.name),
            answer => Ok(answer),
        }
    }

    /// Has it launch.
    pub fn launch(&mut self, way: usize, launches: usize, at_once: usize) -> anyhow::Result<Launched> {
        match self.ask(&Order::Launch { way, launches, at_once })? {
            Answer::Launched(launched) => Ok(launched),
            other => bail!("the worker {} answered {other:?}", self.kind.name),
        }
    }

    /// Calls `look` while a run of this worker waits.
    pub fn while_idle<T>(&mut self, look: impl FnOnce(u32) -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.ask(&Order::Idle)?;
        let seen = look(self.id());
        self.ask(&Order::Enough)?;
        seen
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The worker itself: carries out orders until there are no more.
pub fn serve(arguments: &Arguments, name: &str) -> anyhow::Result<()> {
    let folder = arguments.all("--in").last().map(PathBuf::from).context("--in is missing")?;
    if let Some(count) = arguments.all("--mounts").last() {
        more_mounts(&folder, name, count.parse()?)?;
    }
    let wanted = arguments.all("--ways").last().unwrap_or_default();
    let mut launchers: Vec<Box<dyn Launcher>> = Vec::new();
    for way in wanted.split(',') {
        // What can't be is left out, and said on stderr.
        match launcher(&folder, name, way).and_then(|launcher| launcher.launch().map(|()| launcher)) {
            Ok(launcher) => launchers.push(launcher),
            Err(error) if way == "jail" => return Err(error),
            Err(error) => eprintln!("no rows of {way}, {name}: {error:#}"),
        }
    }
    say(&Answer::Ready(launchers.iter().map(|launcher| launcher.name()).collect()))?;
    let mut lines = std::io::stdin().lines();
    while let Some(line) = lines.next() {
        match serde_json::from_str(&line?)? {
            Order::Launch { way, launches, at_once } => {
                let launcher = launchers.get(way).context("no such way")?;
                match launch(launcher.as_ref(), launches, at_once) {
                    Ok(launched) => say(&Answer::Launched(launched))?,
                    Err(error) => say(&Answer::Failed(format!("{}: {error:#}", launcher.name())))?,
                }
            }
            Order::Idle => {
                let jail = Jail::new(&folder, &format!("idle-{name}"), 1)?.running("/bin/idle");
                let cancel = Cancel::new()?;
                std::thread::scope(|scope| -> anyhow::Result<()> {
                    let running = scope.spawn(|| jail.run(&cancel));
                    say(&Answer::Done)?;
                    let _enough = lines.next();
                    cancel.cancel();
                    match running.join() {
                        Ok(ended) => ended.map(|_| ()),
                        Err(_) => bail!("the idle run panicked"),
                    }
                })?;
                say(&Answer::Done)?;
            }
            Order::Enough => say(&Answer::Done)?,
        }
    }
    Ok(())
}

fn say(answer: &Answer) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(answer)?)?;
    Ok(out.flush()?)
}

fn launcher(folder: &Path, name: &str, way: &str) -> anyhow::Result<Box<dyn Launcher>> {
    Ok(match way {
        "bare" => Box::new(Bare(folder.join("root"))),
        "jail" => Box::new(Jail::new(folder, name, 1)?),
        "layers" => Box::new(Jail::new(folder, name, 3)?),
        "bwrap" => Box::new(Bubblewrap(folder.join("root"))),
        "runc" => Box::new(Engine::new(Runtime::Runc, folder, name)?),
        "crun" => Box::new(Engine::new(Runtime::Crun, folder, name)?),
        other => bail!("{other} is no way to launch"),
    })
}

/// Mounts so many file systems more, in the mount namespace that was made for this process.
fn more_mounts(folder: &Path, name: &str, count: usize) -> anyhow::Result<()> {
    let below = folder.join(format!("mounts-{name}"));
    fs_err::create_dir_all(&below)?;
    tree::open_up(&below)?;
    for number in 0..count {
        let at = below.join(number.to_string());
        fs_err::create_dir_all(&at)?;
        rustix::mount::mount("pantry-bench", &at, "tmpfs", rustix::mount::MountFlags::empty(), c"size=4k")?;
    }
    Ok(())
}

/// Launches, so many at once.
fn launch(launcher: &dyn Launcher, launches: usize, at_once: usize) -> anyhow::Result<Launched> {
    let taken = AtomicUsize::new(0);
    let each_ms = Mutex::new(Vec::with_capacity(launches));
    let failed = Mutex::new(None);
    let one_after_another = || {
        let mut own = Vec::with_capacity(launches);
        while taken.fetch_add(1, Ordering::Relaxed) < launches {
            let began = Instant::now();
            if let Err(error) = launcher.launch() {
                *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                break;
            }
            own.push(began.elapsed().as_secs_f64() * 1e3);
        }
        each_ms.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(own);
    };
    let began = Instant::now();
    if at_once == 1 {
        one_after_another();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(one_after_another);
            }
        });
    }
    let whole_ms = began.elapsed().as_secs_f64() * 1e3;
    if let Some(error) = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        return Err(error);
    }
    let each_ms = each_ms.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(Launched { each_ms, whole_ms })
}
