//! The helper that is kept between runs.

use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::case;

/// The children of this process with this command line, or any, and whether they are dead and not reaped.
fn children(line: Option<&[u8]>) -> Vec<(i32, bool)> {
    let me = format!("PPid:\t{}", std::process::id());
    let mut found = Vec::new();
    for path in fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
        let (Ok(status), Ok(command)) =
            (fs::read_to_string(path.join("status")), fs::read(path.join("cmdline")))
        else {
            continue;
        };
        if status.lines().any(|found| found == me) && line.is_none_or(|line| line == command) {
            found.push((pid, status.contains("\nState:\tZ")));
        }
    }
    found
}

fn kept() -> i32 {
    let found = children(Some(b"pantry\0__jail\0keep\0"));
    assert_eq!(found.len(), 1, "one helper is kept: {found:?}");
    found[0].0
}

case! {
    fn many_runs_have_one_kept_helper_and_leave_no_dead_child(bench: &Bench) {
        assert_eq!(bench.says(&["hostname"]), "pantry");
        let first = kept();
        for _ in 0..20 {
            assert_eq!(bench.says(&["hostname"]), "pantry");
        }
        assert_eq!(kept(), first);
        assert_eq!(children(None).iter().filter(|(_, dead)| *dead).count(), 0);
    }
}

case! {
    fn a_kept_helper_that_was_killed_is_started_again(bench: &Bench) {
        assert_eq!(bench.says(&["hostname"]), "pantry");
        let first = kept();
        kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !children(None).contains(&(first, true)) {
            assert!(Instant::now() < deadline, "it does not die");
        }
        assert_eq!(bench.says(&["hostname"]), "pantry");
        assert_ne!(kept(), first);
    }
}
