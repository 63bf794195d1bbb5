//! `pantry demo`, to its end and interrupted: nothing of it stays.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::bundles::NO_INDEX;
use super::leaks::processes_with;
use super::support::{PANTRY, PATIENCE, bundle, checkout, show, until, wait_for};

/// The demo with a temporary folder of its own, and no package index but the stand-in.
fn demo(temporary: &Path) -> Command {
    let mut command = Command::new(PANTRY);
    command
        .arg("demo")
        .current_dir(checkout())
        .env("TMPDIR", temporary)
        .env("PANTRY_BUNDLE_LAYOUT", bundle())
        .env_remove("PANTRY_STORE_INDEX_URL")
        .env_remove("PANTRY_ROOT")
        .envs(NO_INDEX.iter().copied())
        .stdin(Stdio::null());
    command
}

/// Nothing is left: no file, no process that was given the folder, no mount below it.
fn nothing_stays(temporary: &Path) {
    let name = temporary.to_str().unwrap();
    until("no process of the demo lives", || processes_with(name).is_empty());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(name), "{mounts}");
    let left: Vec<_> = std::fs::read_dir(temporary).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_demo_walks_a_package_through_everything_and_leaves_nothing() {
    let temporary = tempfile::Builder::new().prefix("pantry-demo-test-").tempdir().unwrap();
    let output = demo(temporary.path()).output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("stand-in wheels are served"), "{said}");
    for pinned in ["inflection==0.5.1", "wcwidth==0.2.13"] {
        assert!(said.contains(pinned), "{pinned}: {said}");
    }
    assert!(said.contains("published"), "{said}");
    let greetings = said.matches("Hello, Pantry!").count();
    let without_engine = ["no container engine is at hand", "podman is installed but cannot work"];
    assert!(
        greetings == 2 || (greetings == 1 && without_engine.iter().any(|why| said.contains(why))),
        "{greetings} greetings: {said}"
    );
    nothing_stays(temporary.path());
}

/// Starts the demo in a group of its own and reads until it has said this.
fn demo_until(temporary: &Path, said: &str) -> Child {
    let mut child =
        demo(temporary).process_group(0).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains(said) {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the demo ended before it said {said:?}");
    }
    // The rest is read away, so that the demo never stops for a full pipe.
    std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
    child
}

fn ends_unwell(mut child: Child) {
    let status = wait_for(&mut child, PATIENCE.min(Duration::from_secs(30))).expect("it must end");
    assert!(!status.success(), "{status}");
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    for said in ["Which package index", "pantry is ready at", "$ pantry submit", "Install, and run"] {
        let temporary = tempfile::Builder::new().prefix("pantry-demo-test-").tempdir().unwrap();
        let child = demo_until(temporary.path(), said);
        let group = i32::try_from(child.id()).unwrap();
        // As a terminal does it: everybody in the group gets it at once.
        nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), Signal::SIGINT).unwrap();
        ends_unwell(child);
        nothing_stays(temporary.path());
    }
}

#[test]
fn a_terminated_demo_leaves_nothing() {
    for said in ["pantry is ready at", "$ pantry submit", "$ pantry install"] {
        let temporary = tempfile::Builder::new().prefix("pantry-demo-test-").tempdir().unwrap();
        let child = demo_until(temporary.path(), said);
        super::support::signal(child.id(), Signal::SIGTERM);
        ends_unwell(child);
        nothing_stays(temporary.path());
    }
}
