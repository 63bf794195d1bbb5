//! The time of an empty jail. Figures are printed; the assertion is only against a launch that has gone wrong.

use std::time::{Duration, Instant};

use crate::bench::{Bench, case};

fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 95 / 100])
}

fn measure(name: &str, count: usize, mut act: impl FnMut()) -> Duration {
    for _ in 0..5 {
        act();
    }
    let times = (0..count)
        .map(|_| {
            let begun = Instant::now();
            act();
            begun.elapsed()
        })
        .collect();
    let (p50, p95) = percentiles(times);
    println!("{name}: p50 {p50:?} p95 {p95:?}");
    p50
}

fn bwrap(bench: &Bench) -> std::process::Command {
    let mut command = std::process::Command::new("bwrap");
    command.args([
        "--unshare-all",
        "--unshare-user",
        "--uid",
        "65532",
        "--gid",
        "65532",
        "--die-with-parent",
    ]);
    command.args(["--new-session", "--cap-drop", "ALL", "--hostname", "pantry", "--clearenv", "--ro-bind"]);
    command.arg(&bench.root).args(["/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]);
    command.arg(&bench.probe).stdin(std::process::Stdio::null());
    command
}

case! {
    fn an_empty_jail_is_quick(bench: &Bench) {
        let policy = bench.policy(&["true"]);
        let count = std::env::var("PANTRY_BENCH_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(30);
        let p50 = measure("empty jail", count, || assert!(bench.run(&policy).end.success()));
        if bwrap(bench).status().is_ok_and(|status| status.success()) {
            measure("bwrap", count, || assert!(bwrap(bench).status().unwrap().success()));
        } else {
            println!("skipped: bwrap isn't installed or can't run here");
        }
        assert!(p50 < Duration::from_millis(250), "{p50:?}");
    }
}
