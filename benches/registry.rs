//! The same requests against Pantry and Debian's `docker-registry` in turn, beside bare writes to the same disk.
//!
//! Every blob is unique and incompressible, every push durable. `docs/benchmarks.md` tells what a row means.
#![allow(clippy::print_stdout, clippy::print_stderr)] // A bench prints.
#![allow(clippy::cast_precision_loss)] // Figures are for people.

#[allow(dead_code)] // Each bench uses its part of these.
#[path = "measure/arguments.rs"]
mod arguments;
#[path = "registry/connection.rs"]
mod connection;
#[path = "registry/content.rs"]
mod content;
#[path = "registry/heads.rs"]
mod heads;
#[path = "measure/latency.rs"]
mod latency;
#[path = "measure/machine.rs"]
mod machine;
#[allow(dead_code)]
#[path = "measure/process.rs"]
mod process;
#[path = "registry/raw.rs"]
mod raw;
#[path = "measure/report.rs"]
mod report;
#[path = "registry/requests.rs"]
mod requests;
#[path = "registry/rows.rs"]
mod rows;

use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use arguments::Arguments;
use content::Block;
use process::Process;
use report::{Report, Table};
use rows::{Bounds, Kind, Measured, Row, Subject, Work};

const USAGE: &str = "\
cargo bench --bench registry -- [--quick] [--sustained] [--rounds N] [--only TEXT] [--url NAME=HOST:PORT] [--json FILE]
  --quick      a tenth of the work, to see that it runs
  --sustained  one more row: 3 GiB pushed by each, for disks that are quick only at first
  --rounds N   how often the subjects take turns [default: 2]
  --only TEXT  rows whose title has this text; those that pull need one that pushes
  --url ...    measure a registry that runs already, instead of starting any; may be given again";

/// A row that every round has.
const fn row(work: Work, title: &'static str, connections: usize, acts: usize) -> Row {
    Row { work, title, connections, acts, rounds: usize::MAX }
}

const ROWS: &[Row] = &[
    row(Work::PushImages, "push 1 MiB image, c=2", 2, 200),
    row(Work::PushImages, "push 1 MiB image, c=10", 10, 400),
    row(Work::PullImages, "pull 1 MiB image, c=2", 2, 0),
    row(Work::PullImages, "pull 1 MiB image, c=10", 10, 0),
    row(Work::HeadManifests, "HEAD manifest, c=10", 10, 0),
    row(Work::PushBlobs, "push 100 MiB blob, c=2", 2, 8),
    row(Work::PullBlobs, "pull 100 MiB blob, c=2", 2, 0),
];
const SUSTAINED: Row = Row { rounds: 1, ..row(Work::PushBlobs, "push 100 MiB blob, c=2, 3 GiB", 2, 30) };

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse(USAGE, &["--quick", "--sustained"], &["--rounds", "--only", "--url"]);
    let folder = tempfile::Builder::new().prefix("pantry-bench-").tempdir()?;
    let mut report = Report::new("registry", machine::describe(folder.path()));
    let mut processes = Vec::new();
    let mut subjects = subjects(&arguments, folder.path(), &mut processes, &mut report)?;
    let quick = arguments.has("--quick");
    let mut bounds = Bounds {
        span: Duration::from_millis(if quick { 300 } else { 3000 }),
        small: Block::new(rows::SMALL)?,
        large: Block::new(rows::LARGE)?,
        round: 0,
    };
    let only = arguments.all("--only").last().unwrap_or_default();
    let mut rows: Vec<Row> = ROWS.iter().copied().filter(|row| row.title.contains(only)).collect();
    if arguments.has("--sustained") {
        rows.push(SUSTAINED);
    }
    if quick {
        for row in &mut rows {
            row.acts = row.acts.div_ceil(10);
        }
    }
    let mut measured: Vec<Vec<Option<Measured>>> = vec![vec![None; subjects.len()]; rows.len()];
    let rounds = arguments.number("--rounds", 2);
    ensure_room(folder.path(), &rows, rounds, subjects.len())?;
    for round in 0..rounds {
        bounds.round = round;
        for (row, cells) in rows.iter().zip(&mut measured).filter(|(row, _)| round < row.rounds) {
            for (subject, cell) in subjects.iter_mut().zip(cells.iter_mut()) {
                eprintln!("round {}: {}, {}", round + 1, row.title, subject.name);
                let round = subject
                    .round(*row, &bounds)
                    .with_context(|| format!("{} of {} failed", row.title, subject.name))?;
                match (cell.as_mut(), round) {
                    (Some(sum), Some(round)) => sum.add(round),
                    (None, round) => *cell = round,
                    (Some(_), None) => {}
                }
            }
        }
    }
    print(&rows, &subjects, &measured, &mut report);
    print_memory(&subjects, &mut report);
    report.finish(arguments.json.as_deref())
}

/// Refuses to fill a disk that others may need: half as much again as will be written must be free.
fn ensure_room(folder: &Path, rows: &[Row], rounds: usize, subjects: usize) -> anyhow::Result<()> {
    let a_subject: usize = rows.iter().map(|row| row.bytes_written() * rounds.min(row.rounds)).sum();
    let wanted = (a_subject * subjects) as u64 * 3 / 2;
    let disk = rustix::fs::statvfs(folder)?;
    let free = disk.f_bavail * disk.f_frsize;
    ensure!(
        free >= wanted,
        "{} has {} MB free, and this run wants {} MB: name a folder on another disk by TMPDIR, or use --quick",
        folder.display(),
        free / 1_000_000,
        wanted / 1_000_000,
    );
    Ok(())
}

/// Pantry, its peer and the disk; or the registries that run already.
fn subjects(
    arguments: &Arguments,
    folder: &Path,
    processes: &mut Vec<Process>,
    report: &mut Report,
) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for given in arguments.all("--url") {
        let (name, address) = given.split_once('=').context("--url wants NAME=HOST:PORT")?;
        let address = address.trim_start_matches("http://").trim_end_matches('/');
        let address = address.to_socket_addrs()?.next().context("the name has no address")?;
        subjects.push(Subject::new(name, Kind::Registry { address, id: None }));
    }
    if subjects.is_empty() {
        let pantry = Process::pantry(&process::pantry_binary()?, &folder.join("pantry"), &[])?;
        subjects.push(subject("pantry", &pantry));
        processes.push(pantry);
        let peer = folder.join("peer");
        fs_err::create_dir(&peer)?;
        match Process::docker_registry(&peer)? {
            Some(peer) => {
                subjects.push(subject("docker-registry", &peer));
                processes.push(peer);
            }
            None => report
                .note("docker-registry isn't installed: its rows are missing (apt install docker-registry)"),
        }
        // The proof that Pantry makes after a start is not part of any row.
        std::thread::sleep(Duration::from_secs(3));
    }
    let disk = folder.join("raw");
    fs_err::create_dir(&disk)?;
    subjects.push(Subject::new("write + fsync", Kind::Disk { folder: disk }));
    Ok(subjects)
}

fn subject(name: &str, process: &Process) -> Subject {
    Subject::new(name, Kind::Registry { address: process.address, id: Some(process.id()) })
}

fn print(rows: &[Row], subjects: &[Subject], measured: &[Vec<Option<Measured>>], report: &mut Report) {
    let columns = ["op/s", "MB/s", "p50 ms", "p99 ms", "CPU ms/op", "RSS before", "RSS after", "× this"];
    let mut table = Table::new("work, subject", &columns);
    for (row, cells) in rows.iter().zip(measured) {
        let first = cells.first().and_then(Option::as_ref).map(Measured::rate);
        for (place, (subject, cell)) in subjects.iter().zip(cells).enumerate() {
            let Some(cell) = cell else { continue };
            let count = cell.latencies.count() as f64;
            let megabytes = (cell.bytes > 0).then(|| cell.bytes as f64 / 1e6 / cell.elapsed.as_secs_f64());
            let processor = cell.processor.map(|sum| sum.as_secs_f64() * 1e3 / count);
            // How many times as fast the first subject is as this one.
            let ratio = first.filter(|_| place > 0).map(|first| first / cell.rate());
            let figures = vec![
                Some(cell.rate()),
                megabytes,
                cell.latencies.percentile_ms(50),
                cell.latencies.percentile_ms(99),
                processor,
                cell.memory_before,
                cell.memory_after,
                ratio,
            ];
            table.row(format!("{}, {}", row.title, subject.name), figures);
        }
    }
    report.table(&table);
}

fn print_memory(subjects: &[Subject], report: &mut Report) {
    let mut table = Table::new("memory at the end, MB", &["resident", "anonymous", "peak"]);
    for subject in subjects {
        if let Some(memory) = subject.id().and_then(process::memory) {
            table.row(&subject.name, vec![Some(memory.resident), Some(memory.anonymous), Some(memory.peak)]);
        }
    }
    report.table(&table);
}
