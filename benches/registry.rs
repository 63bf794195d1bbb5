//! The same requests against Pantry and Debian's `docker-registry` in turn, beside nginx with the same bytes as files
//! (the ceiling of pulls) and bare writes to the same disk (that of pushes).
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
#[path = "registry/sustained.rs"]
mod sustained;
#[path = "registry/target.rs"]
mod target;
#[path = "../tests/appliance/tls_client.rs"]
mod tls_client;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use arguments::Arguments;
use content::Block;
use process::{Pair, Process};
use report::{Report, Table};
use rows::{Bounds, Kind, Measured, Row, Subject, Work};
use target::{Target, Trust};

const USAGE: &str = "\
cargo bench --bench registry -- [--quick] [--tls] [--sustained GB] [--rounds N] [--only TEXT] [--json FILE]
                                [--url NAME=URL [--token NAME=TOKEN] [--ca FILE | --insecure]]
  --quick         a tenth of the work, to see that it runs
  --tls           every server over TLS, with a certificate made for the run
  --sustained GB  so many gigabytes pushed by each in turns of one, for disks that are quick only at first
  --rounds N      how often the subjects take turns [default: 2]
  --only TEXT     rows whose title has this text; those that pull need one that pushes; `none` is none of them
  --url ...       measure a registry that runs already, instead of starting any; may be given again to compare
  --token ...     what to show to the one of this name, as `Authorization: Bearer`
  --ca FILE       whose certificates to believe; --insecure believes all";

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
    row(Work::HeadManifests, "HEAD manifest, c=32", 32, 0),
    row(Work::PushBlobs, "push 100 MiB blob, c=2", 2, 8),
    row(Work::PushChunks, "push 100 MiB in 10 MiB chunks, c=2", 2, 8),
    row(Work::PullBlobs, "pull 100 MiB blob, c=2", 2, 0),
];

const FLAGS: &[&str] = &["--quick", "--tls", "--insecure"];
const OPTIONS: &[&str] = &["--rounds", "--only", "--url", "--token", "--ca", "--sustained"];

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse(USAGE, FLAGS, OPTIONS);
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
    if quick {
        for row in &mut rows {
            row.acts = row.acts.div_ceil(10);
        }
    }
    let mut measured: Vec<Vec<Option<Measured>>> = vec![vec![None; subjects.len()]; rows.len()];
    let rounds = arguments.number("--rounds", 2);
    let gigabytes = arguments.number("--sustained", 0);
    let writers = subjects.iter().filter(|subject| !matches!(subject.kind, Kind::Files { .. })).count();
    ensure_room(folder.path(), &rows, rounds, gigabytes, writers)?;
    for subject in &mut subjects {
        subject.lay_out(&bounds)?;
    }
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
    if gigabytes > 0 {
        sustained::measure(&mut subjects, &mut bounds, gigabytes, &mut report)?;
    }
    print_memory(&subjects, &mut report);
    report.finish(arguments.json.as_deref())
}

/// Refuses to fill a disk that others may need: half as much again as will be written must be free.
fn ensure_room(
    folder: &Path,
    rows: &[Row],
    rounds: usize,
    gigabytes: usize,
    subjects: usize,
) -> anyhow::Result<()> {
    let a_subject: usize = rows.iter().map(|row| row.bytes_written() * rounds.min(row.rounds)).sum();
    let wanted = ((a_subject + gigabytes * 1_100_000_000) * subjects) as u64 * 3 / 2;
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

/// Pantry, its peer, the server of files and the disk; or the registries that run already.
fn subjects(
    arguments: &Arguments,
    folder: &Path,
    processes: &mut Vec<Process>,
    report: &mut Report,
) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    let authority = arguments.all("--ca").last().map(PathBuf::from);
    let trust = match &authority {
        Some(file) => Trust::File(file),
        None if arguments.has("--insecure") => Trust::Anybody,
        None => Trust::File(Path::new("/etc/ssl/certs/ca-certificates.crt")),
    };
    for given in arguments.all("--url") {
        let (name, url) = given.split_once('=').context("--url wants NAME=URL")?;
        let mut target = Target::parse(url, trust)?;
        if let Some(token) =
            arguments.all("--token").find_map(|given| given.strip_prefix(name)?.strip_prefix('='))
        {
            target = target.authorized(format!("Bearer {token}"));
        }
        subjects.push(Subject::new(name, Kind::Registry { target, id: None }));
    }
    if subjects.is_empty() {
        start(arguments.has("--tls"), folder, processes, &mut subjects, report)?;
        // The proof that Pantry makes after a start is not part of any row.
        std::thread::sleep(Duration::from_secs(3));
    }
    let disk = folder.join("raw");
    fs_err::create_dir(&disk)?;
    subjects.push(Subject::new("write + fsync", Kind::Disk { folder: disk }));
    Ok(subjects)
}

/// Starts the servers, each on a folder and a port of its own.
fn start(
    tls: bool,
    folder: &Path,
    processes: &mut Vec<Process>,
    subjects: &mut Vec<Subject>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let pair = if tls { Some(Pair::make(folder)?) } else { None };
    let at = |process: &Process| match &pair {
        Some(pair) => Target::parse(&format!("https://{}", process.address), Trust::File(&pair.certificate)),
        None => Ok(Target::plain(process.address)),
    };
    let root = folder.join("pantry");
    // Access control is on: every request shows a token, and the server checks it.
    let mut environment = vec![("PANTRY_AUTH_MODE", "token")];
    if let Some(pair) = &pair {
        let text = |path: &'_ Path| path.to_str().map(str::to_owned).context("the folder's name is no text");
        let (certificate, key) = (text(&pair.certificate)?, text(&pair.key)?);
        environment.push(("PANTRY_TLS_MODE", "files"));
        let files = [("PANTRY_TLS_CERTIFICATE", certificate.as_str()), ("PANTRY_TLS_KEY", key.as_str())];
        environment.extend(files);
        processes.push(Process::pantry(&process::pantry_binary()?, &root, &environment)?);
    } else {
        processes.push(Process::pantry(&process::pantry_binary()?, &root, &environment)?);
    }
    let pantry = &processes[processes.len() - 1];
    let token = fs_err::read_to_string(root.join("keys/admin-token"))?;
    let target = at(pantry)?.authorized(format!("Bearer {}", token.trim()));
    subjects.push(Subject::new("pantry", Kind::Registry { target, id: Some(pantry.id()) }));

    let peer = folder.join("peer");
    fs_err::create_dir(&peer)?;
    match Process::docker_registry(&peer, pair.as_ref())? {
        Some(peer) => {
            let kind = Kind::Registry { target: at(&peer)?, id: Some(peer.id()) };
            subjects.push(Subject::new("docker-registry", kind));
            processes.push(peer);
        }
        None => {
            report
                .note("docker-registry isn't installed: its rows are missing (apt install docker-registry)");
        }
    }
    let files = folder.join("nginx");
    fs_err::create_dir(&files)?;
    match Process::nginx(&files, pair.as_ref())? {
        Some(nginx) => {
            let kind = Kind::Files { target: at(&nginx)?, folder: files.join("files") };
            subjects.push(Subject::new("nginx, static files", kind));
            processes.push(nginx);
        }
        None => {
            report.note("nginx isn't installed: the ceiling of pulls is missing (apt install nginx-light)");
        }
    }
    Ok(())
}

fn print(rows: &[Row], subjects: &[Subject], measured: &[Vec<Option<Measured>>], report: &mut Report) {
    let columns = ["op/s", "MB/s", "p50 ms", "p99 ms", "CPU µs/op", "RSS before", "RSS after", "× this"];
    let mut table = Table::new("work, subject", &columns);
    for (row, cells) in rows.iter().zip(measured) {
        let first = cells.first().and_then(Option::as_ref).map(Measured::rate);
        for (place, (subject, cell)) in subjects.iter().zip(cells).enumerate() {
            let Some(cell) = cell else { continue };
            let count = cell.latencies.count() as f64;
            let megabytes = (cell.bytes > 0).then(|| cell.bytes as f64 / 1e6 / cell.elapsed.as_secs_f64());
            let processor = cell.processor.map(|sum| sum.as_secs_f64() * 1e6 / count);
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
