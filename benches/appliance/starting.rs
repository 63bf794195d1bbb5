//! From the start of the process to its first answer, and what it holds when nobody asks.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::latency::Latencies;
use crate::process::{Process, get, memory};
use crate::report::Table;

/// How long an idle server is left alone before it is looked at.
const QUIET: Duration = Duration::from_secs(3);

/// The first start on a fresh root, which unpacks the bundle; leaves the root ready for the others.
///
/// What the time beyond a warm start goes to is the unpacking and the import of the base image.
pub fn first(binary: &Path, folder: &Path, starts: usize) -> anyhow::Result<(Table, PathBuf)> {
    let mut cold = Latencies::default();
    let root = folder.join("root-0");
    for number in 0..starts {
        let fresh = folder.join(format!("root-{number}"));
        nix::unistd::sync();
        let server = Process::pantry(binary, &fresh, &[])?;
        cold.push(server.ready);
        until_proved(&server)?;
        server.stop()?;
        if number > 0 {
            fs_err::remove_dir_all(fresh)?;
        }
    }
    let mut table =
        Table::new("ready to serve, ms from spawn to the first answer", &["median", "best", "worst"]);
    row(&mut table, "first start, bundle to unpack", &cold);
    Ok((table, root))
}

/// Starts on a root where the bundle is unpacked and proved.
pub fn warm(binary: &Path, root: &Path, starts: usize, table: &mut Table) -> anyhow::Result<()> {
    let mut warm = Latencies::default();
    for _ in 0..starts {
        let server = Process::pantry(binary, root, &[])?;
        warm.push(server.ready);
        until_proved(&server)?;
        server.stop()?;
    }
    row(table, "bundle unpacked", &warm);
    Ok(())
}

fn row(table: &mut Table, name: &str, times: &Latencies) {
    table.row(
        format!("{name}, {} starts", times.count()),
        [50, 0, 100].map(|at| times.percentile_ms(at)).to_vec(),
    );
}

/// Memory of a server that was started a while ago and asked for nothing else.
pub fn idle(binary: &Path, root: &Path) -> anyhow::Result<Table> {
    let server = Process::pantry(binary, root, &[])?;
    std::thread::sleep(QUIET);
    let mut table = Table::new("idle memory, MB, 3 s after the start", &["resident", "anonymous", "peak"]);
    let figures = memory(server.id());
    table.row(
        "pantry serve",
        [figures.map(|m| m.resident), figures.map(|m| m.anonymous), figures.map(|m| m.peak)].to_vec(),
    );
    server.stop()?;
    Ok(table)
}

/// Waits for the end of the proof that follows a start: only then may packages be tested.
pub fn until_proved(server: &Process) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let health = get(server.address, "/health")?;
        if health.starts_with("HTTP/1.1 200") && !health.contains("under way") {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the server does not get well: {health}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
