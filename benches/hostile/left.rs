//! What hostile runs could leave behind on the machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What there is at a moment.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    processes: BTreeSet<u32>,
    mounts: BTreeSet<String>,
    groups: BTreeSet<PathBuf>,
}

impl Traces {
    /// Looks everywhere.
    pub fn now() -> Self {
        let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut groups = BTreeSet::new();
        find_groups(Path::new("/sys/fs/cgroup"), 8, &mut groups);
        Self { processes: processes(), mounts: mounts.lines().map(str::to_owned).collect(), groups }
    }

    /// What is there now and was not before: processes, mounts, control groups.
    pub fn since(&self, before: &Self) -> [usize; 3] {
        [
            self.processes.difference(&before.processes).count(),
            self.mounts.difference(&before.mounts).count(),
            self.groups.difference(&before.groups).count(),
        ]
    }
}

/// Hostile programs, and helpers and inits of ours.
fn processes() -> BTreeSet<u32> {
    let of_a_run = |id: u32| {
        let line = fs_err::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.starts_with(b"/bin/hostile\0") || line.starts_with(b"pantry\0__jail\0")
    };
    let ids = fs_err::read_dir("/proc").into_iter().flatten().flatten();
    ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|id| of_a_run(*id)).collect()
}

fn find_groups(folder: &Path, depth: u32, found: &mut BTreeSet<PathBuf>) {
    for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with("pantry-run-") {
            found.insert(entry.path());
        } else if depth > 0 {
            find_groups(&entry.path(), depth - 1, found);
        }
    }
}
