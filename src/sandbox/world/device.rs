//! `/dev`: five devices of the host, whose numbers are checked, terminals of the run's own where it has one, and nothing
//! that the root brings.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::libc;
use rustix::fs::{FileType, makedev};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use super::{Kind, attach, clone_at, clone_tree, point, tmpfs};
use crate::sandbox::error::{Fault, Step};
use crate::sandbox::sys;

const DEVICES: [(&str, u32, u32); 5] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9)];
/// The controlling terminal of whoever opens it; only where a run has one of its own.
const TERMINAL: (&str, u32, u32) = ("tty", 5, 0);
/// Most terminals of a run with one: its own, and those that it makes.
const TERMINALS: u32 = 16;
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
const SHARED_MEMORY_CAP: u64 = 64 * 1024 * 1024;

/// The host's devices, as detached mounts.
pub(super) struct Devices {
    mounts: Vec<(&'static str, OwnedFd)>,
    terminal: bool,
}

impl Devices {
    /// Opens the devices and checks that they are what their names say (CVE-2025-31133).
    pub(super) fn open(terminal: bool) -> Result<Self, Fault> {
        let mut mounts = Vec::new();
        for (name, major, minor) in DEVICES.into_iter().chain(terminal.then_some(TERMINAL)) {
            let path = Path::new("/dev").join(name);
            let device = clone_tree(&path, false)?;
            let stat = rustix::fs::fstat(&device).step_at("look at", &path)?;
            let real = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
            if !real || stat.st_rdev != makedev(major, minor) {
                return Err(Fault {
                    step: format!("take the host's /dev/{name}: it is another device"),
                    errno: libc::ENODEV,
                });
            }
            let attributes = sys::ATTR_RDONLY | sys::ATTR_NOSUID | sys::ATTR_NOEXEC;
            sys::set_mount_attr(device.as_fd(), attributes, false).step_at("guard", &path)?;
            mounts.push((name, device));
        }
        Ok(Self { mounts, terminal })
    }

    /// Mounts `/dev`, read-only.
    ///
    /// A shared mapping of `/dev/zero` is memory that stays when it is unmapped in part. Where memory is `watched` by
    /// sampling processes, `/dev/full` stands in for it: that reads the same, and has no mappings.
    pub(super) fn mount(&self, root: &OwnedFd, memory_bytes: u64, watched: bool) -> Result<(), Fault> {
        let step = "make /dev";
        let at = point::open(root, Path::new("/dev"), Kind::Directory, false)?;
        let dev = tmpfs(64 * 1024, 64, "0755", MountAttrFlags::empty())?;
        attach(&dev, &at).step(step)?;
        for (name, device) in &self.mounts {
            let target = point::open(&dev, Path::new(name), Kind::File, true)?;
            if watched && *name == "full" {
                let zero = point::open(&dev, Path::new("zero"), Kind::File, true)?;
                attach(device, &target).step(step)?;
                attach(&clone_at(device, "").step(step)?, &zero).step(step)?;
            } else if !(watched && *name == "zero") {
                attach(device, &target).step(step)?;
            }
        }
        if self.terminal {
            let target = point::open(&dev, Path::new("pts"), Kind::Directory, true)?;
            attach(&terminals()?, &target).step("mount /dev/pts")?;
            rustix::fs::symlinkat("pts/ptmx", &dev, "ptmx").step(step)?;
        }
        for (name, target) in LINKS {
            rustix::fs::symlinkat(target, &dev, name).step(step)?;
        }
        let target = point::open(&dev, Path::new("shm"), Kind::Directory, true)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        attach(&tmpfs((memory_bytes / 4).min(SHARED_MEMORY_CAP), 4096, "1777", attributes)?, &target)
            .step(step)?;
        sys::set_mount_attr(dev.as_fd(), sys::ATTR_RDONLY | sys::ATTR_NOSUID | sys::ATTR_NOEXEC, false)
            .step(step)
    }

    /// Puts an empty device over each of these files, where they exist.
    pub(super) fn mask(&self, directory: &OwnedFd, names: &[&str]) -> Result<(), Fault> {
        let step = "mask files of /proc";
        let null =
            &self.mounts.first().ok_or_else(|| Fault { step: step.to_owned(), errno: libc::ENODEV })?.1;
        for name in names {
            let Ok(target) = point::open(directory, Path::new(name), Kind::File, false) else { continue };
            attach(&clone_at(null, "").step(step)?, &target).step(step)?;
        }
        Ok(())
    }
}

/// Terminals of the run's own: none of the host's is among them.
fn terminals() -> Result<OwnedFd, Fault> {
    let step = "mount /dev/pts";
    let filesystem = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC).step(step)?;
    let filesystem = filesystem.as_fd();
    for (name, value) in [("mode", "0620"), ("ptmxmode", "0666"), ("max", &TERMINALS.to_string())] {
        fsconfig_set_string(filesystem, name, value).step(step)?;
    }
    fsconfig_create(filesystem).step(step)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(filesystem, FsMountFlags::FSMOUNT_CLOEXEC, attributes).step(step)
}
