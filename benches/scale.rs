//! Whether size costs: pages of tags and of the catalogue, start, memory with ever more tags and images; memory with a
//! very large layer. Everything is pushed by the public door, then asked for by it.
#![allow(clippy::print_stdout, clippy::print_stderr)] // A bench prints.
#![allow(clippy::cast_precision_loss)] // Figures are for people.

#[allow(dead_code)]
#[path = "measure/arguments.rs"]
mod arguments;
#[allow(dead_code)]
#[path = "registry/connection.rs"]
mod connection;
#[path = "scale/filling.rs"]
mod filling;
#[allow(dead_code)]
#[path = "measure/latency.rs"]
mod latency;
#[path = "scale/layer.rs"]
mod layer;
#[path = "measure/machine.rs"]
mod machine;
#[allow(dead_code)]
#[path = "measure/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "measure/report.rs"]
mod report;
#[allow(dead_code)]
#[path = "registry/target.rs"]
mod target;
#[path = "../tests/appliance/tls_client.rs"]
mod tls_client;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use arguments::Arguments;
use connection::Connection;
use latency::Latencies;
use process::{Process, memory};
use report::{Report, Table};
use target::Target;

const USAGE: &str = "\
cargo bench --bench scale -- [--tags N] [--layer-gib N] [--json FILE]
  --tags N       up to so many tags in one image, and a tenth of that in images, in steps of ten times [default: 1000000]
  --layer-gib N  size of the large layer [default: 10]; it is written once and needs that much room";

/// The first step.
const LEAST: usize = 1_000;
/// So often each page is asked for.
const ASKED: usize = 300;
/// So often the server is started at each step.
const STARTS: usize = 5;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse(USAGE, &[], &["--tags", "--layer-gib"]);
    let most = arguments.number("--tags", 1_000_000);
    let folder = tempfile::Builder::new().prefix("pantry-bench-").tempdir()?;
    let mut report = Report::new("scale", machine::describe(folder.path()));
    let (binary, root) = (process::pantry_binary()?, folder.path().join("pantry"));

    let mut pages = Table::new("a page of 100, ms", &["tags", "images", "p50", "p99", "÷ first"]);
    let mut rest = Table::new(
        "start and memory",
        &["start ms", "after kill", "idle MB", "anonymous", "peak MB", "state MB", "fill s"],
    );
    let mut first = Vec::new();
    let (mut step, mut before) = (LEAST, 0);
    while step <= most {
        let server = serve(&binary, &root)?;
        eprintln!("filling up to {step} tags and {} images", step / 10);
        let began = Instant::now();
        filling::fill(&target_of(&server, &root)?, before, step)?;
        let filled = began.elapsed();
        server.stop()?;
        let (starts, killed) = starts(&binary, &root)?;
        let server = serve(&binary, &root)?;
        std::thread::sleep(Duration::from_secs(3));
        let idle = memory(server.id());
        let mut connection = Connection::open(&target_of(&server, &root)?)?;
        for (place, (name, path)) in filling::pages(step).into_iter().enumerate() {
            let latencies = ask(&mut connection, &path)?;
            let median = latencies.percentile_ms(50);
            if first.len() == place {
                first.push(median);
            }
            let ratio = median.zip(first[place]).map(|(here, first)| here / first);
            let figures =
                vec![Some(step as f64), Some((step / 10) as f64), median, latencies.percentile_ms(99), ratio];
            pages.row(name, figures);
        }
        let state = fs_err::metadata(root.join("state.redb"))?.len() as f64 / 1e6;
        let figures = vec![
            starts.percentile_ms(50),
            killed.percentile_ms(50),
            idle.map(|idle| idle.resident),
            idle.map(|idle| idle.anonymous),
            memory(server.id()).map(|memory| memory.peak),
            Some(state),
            Some(filled.as_secs_f64()),
        ];
        rest.row(format!("{step} tags, {} images", step / 10), figures);
        server.stop()?;
        (before, step) = (step, step * 10);
    }
    report.table(&pages);
    report.table(&rest);

    let gibibytes = arguments.number("--layer-gib", 10);
    let server = serve(&binary, &root)?;
    std::thread::sleep(Duration::from_secs(3));
    report.table(&layer::measure(&server, &target_of(&server, &root)?, gibibytes)?);
    server.stop()?;
    report.finish(arguments.json.as_deref())
}

fn serve(binary: &Path, root: &Path) -> anyhow::Result<Process> {
    Process::pantry(binary, root, &[("PANTRY_AUTH_MODE", "token")])
}

fn target_of(server: &Process, root: &Path) -> anyhow::Result<Target> {
    let token = fs_err::read_to_string(root.join("keys/admin-token")).context("the server made no token")?;
    Ok(Target::plain(server.address).authorized(format!("Bearer {}", token.trim())))
}

/// Starts after a clean end, and after a death.
fn starts(binary: &Path, root: &Path) -> anyhow::Result<(Latencies, Latencies)> {
    let (mut clean, mut killed) = (Latencies::default(), Latencies::default());
    for _ in 0..STARTS {
        let server = serve(binary, root)?;
        clean.push(server.ready);
        server.kill()?;
        let server = serve(binary, root)?;
        killed.push(server.ready);
        server.stop()?;
    }
    Ok((clean, killed))
}

fn ask(connection: &mut Connection, path: &str) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::default();
    for _ in 0..ASKED {
        let asked = Instant::now();
        connection.fetch(&format!("GET {path}"), &mut |_| {})?.expect(200, path)?;
        latencies.push(asked.elapsed());
    }
    Ok(latencies)
}
