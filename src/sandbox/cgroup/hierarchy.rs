//! Where the hierarchies are mounted, and where in them we are.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::Move;

/// The mounted hierarchies with our own place in each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    unified: Option<Place>,
    /// Controllers with their hierarchy, version 1.
    version1: Vec<(String, PathBuf)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Place {
    mount: PathBuf,
    own: PathBuf,
}

/// The group into which the caller moves itself, so that its former one may have controllers for children.
const SELF: &str = "pantry-server";
/// The group of a root caller whose own group can't have children.
const TOP: &str = "pantry-jails";

impl Hierarchies {
    /// Reads them from `/proc`.
    pub(super) fn read() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let places = fs::read_to_string("/proc/self/cgroup").ok()?;
        Some(Self::parse(&mounts, &places))
    }

    fn parse(mounts: &str, places: &str) -> Self {
        let mut found = Self::default();
        for line in mounts.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let before: Vec<&str> = before.split(' ').collect();
            let after: Vec<&str> = after.split(' ').collect();
            let (Some(root), Some(at), Some(kind)) = (before.get(3), before.get(4), after.first()) else {
                continue;
            };
            let options = after.get(2).copied().unwrap_or_default();
            let place = |wanted: &dyn Fn(&str) -> bool| {
                let own = places.lines().find_map(|line| {
                    let mut fields = line.splitn(3, ':').skip(1);
                    let (controllers, path) = (fields.next()?, fields.next()?);
                    wanted(controllers).then_some(path)
                })?;
                // A bind mount shows a part of the hierarchy only.
                let below = Path::new(own).strip_prefix(root).ok()?;
                Some(Path::new(at).join(below))
            };
            match *kind {
                "cgroup2" if found.unified.is_none() => {
                    if let Some(own) = place(&|controllers| controllers.is_empty()) {
                        found.unified = Some(Place { mount: PathBuf::from(at), own });
                    }
                }
                "cgroup" => {
                    for controller in
                        options.split(',').filter(|name| ["memory", "pids", "cpu"].contains(name))
                    {
                        let here = |listed: &str| listed.split(',').any(|name| name == controller);
                        if let Some(own) = place(&here) {
                            found.version1.push((controller.to_owned(), own));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Our own group in the hierarchy of a controller of version 1.
    pub(super) fn version1(&self, controller: &str) -> Option<PathBuf> {
        self.version1.iter().find(|(name, _)| name == controller).map(|(_, own)| own.clone())
    }

    /// The group of version 2 below which runs can be limited in memory and processes.
    pub(super) fn unified(&self, moving: Move) -> Option<PathBuf> {
        let place = self.unified.as_ref()?;
        if place.own.ends_with(SELF)
            && let Some(parent) = place.own.parent()
            && gives(parent)
        {
            return Some(parent.to_owned());
        }
        if gives(&place.own) || (moving == Move::Allowed && step_aside(&place.own)) {
            return Some(place.own.clone());
        }
        if rustix::process::geteuid().is_root() && gives(&place.mount) {
            let top = place.mount.join(TOP);
            let there = top.is_dir() || fs::create_dir(&top).is_ok();
            if there && (gives(&top) || enable(&top)) {
                return Some(top);
            }
        }
        None
    }
}

fn lists(dir: &Path, file: &str, names: &[&str]) -> bool {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
    names.iter().all(|name| text.split_ascii_whitespace().any(|listed| listed == *name))
}

/// Whether children of a group can be made by us and have controllers for memory and processes.
fn gives(dir: &Path) -> bool {
    let flags = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    lists(dir, "cgroup.subtree_control", &["memory", "pids"]) && rustix::fs::access(dir, flags).is_ok()
}

fn enable(dir: &Path) -> bool {
    let control = dir.join("cgroup.subtree_control");
    let enabled = fs::write(&control, "+memory +pids").is_ok();
    if enabled {
        let _optional = fs::write(&control, "+cpu");
    }
    enabled
}

/// Moves our own process into a child, if it is alone in its group: only a group without processes of its own may
/// have controllers for its children.
fn step_aside(own: &Path) -> bool {
    let me = std::process::id().to_string();
    let alone = fs::read_to_string(own.join("cgroup.procs")).is_ok_and(|pids| pids.trim() == me);
    if !alone || !lists(own, "cgroup.controllers", &["memory", "pids"]) {
        return false;
    }
    let aside = own.join(SELF);
    if !aside.is_dir() && fs::create_dir(&aside).is_err() {
        return false;
    }
    if fs::write(aside.join("cgroup.procs"), &me).is_ok() && enable(own) {
        return true;
    }
    let _back = fs::write(own.join("cgroup.procs"), &me);
    let _empty = fs::remove_dir(&aside);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:31 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
39 31 0:32 /docker/x /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:33 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn our_own_places_are_found_in_version_1_and_hybrid() {
        let places = "9:pids:/docker/x\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/\n";
        let found = Hierarchies::parse(V1, places);
        assert_eq!(found.version1("memory"), Some(PathBuf::from("/sys/fs/cgroup/memory/a/b")));
        assert_eq!(found.version1("cpu"), Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct")));
        assert_eq!(found.version1("pids"), Some(PathBuf::from("/sys/fs/cgroup/pids")));
        assert_eq!(found.unified.map(|place| place.own), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_place_outside_the_mounted_part_is_no_place() {
        let found = Hierarchies::parse(V1, "9:pids:/other\n");
        assert_eq!(found.version1("pids"), None);
        assert_eq!(found.version1("memory"), None);
    }

    #[test]
    fn version_2_alone_is_found() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Hierarchies::parse(mounts, "0::/user.slice/user-1.slice/app.service\n");
        let own = PathBuf::from("/sys/fs/cgroup/user.slice/user-1.slice/app.service");
        assert_eq!(found.unified, Some(Place { mount: PathBuf::from("/sys/fs/cgroup"), own }));
    }
}
