//! `/proc` of the run's own pid namespace, with masks.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::device::Devices;
use super::{Kind, attach, clone_at, point, tmpfs};
use crate::sandbox::error::{Fault, Step};
use crate::sandbox::sys;

/// The step whose refusal means that an outer container covers parts of its own /proc.
pub(crate) const MOUNT_STEP: &str = "mount /proc";

/// Read as empty: memory and log of the kernel, keys of others, what other users' work can be told from (timers, the
/// scheduler, interrupts), and the trigger that restarts the machine.
///
/// *Source*: the masks of the common container engines, with `kmsg` and `key-users` besides; which kernel has which
/// differs.
const MASKED_FILES: &[&str] = &[
    "interrupts",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "sysrq-trigger",
    "timer_list",
    "timer_stats",
];
/// Empty: hardware of the machine.
const MASKED_DIRECTORIES: &[&str] = &["acpi", "asound", "scsi"];
/// Settings of the kernel and its devices.
const READ_ONLY: &[&str] = &["bus", "fs", "irq", "sys"];

/// Mounts `/proc`.
pub(super) fn mount(root: &OwnedFd, devices: &Devices) -> Result<(), Fault> {
    let at = point::open(root, Path::new("/proc"), Kind::Directory, false)?;
    let filesystem = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).step(MOUNT_STEP)?;
    fsconfig_create(filesystem.as_fd()).step(MOUNT_STEP)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc = fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).step(MOUNT_STEP)?;
    attach(&proc, &at).step(MOUNT_STEP)?;
    forbid_user_namespaces(&proc)?;
    devices.mask(&proc, MASKED_FILES)?;
    let step = "mask directories of /proc";
    let mut empty: Option<OwnedFd> = None;
    for name in MASKED_DIRECTORIES {
        let Ok(target) = point::open(&proc, Path::new(name), Kind::Directory, false) else { continue };
        let mask = match &empty {
            Some(attached) => clone_at(attached, "").step(step)?,
            None => tmpfs(4096, 1, "0555", attributes | MountAttrFlags::MOUNT_ATTR_RDONLY)?,
        };
        attach(&mask, &target).step(step)?;
        empty.get_or_insert(mask);
    }
    for name in READ_ONLY {
        let Ok(target) = point::open(&proc, Path::new(name), Kind::Directory, false) else { continue };
        let copy = clone_at(&proc, name).step("make parts of /proc read-only")?;
        let guarded = sys::ATTR_RDONLY | sys::ATTR_NOSUID | sys::ATTR_NODEV | sys::ATTR_NOEXEC;
        sys::set_mount_attr(copy.as_fd(), guarded, false).step("make parts of /proc read-only")?;
        attach(&copy, &target).step("make parts of /proc read-only")?;
    }
    Ok(())
}

/// Sets the number of user namespaces that may be made in this one to 0; nothing inside has the right to raise it.
fn forbid_user_namespaces(proc: &OwnedFd) -> Result<(), Fault> {
    let step = "forbid nested user namespaces";
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(proc, "sys/user/max_user_namespaces", flags, Mode::empty()).step(step)?;
    rustix::io::write(&file, b"0").step(step).map(|_| ())
}
