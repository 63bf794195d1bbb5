//! How long an empty jail takes, as root and without, beside bubblewrap and the runtimes of container engines with the
//! same namespaces, all in turn; what host mounts add; and what a run that waits keeps in memory.
//!
//! `docs/benchmarks.md` tells what a row means.
#![allow(clippy::print_stdout, clippy::print_stderr)] // A bench prints.
#![allow(clippy::cast_precision_loss)] // Figures are for people.

#[allow(dead_code)] // Each bench uses its part of these.
#[path = "measure/arguments.rs"]
mod arguments;
#[path = "sandbox/containers.rs"]
mod containers;
#[path = "sandbox/idle.rs"]
mod idle;
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
#[path = "sandbox/worker.rs"]
mod worker;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use pantry::sandbox::Cancel;

use arguments::Arguments;
use latency::Latencies;
use launchers::Jail;
use report::{Report, Table};
use worker::{Kind, PLAIN_ID, Worker};

const USAGE: &str = "\
cargo bench --bench sandbox -- [--runs N] [--json FILE]
  --runs N     launches of each kind [default: 300]";

/// Launches of one kind before another kind has its turn.
const TURN: usize = 25;
/// So many launches at once.
const AT_ONCE: [usize; 4] = [1, 2, 4, 8];

const WAYS: &[&str] = &["bare", "jail", "layers", "bwrap"];
/// In a mount namespace of their own: crun refuses hosts with both versions of control groups mounted.
const RUNTIMES: &[&str] = &["runc", "crun"];
const MOUNTED: &[&str] = &["jail", "bwrap"];

fn kinds(root: bool) -> Vec<Kind> {
    let kind = |name, plain, mounts, ways| Kind { name, plain, mounts, ways };
    if !root {
        return vec![kind("rootless", false, None, WAYS)];
    }
    vec![
        kind("root", false, None, WAYS),
        kind("root, runtimes", false, Some(0), RUNTIMES),
        kind("rootless", true, None, WAYS),
        kind("0 mounts more", false, Some(0), MOUNTED),
        kind("50 mounts more", false, Some(50), MOUNTED),
        kind("500 mounts more", false, Some(500), MOUNTED),
    ]
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse(USAGE, &[], &["--runs", "--in", "--worker", "--ways", "--mounts"]);
    if let Some(name) = arguments.all("--worker").last() {
        return worker::serve(&arguments, name);
    }
    let runs = arguments.number("--runs", 300);
    let folder = tempfile::Builder::new().prefix("pantry-bench-").tempdir_in("/tmp")?;
    let folder = folder.path();
    tree::open_up(folder)?;
    tree::make(folder)?;
    for (from, to) in [(process::pantry_binary()?, "pantry"), (std::env::current_exe()?, "bench")] {
        fs_err::copy(from, folder.join(to))?;
        tree::open_up(&folder.join(to))?;
    }
    let root = rustix::process::geteuid().is_root();
    let mut report = Report::new("sandbox", machine::describe(folder));
    let mut workers = Vec::new();
    for kind in kinds(root) {
        make_room(folder, &kind)?;
        workers.push(Worker::start(folder, kind)?);
    }
    let rows = measure(&mut workers, runs)?;
    launches(&mut report, &rows);
    mounts(&mut report, &rows);
    memory(&mut report, &mut workers)?;
    if !root {
        report.note("the caller isn't root: the rows of root, of runtimes and of host mounts are missing");
    }
    report.note(
        "bwrap: --unshare-all --unshare-user, a read-only root, own /proc /dev /tmp; runc and crun: run of a bundle with \
         the same namespaces and mounts, in crun --cgroup-manager=disabled. None of them has a filter, limits or a receipt",
    );
    let jail = Jail::new(folder, "receipt", 1)?;
    report
        .note(format!("the jail's receipt: {}", serde_json::to_string(&jail.run(&Cancel::new()?)?.receipt)?));
    report.finish(arguments.json.as_deref())
}

/// The folders into which a worker's jails write, as its user's.
fn make_room(folder: &Path, kind: &Kind) -> anyhow::Result<()> {
    for name in [kind.name.to_owned(), format!("idle-{}", kind.name)] {
        let room = folder.join(format!("runs-{name}"));
        fs_err::create_dir(&room)?;
        if kind.plain {
            std::os::unix::fs::chown(&room, Some(PLAIN_ID), Some(PLAIN_ID))?;
        }
    }
    Ok(())
}

/// One way to launch of one worker, with what came of it.
struct Row {
    worker: usize,
    way: usize,
    who: &'static str,
    name: String,
    latencies: Latencies,
    /// For each of [`AT_ONCE`]: launches, and milliseconds for them.
    together: [(usize, f64); AT_ONCE.len()],
}

impl Row {
    fn percentile(&self, percent: usize) -> Option<f64> {
        self.latencies.percentile_ms(percent)
    }

    fn rates(&self) -> impl Iterator<Item = Option<f64>> {
        self.together.iter().map(|(launches, ms)| (*launches > 0).then(|| *launches as f64 / ms * 1e3))
    }
}

/// Every way of every worker in turn, so that a busy moment hits all of them.
fn measure(workers: &mut [Worker], runs: usize) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (number, worker) in workers.iter().enumerate() {
        for (way, name) in worker.ways.iter().enumerate() {
            let (name, who) = (name.clone(), worker.kind.name);
            let together = [(0, 0.0); AT_ONCE.len()];
            rows.push(Row { worker: number, way, who, name, latencies: Latencies::default(), together });
        }
    }
    let mut left = runs;
    while left > 0 {
        let turn = left.min(TURN);
        left -= turn;
        for row in &mut rows {
            let launched = workers[row.worker].launch(row.way, turn, 1)?;
            for ms in launched.each_ms {
                row.latencies.push(Duration::from_secs_f64(ms / 1e3));
            }
        }
        for (place, at_once) in AT_ONCE.into_iter().enumerate() {
            for row in &mut rows {
                // A few at once are too few to measure.
                let launches = turn.max(2 * at_once);
                let launched = workers[row.worker].launch(row.way, launches, at_once)?;
                row.together[place].0 += launches;
                row.together[place].1 += launched.whole_ms;
            }
        }
    }
    Ok(rows)
}

fn launches(report: &mut Report, rows: &[Row]) {
    let columns =
        ["p50 ms", "p95 ms", "p99 ms", "1 at once /s", "2 /s", "4 /s", "8 /s", "p50 ÷ bwrap", "2/s ÷ bwrap"];
    let mut table = Table::new("launch of a static program that returns 0", &columns);
    for row in rows.iter().filter(|row| !row.who.ends_with("more")) {
        let who = row.who.split(',').next().unwrap_or_default();
        let beside = rows.iter().find(|other| other.name == "bwrap" && other.who == who);
        let mut figures: Vec<Option<f64>> = [50, 95, 99].map(|percent| row.percentile(percent)).to_vec();
        figures.extend(row.rates());
        figures.push(ratio(row.percentile(50), beside.and_then(|bwrap| bwrap.percentile(50))));
        figures.push(ratio(row.rates().nth(1).flatten(), beside.and_then(|bwrap| bwrap.rates().nth(1)?)));
        table.row(format!("{}, {who}", row.name), figures);
    }
    report.table(&table);
}

fn mounts(report: &mut Report, rows: &[Row]) {
    let mut table = Table::new(
        "the same as root, with more mounts on the host",
        &["p50 ms", "p95 ms", "2 /s", "÷ 0 more"],
    );
    for row in rows.iter().filter(|row| row.who.ends_with("more")) {
        let none = rows.iter().find(|other| other.name == row.name && other.who.starts_with("0 "));
        let median = row.percentile(50);
        table.row(
            format!("{}, {}", row.name, row.who),
            vec![
                median,
                row.percentile(95),
                row.rates().nth(1).flatten(),
                ratio(median, none.and_then(|none| none.percentile(50))),
            ],
        );
    }
    report.table(&table);
}

fn memory(report: &mut Report, workers: &mut [Worker]) -> anyhow::Result<()> {
    let mut table = Table::new(
        "a run that waits: helper and init together, KiB",
        &["PSS", "anonymous", "of the file", "page tables"],
    );
    for worker in workers.iter_mut().filter(|worker| worker.kind.ways == WAYS) {
        let held = worker.while_idle(idle::look).context("the idle run")?;
        let figures = [held.proportional, held.anonymous, held.file, held.page_tables];
        table.row(format!("jail, {}", worker.kind.name), figures.map(Some).to_vec());
    }
    report.table(&table);
    Ok(())
}

fn ratio(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.zip(other).map(|(one, other)| one / other)
}
