//! A hundred hostile runs in a row while the registry serves pulls: what the pulls notice, and what is left.
//!
//! `docs/benchmarks.md` tells what a row means.
#![allow(clippy::print_stdout, clippy::print_stderr)] // A bench prints.
#![allow(clippy::cast_precision_loss)] // Figures are for people.

#[allow(dead_code)] // Each bench uses its part of these.
#[path = "measure/arguments.rs"]
mod arguments;
#[allow(dead_code)]
#[path = "registry/connection.rs"]
mod connection;
#[allow(dead_code)]
#[path = "registry/content.rs"]
mod content;
#[allow(dead_code)]
#[path = "measure/latency.rs"]
mod latency;
#[path = "hostile/left.rs"]
mod left;
#[path = "measure/machine.rs"]
mod machine;
#[allow(dead_code)]
#[path = "measure/process.rs"]
mod process;
#[path = "hostile/pulls.rs"]
mod pulls;
#[allow(dead_code)]
#[path = "measure/report.rs"]
mod report;
#[allow(dead_code)]
#[path = "registry/requests.rs"]
mod requests;
#[path = "hostile/runs.rs"]
mod runs;
#[allow(dead_code)]
#[path = "registry/target.rs"]
mod target;
#[path = "../tests/appliance/tls_client.rs"]
mod tls_client;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;

use arguments::Arguments;
use connection::Connection;
use content::Block;
use latency::Latencies;
use left::Traces;
use process::Process;
use pulls::Pull;
use report::{Report, Table};
use runs::Run;
use target::Target;

const USAGE: &str = "\
cargo bench --bench hostile -- [--runs N] [--rate N] [--json FILE]
  --runs N     hostile runs [default: 100]
  --rate N     pulls a second [default: 100]";

/// Images that are pulled in turn, each with a layer of this size.
const IMAGES: usize = 20;
const LAYER: usize = 1024 * 1024;
/// How long the pulls are measured alone, before and again after.
const ALONE: Duration = Duration::from_secs(15);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse(USAGE, &[], &["--runs", "--rate", "--hostile"]);
    let count = arguments.number("--runs", 100);
    if let Some(folder) = arguments.all("--hostile").last() {
        println!("{}", serde_json::to_string(&runs::make(Path::new(folder), count)?)?);
        return Ok(());
    }
    let rate = u32::try_from(arguments.number("--rate", 100))?;
    let folder = tempfile::Builder::new().prefix("pantry-bench-").tempdir_in("/tmp")?;
    let folder = folder.path();
    let mut report = Report::new("hostile", machine::describe(folder));
    runs::make_root(folder)?;
    let root = folder.join("pantry");
    let server = Process::pantry(&process::pantry_binary()?, &root, &[("PANTRY_AUTH_MODE", "token")])?;
    let token = fs_err::read_to_string(root.join("keys/admin-token"))?;
    let target = Target::plain(server.address).authorized(format!("Bearer {}", token.trim()));
    let mut images = Vec::new();
    let block = Block::new(LAYER)?;
    let mut connection = Connection::open(&target)?;
    for number in 0..IMAGES {
        let tag = format!("t{number}");
        images.push(requests::push_image(&mut connection, "local/bench", &tag, &block.blob()?)?);
    }
    drop(connection);
    // The proof that Pantry makes after a start is no part of this.
    std::thread::sleep(Duration::from_secs(3));

    let alone = |for_how_long: Duration| {
        let enough = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let pulling = scope.spawn(|| pulls::pull(&target, &images, rate, &enough));
            std::thread::sleep(for_how_long);
            enough.store(true, Ordering::Relaxed);
            pulling.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    };
    let resident = || process::memory(server.id()).map(|held| held.resident).context("the server is gone");
    alone(Duration::from_secs(2))?;
    let before = alone(ALONE)?;
    let (traces, memory) = (Traces::now(), resident()?);
    let enough = AtomicBool::new(false);
    let (beside, ran) = std::thread::scope(|scope| -> anyhow::Result<_> {
        let pulling = scope.spawn(|| pulls::pull(&target, &images, rate, &enough));
        let ran = runs::start(folder, count).and_then(runs::finish);
        enough.store(true, Ordering::Relaxed);
        let pulled = pulling.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((pulled?, ran?))
    })?;
    let during = resident()?;
    let after = alone(ALONE)?;
    let [processes, mounts, groups] = Traces::now().since(&traces);

    print_pulls(&mut report, rate, [&before, &beside, &after], &ran.runs);
    print_runs(&mut report, &ran.runs);
    let mut table = Table::new("left behind", &["processes", "mounts", "groups", "entries"]);
    let left = [processes, mounts, groups, ran.entries].map(|count| Some(count as f64));
    table.row(format!("by {count} runs"), left.to_vec());
    report.table(&table);
    let mut table = Table::new("resident memory, MB", &["before", "at the end", "later"]);
    table.row("the server", vec![Some(memory), Some(during), Some(resident()?)]);
    table.row(
        "the process that ran them (since four runs)",
        vec![Some(ran.resident.0), Some(ran.resident.1), None],
    );
    report.table(&table);
    report.finish(arguments.json.as_deref())
}

fn print_pulls(report: &mut Report, rate: u32, [before, beside, after]: [&[Pull]; 3], runs: &[Run]) {
    let columns = ["pulls", "p50 ms", "p95 ms", "p99 ms", "p99 ÷ alone"];
    let mut table = Table::new(format!("pulls of 1 MiB, {rate} a second"), &columns);
    let alone = [before, after].concat();
    let quiet = latencies(&alone).percentile_ms(99);
    let mut row = |name: &str, pulls: &[Pull]| {
        let latencies = latencies(pulls);
        let mut figures = vec![Some(latencies.count() as f64)];
        figures.extend([50, 95, 99].map(|percent| latencies.percentile_ms(percent)));
        figures.push(latencies.percentile_ms(99).zip(quiet).map(|(one, quiet)| one / quiet));
        table.row(name, figures);
    };
    row("alone, before", before);
    row("alone, after", after);
    row("beside hostile runs", beside);
    for mode in runs::MODES {
        let hit: Vec<Pull> = beside.iter().filter(|pull| met(pull, mode, runs)).copied().collect();
        row(&format!("… of them beside {mode}"), &hit);
    }
    report.table(&table);
}

/// Whether a pull was on its way while a run of this kind was.
fn met(pull: &Pull, mode: &str, all: &[Run]) -> bool {
    let (due, done) = (runs::since_1970_ms(pull.due), runs::since_1970_ms(pull.due + pull.took));
    all.iter().any(|run| run.mode == mode && due <= run.ended_ms && done >= run.began_ms)
}

fn latencies(pulls: &[Pull]) -> Latencies {
    let mut latencies = Latencies::default();
    for pull in pulls {
        latencies.push(pull.took);
    }
    latencies
}

fn print_runs(report: &mut Report, runs: &[Run]) {
    let mut table = Table::new("hostile runs", &["runs", "longest ms"]);
    let mut kinds: Vec<(&str, &str)> = runs.iter().map(|run| (run.mode.as_str(), run.end.as_str())).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for (mode, end) in kinds {
        let of_kind = || runs.iter().filter(|run| run.mode == mode && run.end == end);
        let longest = of_kind().map(|run| run.ended_ms - run.began_ms).max().unwrap_or(0);
        table.row(format!("{mode}: {end}"), vec![Some(of_kind().count() as f64), Some(longest as f64)]);
    }
    report.table(&table);
}
