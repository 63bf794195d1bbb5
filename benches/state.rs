//! Durable commits a second at 1 and 16 writers, beside a raw write and fsync of the same bytes to a file.
//!
//! `cargo bench --bench state [-- <seconds a row>]`. The folder is made below `TMPDIR`: put it on the disk to measure.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss)]

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pantry::names::Faults;
use pantry::state::{Raw, State, Table};

const ROWS: Table<(u64, u64), Raw> = Table::new("rows");
const VALUE_BYTES: usize = 200;

/// What one row of the table measured.
struct Measured {
    name: String,
    writes: u64,
    commits: u64,
    elapsed: Duration,
    latencies: Vec<Duration>,
}

impl Measured {
    fn print(mut self) {
        self.latencies.sort_unstable();
        let at =
            |part: usize| self.latencies.get(self.latencies.len() * part / 100).copied().unwrap_or_default();
        let seconds = self.elapsed.as_secs_f64();
        println!(
            "{:<34} {:>9.0} {:>10.0} {:>9.2} {:>9.3} {:>9.3}",
            self.name,
            self.writes as f64 / seconds,
            self.commits as f64 / seconds,
            self.writes as f64 / self.commits.max(1) as f64,
            at(50).as_secs_f64() * 1e3,
            at(99).as_secs_f64() * 1e3,
        );
    }
}

/// `writers` tasks that each wait for one write to be durable before they begin the next.
fn state_writes(writers: u64, span: Duration) -> Measured {
    let folder = tempfile::tempdir().unwrap();
    let state = State::open(&folder.path().join("state.redb"), Faults::none()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let before = state.stats();
    let started = Instant::now();
    let latencies = runtime.block_on(async {
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let (state, stop) = (state.clone(), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let n = latencies.len() as u64;
                        let asked = Instant::now();
                        let value = Raw(vec![7; VALUE_BYTES]);
                        state.write(move |tx| tx.put(&ROWS, &(writer, n), &value)).await.unwrap();
                        latencies.push(asked.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        tokio::time::sleep(span).await;
        stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all
    });
    let elapsed = started.elapsed();
    let commits = state.stats().commits - before.commits;
    let name = format!("state, {writers} writer{}", if writers == 1 { "" } else { "s" });
    Measured { name, writes: latencies.len() as u64, commits, elapsed, latencies }
}

/// Appends of as many bytes as a row has, each followed by an fsync.
fn raw_writes(rows_together: usize, span: Duration) -> Measured {
    let mut file = tempfile::tempfile().unwrap();
    let bytes = vec![7; (VALUE_BYTES + 16) * rows_together];
    let (started, mut latencies) = (Instant::now(), Vec::new());
    while started.elapsed() < span {
        let asked = Instant::now();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        latencies.push(asked.elapsed());
    }
    let syncs = latencies.len() as u64;
    let name = format!("raw write + fsync, {rows_together} row{}", if rows_together == 1 { "" } else { "s" });
    Measured {
        name,
        writes: syncs * rows_together as u64,
        commits: syncs,
        elapsed: started.elapsed(),
        latencies,
    }
}

fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse::<u64>().ok()).unwrap_or(3);
    let span = Duration::from_secs(seconds);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cores} cores, folder {}, {VALUE_BYTES}-byte rows, {seconds} s a row",
        std::env::temp_dir().display()
    );
    println!(
        "{:<34} {:>9} {:>10} {:>9} {:>9} {:>9}",
        "", "writes/s", "commits/s", "a commit", "p50 ms", "p99 ms"
    );
    raw_writes(1, span).print();
    state_writes(1, span).print();
    raw_writes(16, span).print();
    state_writes(16, span).print();
}
