//! Control groups that a crash left where the next process would not make its own.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use pantry::sandbox::{Cancel, Policy, Sandbox, StdinBytes};
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::{Bench, is_root};

/// What the process to be killed needs to know, one a line.
const VICTIM: &str = "PANTRY_TEST_VICTIM";

/// A memory group of version 1 at the top, where no run of this process would be; removed when dropped.
struct Elsewhere(PathBuf);

impl Elsewhere {
    fn make() -> Option<Self> {
        if !is_root() {
            println!("skipped: control groups elsewhere can be made by root only");
            return None;
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let memory = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields[2] == "cgroup" && fields[3].split(',').any(|option| option == "memory"));
        let Some(memory) = memory else {
            println!("skipped: this host has no memory controller of cgroup version 1");
            return None;
        };
        let dir = Path::new(memory[1]).join(format!("elsewhere-{}-1", std::process::id()));
        if let Err(error) = fs::create_dir(&dir) {
            println!("skipped: no memory group can be made at the top: {error}");
            return None;
        }
        Some(Self(dir))
    }

    /// The group of a run in it, if there is one.
    fn run(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap().flatten();
        entries.map(|entry| entry.path()).find(|path| path.is_dir())
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _asserted_by_the_leak_check = fs::remove_dir(&self.0);
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn record(jails: &Path, name: &str, groups: &[&Path]) -> PathBuf {
    let file = jails.join(name);
    let lines: Vec<&str> = groups.iter().map(|group| group.to_str().unwrap()).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file
}

#[test]
fn a_recorded_group_elsewhere_is_swept_with_what_is_in_it() {
    let bench = Bench::new();
    let Some(elsewhere) = Elsewhere::make() else { return };
    let jails = bench.dir.path().join("jails");
    let me = std::process::id();
    // This process wasn't started in the first tick, so it is a dead owner whose pid was given again.
    let name = format!("pantry-run-ab12cd34-{me}-1-0");
    let group = elsewhere.0.join(&name);
    fs::create_dir(&group).unwrap();
    let mut left = Command::new("sleep").arg("60").spawn().unwrap();
    fs::write(group.join("cgroup.procs"), left.id().to_string()).unwrap();
    // What a forged record could point at: another group, and a directory that has the name.
    let other = elsewhere.0.join("somebody-else");
    let plain = bench.dir.path().join(&name);
    fs::create_dir(&other).unwrap();
    fs::create_dir(&plain).unwrap();
    let dead = record(&jails, &name, &[&other, &plain, &group]);
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let born = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap();
    let alive = record(&jails, &format!("pantry-run-ab12cd34-{me}-{born}-7"), &[&group]);

    let swept = bench.sandbox.sweep().unwrap();
    assert_eq!((swept.groups, swept.entries), (1, 1));
    assert_eq!(left.wait().unwrap().signal(), Some(9));
    assert!(!group.exists() && !dead.exists());
    assert!(other.exists() && plain.exists(), "these were never a run's");
    assert!(alive.exists(), "its owner lives");
    assert_eq!(bench.sandbox.sweep().unwrap(), pantry::sandbox::Swept::default());

    fs::remove_file(alive).unwrap();
    fs::remove_dir(other).unwrap();
    drop(elsewhere);
    bench.check_nothing_left();
}

/// Starts this test once more as a process that sits elsewhere and runs a jail that doesn't end.
fn victim(test: &str, bench: &Bench, elsewhere: &Elsewhere) -> Child {
    let told = [&elsewhere.0, &bench.dir.path().join("jails"), &bench.root, &bench.helper]
        .map(|path| path.to_str().unwrap().to_owned())
        .join("\n");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("leftovers::{test}"), "--nocapture"])
        .env(VICTIM, format!("{told}\n{}", bench.probe))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the program of the run is in the group", || {
        elsewhere.run().is_some_and(|group| {
            fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|pids| pids.lines().count() == 2)
        })
    });
    child
}

/// The other process: ends only by being killed.
fn be_victim() -> bool {
    let Ok(told) = std::env::var(VICTIM) else { return false };
    let told: Vec<&str> = told.lines().collect();
    fs::write(Path::new(told[0]).join("cgroup.procs"), std::process::id().to_string()).unwrap();
    let sandbox = Sandbox::new(told[1].as_ref()).unwrap().with_helper(told[3].into());
    let mut policy = Policy::new(vec![told[2].into()], vec![told[4].into(), "sleep".into()]);
    policy.limits.wall_ms = 60_000;
    let outcome = sandbox.run(&policy, StdinBytes::Empty, &Cancel::new().unwrap());
    panic!("not killed: {outcome:?}");
}

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// The helper of the one run of a process; beside it that process has the kept one, which has no children.
fn helper_of(parent: u32) -> u32 {
    let helpers = children(parent);
    assert_eq!(helpers.len(), 2, "{helpers:?}");
    *helpers.iter().find(|helper| !children(**helper).is_empty()).unwrap()
}

fn children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).unwrap().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap());
    lists
        .flat_map(|list| list.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn a_run_killed_with_its_helper_is_swept_from_another_place() {
    if be_victim() {
        return;
    }
    let bench = Bench::new();
    let Some(elsewhere) = Elsewhere::make() else { return };
    let mut victim = victim("a_run_killed_with_its_helper_is_swept_from_another_place", &bench, &elsewhere);
    let helper = helper_of(victim.id());
    // Stopped, it can't remove the group when the helper is gone, nor the helper when it is.
    kill(victim.id(), Signal::STOP);
    kill(helper, Signal::KILL);
    kill(victim.id(), Signal::KILL);
    assert_eq!(victim.wait().unwrap().signal(), Some(9));
    assert!(elsewhere.run().is_some(), "nothing was left, so nothing is shown");

    let swept = bench.sandbox.sweep().unwrap();
    assert!(swept.groups >= 1 && swept.entries == 1, "{swept:?}");
    assert_eq!(elsewhere.run(), None);
    drop(elsewhere);
    bench.check_nothing_left();
}

#[test]
fn the_helper_of_a_killed_caller_removes_the_groups_itself() {
    if be_victim() {
        return;
    }
    let bench = Bench::new();
    let Some(elsewhere) = Elsewhere::make() else { return };
    let mut victim = victim("the_helper_of_a_killed_caller_removes_the_groups_itself", &bench, &elsewhere);
    kill(victim.id(), Signal::KILL);
    assert_eq!(victim.wait().unwrap().signal(), Some(9));
    until("the helper removes the group", || elsewhere.run().is_none());
    // Its record is for the next start.
    assert_eq!(bench.sandbox.sweep().unwrap().entries, 1);
    drop(elsewhere);
    bench.check_nothing_left();
}
