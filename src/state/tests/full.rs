//! A disk that is full, or fails, for a while.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::{Raw, Read as _, State, StateError};
use super::backend::Recorded;
use super::crash::{whole_rows, write_row};
use super::{ROWS, builder, refused, state_on, state_with};
use crate::names::{Faults, SeededRandom};

/// Asks again until the state is open again.
fn once_open<T>(mut act: impl FnMut() -> Result<T, StateError>) -> T {
    let started = Instant::now();
    loop {
        match act() {
            Ok(done) => return done,
            Err(error) => assert!(started.elapsed() < Duration::from_mins(1), "still {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn wherever_the_disk_fills_up_the_state_goes_on_and_holds_what_was_acknowledged() {
    for (room, refusals) in (0..14).flat_map(|room| [(room, 1), (room, 2)]) {
        let backend = Recorded::default();
        let again = backend.clone();
        let reopen = move || {
            again.lose_unsynced(&SeededRandom::new(room));
            builder().create_with_backend(again.clone()).map_err(refused)
        };
        let state = state_with(backend.clone(), Box::new(reopen));
        write_row(&state, 0).unwrap();
        backend.fill_up(room, refusals);
        let mut acknowledged = 1;
        let failed = loop {
            match write_row(&state, acknowledged) {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(failed.code(), "disk_full", "{failed}");
        assert!(failed.hint().unwrap().contains("free space"));
        let held = once_open(|| whole_rows(&state));
        // The one that failed is there whole or not at all.
        assert!(held == acknowledged || held == acknowledged + 1, "{held} of {acknowledged}");
        let mut next = held;
        once_open(|| {
            next = whole_rows(&state)?;
            write_row(&state, next)
        });
        write_row(&state, next + 1).unwrap();
        assert!(!state.stats().failed);
        drop(state);
        assert_eq!(whole_rows(&state_on(backend)).unwrap(), next + 2);
    }
}

#[test]
fn while_the_disk_is_full_everybody_is_told_at_once_and_then_it_goes_on() {
    let backend = Recorded::default();
    let again = backend.clone();
    let reopen = move || {
        if again.refusals.load(Ordering::SeqCst) > 0 {
            let source = redb::Error::Io(std::io::Error::from_raw_os_error(28));
            return Err(StateError::Open { path: PathBuf::from("(memory)"), source: Arc::new(source) });
        }
        builder().create_with_backend(again.clone()).map_err(refused)
    };
    let state = state_with(backend.clone(), Box::new(reopen));
    write_row(&state, 0).unwrap();
    backend.fill_up(0, u64::MAX);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (first, second) = runtime.block_on(async {
        let put = |n: u64| state.write(move |tx| tx.put(&ROWS, &("other".to_owned(), n), &Raw(vec![])));
        tokio::join!(put(1), put(2))
    });
    for outcome in [first, second] {
        let code = outcome.unwrap_err().code();
        assert!(["disk_full", "state_failed"].contains(&code), "{code}");
    }
    for _ in 0..100 {
        assert_eq!(write_row(&state, 1).unwrap_err().code(), "state_failed");
    }
    assert!(state.stats().failed);
    let refused_read = once_open(|| match state.read_blocking(|_| Ok(())) {
        Ok(()) => Err(StateError::Closed),
        Err(error) => Ok(error),
    });
    assert_eq!(refused_read.code(), "state_failed");
    backend.fill_up(0, 0);
    once_open(|| write_row(&state, 1));
    assert!(!state.stats().failed);
    assert_eq!(state.read_blocking(|view| view.get(&ROWS, &("other".to_owned(), 1))).unwrap(), None);
    runtime.block_on(state.close()).unwrap();
}

#[test]
fn a_state_that_is_down_can_be_closed_and_says_so() {
    let backend = Recorded::default();
    let state = state_with(backend.clone(), Box::new(|| Err(StateError::Closed)));
    backend.fill_up(0, u64::MAX);
    write_row(&state, 0).unwrap_err();
    let closed = tokio::runtime::Runtime::new().unwrap().block_on(state.close());
    assert_eq!(closed.unwrap_err().code(), "state_failed");
    assert_eq!(write_row(&state, 0).unwrap_err().code(), "state_closed");
}

#[test]
fn a_read_that_waits_for_a_failing_write_or_reads_again_holds_nobody_up() {
    let backend = Recorded::default();
    let state = state_on(backend.clone());
    write_row(&state, 0).unwrap();
    backend.fill_up(0, 1);
    state
        .read_blocking(|_| {
            write_row(&state, 1).unwrap_err();
            let until = Instant::now() + Duration::from_millis(300);
            while Instant::now() < until {
                assert_eq!(write_row(&state, 1).unwrap_err().code(), "state_failed");
                _ = state.read_blocking(|_| Ok(()));
            }
            Ok(())
        })
        .unwrap();
    once_open(|| write_row(&state, whole_rows(&state)?));
}

const MOUNTED: &str = "PANTRY_TEST_SMALL_DISK";

/// In the form that CI collects.
#[allow(clippy::print_stdout)]
fn skip(why: &str) {
    println!(
        "SKIPPED a_real_disk_that_fills_up_and_is_freed_again: {}",
        why.lines().next().unwrap_or_default()
    );
}

#[test]
fn a_real_disk_that_fills_up_and_is_freed_again() {
    if let Some(folder) = std::env::var_os(MOUNTED) {
        return on_a_small_disk(Path::new(&folder));
    }
    if !nix::unistd::geteuid().is_root() {
        skip("mounting a small disk needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=6m tmpfs \"$1\" && exec \"$2\" --exact \"$3\" --nocapture";
    let name = std::thread::current().name().unwrap().to_owned();
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .args([folder.path(), &std::env::current_exe().unwrap(), Path::new(&name)])
        .env(MOUNTED, folder.path())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip(&format!("`unshare` cannot be started: {error}")),
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if said.contains("unshare failed") || said.contains("mount:") {
        return skip(&format!("no small disk can be mounted here: {said}"));
    }
    assert!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the test ran inside");
}

fn on_a_small_disk(folder: &Path) {
    fs_err::write(folder.join("ballast"), vec![1; 2 << 20]).unwrap();
    let path = folder.join("state.redb");
    let state = State::open(&path, Faults::none()).unwrap();
    let put = |n: u64| {
        state.write_blocking(move |tx| {
            tx.put(&ROWS, &("row".to_owned(), n), &Raw(n.to_be_bytes().repeat(2_000)))
        })
    };
    let mut acknowledged = 0;
    let failed = loop {
        match put(acknowledged) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 1_000, "the disk never fills up");
    };
    assert_eq!(failed.code(), "disk_full", "{failed}");
    let all_there = |state: &State| {
        (0..acknowledged).try_for_each(|n| {
            let row = state.read_blocking(|view| view.get(&ROWS, &("row".to_owned(), n)))?;
            assert_eq!(row, Some(Raw(n.to_be_bytes().repeat(2_000))), "row {n} of {acknowledged}");
            Ok(())
        })
    };
    once_open(|| all_there(&state));
    fs_err::remove_file(folder.join("ballast")).unwrap();
    once_open(|| put(acknowledged));
    assert!(!state.stats().failed);
    all_there(&state).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(state.close()).unwrap();
    all_there(&State::open(&path, Faults::none()).unwrap()).unwrap();
}
