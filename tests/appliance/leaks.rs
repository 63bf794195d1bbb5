//! What must not be left of work: files, mounts, control groups, processes.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::support::{Server, checkout, edit, example, is_root, signal, skip, until};

/// Looks after one root; made before its server starts, so that it knows what was there before.
pub struct Watch {
    root: PathBuf,
    mounts: BTreeSet<String>,
    orphans: BTreeSet<u32>,
}

impl Watch {
    pub fn begin(root: &Path) -> Self {
        Self { root: root.to_path_buf(), mounts: mounts(), orphans: orphans(&processes()) }
    }

    /// Everything that is there now and should not be, in words. The server itself may live.
    pub fn left(&self, server: Option<u32>) -> Vec<String> {
        let mut left = files(&self.root);
        left.extend(mounts().difference(&self.mounts).map(|line| format!("mount {line}")));
        left.extend(groups(&self.root).iter().map(|group| format!("control group {}", group.display())));
        let table = processes();
        let new_orphans: BTreeSet<u32> = orphans(&table).difference(&self.orphans).copied().collect();
        let mut kept = false;
        for (pid, process) in &table {
            let descends = server.is_some_and(|server| descends(&table, *pid, server));
            // The helper that is kept stays as long as the server; a second one serves a run.
            let ours = server == Some(process.parent) && process.line == "pantry __jail keep ";
            if ours && !std::mem::replace(&mut kept, true) {
                continue;
            }
            if descends || new_orphans.contains(pid) {
                left.push(format!("process {pid}: {}", process.line));
            }
        }
        left
    }
}

/// Folders of changes and jails, unfinished uploads, unfinished trees.
fn files(root: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for (folder, prefix) in [("tmp", ""), ("run/jails", ""), ("uploads", ""), ("trees", ".tmp-")] {
        for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                left.push(format!("file {}", entry.path().display()));
            }
        }
    }
    left
}

/// What is mounted, without what the engines of other tests mount at the same time.
fn mounts() -> BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let engines = ["/pantry-podman-", "/pantry-dockerd-", "/pantry-demo-", "/run/docker", "/run/containerd"];
    table
        .lines()
        .filter(|line| !engines.iter().any(|engine| line.contains(engine)))
        .map(str::to_owned)
        .collect()
}

/// Control groups of runs for this root, in every hierarchy that is mounted.
pub fn groups(root: &Path) -> BTreeSet<PathBuf> {
    let Ok(jails) = root.join("run/jails").canonicalize() else { return BTreeSet::new() };
    let digest = Sha256::digest(jails.as_os_str().as_bytes());
    let tag: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut found = BTreeSet::new();
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    for line in table.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if matches!(fields[2], "cgroup" | "cgroup2") {
            find_groups(Path::new(fields[1]), &format!("pantry-run-{tag}-"), 8, &mut found);
        }
    }
    found
}

fn find_groups(dir: &Path, prefix: &str, depth: u32, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.insert(entry.path());
        } else if depth > 0 {
            find_groups(&entry.path(), prefix, depth - 1, found);
        }
    }
}

pub struct Process {
    parent: u32,
    line: String,
}

/// Control groups of a run that this process made with its own streams, in every hierarchy that is mounted.
pub fn groups_of(pid: u32) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    for line in table.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if matches!(fields[2], "cgroup" | "cgroup2") {
            find_groups(Path::new(fields[1]), &format!("pantry-run-exec-{pid}-"), 8, &mut found);
        }
    }
    found
}

/// All processes of the machine that are not dead.
pub fn processes() -> BTreeMap<u32, Process> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (Some(state), Some(Ok(parent))) = (fields.next(), fields.next().map(str::parse)) else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if state != "Z" {
            found.insert(pid, Process { parent, line });
        }
    }
    found
}

fn descends(table: &BTreeMap<u32, Process>, pid: u32, ancestor: u32) -> bool {
    let mut at = pid;
    for _ in 0..64 {
        match table.get(&at) {
            Some(process) if process.parent == ancestor => return true,
            Some(process) if process.parent > 1 => at = process.parent,
            _ => return false,
        }
    }
    false
}

/// Jails whose server is gone.
fn orphans(table: &BTreeMap<u32, Process>) -> BTreeSet<u32> {
    let ours = |pid: u32| table.get(&pid).is_some_and(|process| process.line.contains("pantry"));
    table
        .iter()
        .filter(|(_, process)| process.line.starts_with("pantry __jail") && !ours(process.parent))
        .map(|(pid, _)| *pid)
        .collect()
}

/// A server with a submission whose test does not end by itself.
fn with_a_running_test(server: &Server, marker: &str) {
    let package = example("greeter");
    edit(
        package.path(),
        "pantry_package.yaml",
        "[python3, -m, unittest, -v, tests.test_greet]",
        &format!("[python3, -c, \"import time; time.sleep(600)\", {marker}]"),
    );
    let folder = package.path().to_str().unwrap().to_owned();
    server.json(&["submit", &folder]);
    until("the test runs", || has_argument(marker));
}

/// Is there a process with this argument?
fn has_argument(marker: &str) -> bool {
    processes().values().any(|process| process.line.split(' ').any(|word| word == marker))
}

#[test]
fn the_check_for_leaks_sees_what_is_there() {
    let server = Server::start();
    server.until_healthy();
    server.until_nothing_is_left("at first");
    with_a_running_test(&server, "seen-by-the-check");
    let left = server.leftovers();
    for what in ["file ", "process "] {
        assert!(left.iter().any(|line| line.starts_with(what)), "{what} in {left:#?}");
    }
    let receipt = server.get("/health").1["checks"]["runner"].to_string();
    if receipt.contains("cgroup") {
        assert!(left.iter().any(|line| line.starts_with("control group ")), "{left:#?}\n{receipt}");
    }
    std::fs::create_dir(server.root.join("trees/.tmp-1-0")).unwrap();
    assert!(server.leftovers().iter().any(|line| line.ends_with(".tmp-1-0")));
    if is_root() {
        let at = server.root.join("run/mounted");
        std::fs::create_dir(&at).unwrap();
        let mounted =
            std::process::Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&at).status().unwrap();
        assert!(mounted.success());
        let left = server.leftovers();
        assert!(std::process::Command::new("umount").arg(&at).status().unwrap().success());
        assert!(left.iter().any(|line| line.starts_with("mount ")), "{left:#?}");
    } else {
        skip("the_check_for_leaks_sees_what_is_there (mounts)", "only root can mount something to be seen");
    }
}

#[test]
fn kill_9_ends_a_running_test_and_the_next_start_tidies_up() {
    let folder = super::support::fresh_root();
    let root = folder.path().join("root");
    let server = Server::start_on(&root, &[]);
    with_a_running_test(&server, "ended-with-the-server");
    signal(server.pid(), nix::sys::signal::Signal::SIGKILL);
    server.until_dead();
    until("the test ends with the server", || !has_argument("ended-with-the-server"));
    // The test goes on in the next server, and a rejection frees it.
    let server = Server::start_on(&root, &[]);
    until("the test runs again", || has_argument("ended-with-the-server"));
    let changes = server.json(&["changes"]);
    let [change] = &changes["items"].as_array().unwrap()[..] else { panic!("{changes:#}") };
    let id = change["id"].as_str().unwrap();
    let cancelled = server.pantry(&["abort", id]);
    assert!(cancelled.status.success(), "{}", super::support::show(&cancelled));
    server.until_nothing_is_left("after the abort");
    let good = server.submit(&checkout().join("examples/greeter"));
    assert_eq!(good["state"], "published", "{good:#}");
    server.until_nothing_is_left("after the next submission");
}

/// Processes whose environment or command line names this folder.
pub fn processes_with(folder: &str) -> Vec<String> {
    let names = |bytes: &[u8]| bytes.windows(folder.len()).any(|window| window == folder.as_bytes());
    let mut found = Vec::new();
    for (pid, process) in processes() {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if names(&environment) || names(process.line.as_bytes()) {
            found.push(format!("{pid}: {}", process.line));
        }
    }
    found
}
