//! How long an empty jail takes, as root and without, beside bubblewrap with the same namespaces in turn.
//!
//! `docs/benchmarks.md` tells what a row means.
#![allow(clippy::print_stdout, clippy::print_stderr)] // A bench prints.
#![allow(clippy::cast_precision_loss)] // Figures are for people.

#[allow(dead_code)] // Each bench uses its part of these.
#[path = "measure/arguments.rs"]
mod arguments;
#[allow(dead_code)]
#[path = "measure/latency.rs"]
mod latency;
#[path = "sandbox/launchers.rs"]
mod launchers;
#[path = "measure/machine.rs"]
mod machine;
#[allow(dead_code)]
#[path = "measure/process.rs"]
mod process;
#[path = "measure/report.rs"]
mod report;
#[path = "sandbox/tree.rs"]
mod tree;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use arguments::Arguments;
use latency::Latencies;
use launchers::{Bare, Bubblewrap, Jail, Launcher};
use report::{Report, Table};

const USAGE: &str = "\
cargo bench --bench sandbox -- [--runs N] [--json FILE]
  --runs N     launches of each kind [default: 300]";

/// Under which an administrator's run is repeated without root.
const PLAIN_ID: u32 = 61_234;
/// Launches of one kind before another kind has its turn.
const TURN: usize = 50;

/// One row, as a run without root hands it to the run that prints.
#[derive(Serialize, Deserialize)]
struct Figures {
    name: String,
    figures: Vec<Option<f64>>,
}

fn main() -> anyhow::Result<()> {
    // The second run, without root: the files are made already.
    let arguments = Arguments::parse(USAGE, &[], &["--runs", "--in"]);
    let runs = arguments.number("--runs", 300);
    if let Some(folder) = arguments.all("--in").last() {
        println!("{}", serde_json::to_string(&measure(Path::new(folder), "rootless", runs)?)?);
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("pantry-bench-").tempdir_in("/tmp")?;
    tree::open_up(folder.path())?;
    tree::make(folder.path())?;
    let helper = folder.path().join("pantry");
    fs_err::copy(process::pantry_binary()?, &helper)?;
    tree::open_up(&helper)?;
    let mut report = Report::new("sandbox", machine::describe(folder.path()));
    let mut table = Table::new(
        "launch of a static program that returns 0",
        &["p50 ms", "p95 ms", "p99 ms", "1 at once /s", "2 /s", "4 /s"],
    );
    let root = rustix::process::geteuid().is_root();
    let mut all = measure(folder.path(), if root { "root" } else { "rootless" }, runs)?;
    if root {
        all.extend(again_without_root(folder.path(), runs)?);
    } else {
        report.note("the caller isn't root: the rows of root are missing");
    }
    for row in all {
        table.row(row.name, row.figures);
    }
    report.table(&table);
    let jail = Jail::new(&helper, &folder.path().join("runs-receipt"), vec![folder.path().join("root")])?;
    report.note(format!("the jail's receipt: {}", jail.receipt()?));
    report.finish(arguments.json.as_deref())
}

/// Every way in turn, so that a busy moment hits all of them.
fn measure(folder: &Path, who: &str, runs: usize) -> anyhow::Result<Vec<Figures>> {
    let (root, helper) = (folder.join("root"), folder.join("pantry"));
    let jails = folder.join(format!("runs-{who}"));
    let layers = folder.join(format!("layers-{who}"));
    let mut launchers: Vec<Box<dyn Launcher>> = vec![
        Box::new(Bare(root.clone())),
        Box::new(Jail::new(&helper, &jails, vec![root.clone()])?),
        Box::new(Jail::new(&helper, &jails, tree::layers(&layers, &root, 3)?)?),
    ];
    let bubblewrap = Bubblewrap(root);
    match bubblewrap.launch() {
        Ok(()) => launchers.push(Box::new(bubblewrap)),
        Err(error) => eprintln!("the rows of bwrap are missing as {who}: {error:#}"),
    }
    let mut latencies = vec![Latencies::default(); launchers.len()];
    for launcher in &launchers {
        launcher.launch().with_context(|| format!("{} as {who}", launcher.name()))?;
    }
    for turn in 0..runs.div_ceil(TURN) {
        for (launcher, latencies) in launchers.iter().zip(&mut latencies) {
            for _ in 0..TURN.min(runs - turn * TURN) {
                let began = Instant::now();
                launcher.launch()?;
                latencies.push(began.elapsed());
            }
        }
    }
    let mut rows = Vec::new();
    for (launcher, latencies) in launchers.iter().zip(&latencies) {
        let mut figures = [50, 95, 99].map(|percent| latencies.percentile_ms(percent)).to_vec();
        for at_once in [1, 2, 4] {
            figures.push(Some(rate(launcher.as_ref(), at_once, runs)?));
        }
        rows.push(Figures { name: format!("{}, {who}", launcher.name()), figures });
    }
    Ok(rows)
}

/// Launches a second with so many at once.
fn rate(launcher: &dyn Launcher, at_once: usize, runs: usize) -> anyhow::Result<f64> {
    let taken = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while taken.fetch_add(1, Ordering::Relaxed) < runs {
                    if let Err(error) = launcher.launch() {
                        *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                        break;
                    }
                }
            });
        }
    });
    let elapsed: Duration = began.elapsed();
    match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(runs as f64 / elapsed.as_secs_f64()),
    }
}

/// Runs this program once more as an ordinary user, on the same files.
fn again_without_root(folder: &Path, runs: usize) -> anyhow::Result<Vec<Figures>> {
    let own = folder.join("bench");
    fs_err::copy(std::env::current_exe()?, &own)?;
    tree::open_up(&own)?;
    for name in ["runs-rootless", "layers-rootless"] {
        fs_err::create_dir(folder.join(name))?;
        std::os::unix::fs::chown(folder.join(name), Some(PLAIN_ID), Some(PLAIN_ID))?;
    }
    let ran = Command::new(&own)
        .args(["--runs", &runs.to_string(), "--in"])
        .arg(folder)
        .current_dir("/")
        .uid(PLAIN_ID)
        .gid(PLAIN_ID)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(ran.status.success(), "the run without root ended with {}", ran.status);
    Ok(serde_json::from_slice(&ran.stdout)?)
}
