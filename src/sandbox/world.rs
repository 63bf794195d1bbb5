//! What a program sees: root, devices, `/proc`, scratch space, inputs, data — built by the init.
//!
//! Nothing here is reached by a joined path inside a tree that somebody else filled: mounts are made detached and
//! moved onto descriptors, and every component is opened by itself with no link followed.

mod device;
mod layers;
mod point;
pub(crate) mod procfs;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;
use rustix::event::Timespec;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

use self::device::Devices;
use self::layers::{Layers, Missing};
use super::error::{Fault, Step};
use super::policy::Policy;
use super::receipt::RootKind;
use super::sys;
use super::wire::Launch;

/// Whether something is a directory or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
}

/// What is opened on the host, as the caller, before the id inside is taken.
pub(crate) struct Host {
    root: HostRoot,
    devices: Devices,
    inputs: Vec<(PathBuf, Kind, OwnedFd)>,
    data: Vec<(PathBuf, OwnedFd)>,
}

enum HostRoot {
    Empty,
    /// One tree in which every mount point exists: its detached clone.
    Clone(OwnedFd),
    /// Several layers, or mount points that no layer has.
    Layers(Layers, Vec<Missing>),
}

impl Host {
    /// Opens everything of the host that the policy names.
    pub(crate) fn open(launch: &Launch) -> Result<Self, Fault> {
        let policy = &launch.policy;
        let inputs = policy
            .inputs
            .iter()
            .map(|input| {
                let tree = clone_tree(&input.host, true)?;
                let kind = match file_type(&tree).step_at("look at", &input.host)? {
                    FileType::Directory => Kind::Directory,
                    FileType::RegularFile => Kind::File,
                    _ => {
                        return Err(Errno::INVAL)
                            .step_at("take as an input (neither file nor directory)", &input.host);
                    }
                };
                let attributes = sys::ATTR_RDONLY | sys::ATTR_NOSUID | sys::ATTR_NODEV;
                sys::set_mount_attr(tree.as_fd(), attributes, true).step_at("make read-only", &input.host)?;
                Ok((input.at.clone(), kind, tree))
            })
            .collect::<Result<Vec<_>, Fault>>()?;
        let data = policy
            .data
            .iter()
            .map(|data| {
                let tree = clone_tree(&data.host, false)?;
                if file_type(&tree).step_at("look at", &data.host)? != FileType::Directory {
                    return Err(Errno::NOTDIR).step_at("take as data", &data.host);
                }
                let attributes = sys::ATTR_NOSUID | sys::ATTR_NODEV;
                sys::set_mount_attr(tree.as_fd(), attributes, true).step_at("guard", &data.host)?;
                Ok((data.at.clone(), tree))
            })
            .collect::<Result<Vec<_>, Fault>>()?;
        let mut host =
            Self { root: HostRoot::Empty, devices: Devices::open(launch.terminal.is_some())?, inputs, data };
        host.root = host.open_root(policy)?;
        Ok(host)
    }

    fn open_root(&self, policy: &Policy) -> Result<HostRoot, Fault> {
        if policy.root.is_empty() {
            return Ok(HostRoot::Empty);
        }
        let layers = Layers::open(&policy.root)?;
        let missing = layers.missing(&self.points_in_root(policy))?;
        if let ([only], true) = (policy.root.as_slice(), missing.is_empty()) {
            let tree = clone_tree(only, false)?;
            let attributes = sys::ATTR_RDONLY | sys::ATTR_NOSUID | sys::ATTR_NODEV;
            sys::set_mount_attr(tree.as_fd(), attributes, true).step_at("make read-only", only)?;
            return Ok(HostRoot::Clone(tree));
        }
        Ok(HostRoot::Layers(layers, missing))
    }

    /// The mount points that must be there in the root itself: those that lie in no other mount.
    fn points_in_root(&self, policy: &Policy) -> Vec<(PathBuf, Kind)> {
        let mut points: Vec<(PathBuf, Kind)> =
            ["/dev", "/proc"].map(|path| (PathBuf::from(path), Kind::Directory)).to_vec();
        points.extend(policy.tmpfs.iter().map(|tmpfs| (tmpfs.at.clone(), Kind::Directory)));
        points.extend(policy.outputs.iter().map(|output| (output.at.clone(), Kind::Directory)));
        points.extend(self.inputs.iter().map(|(at, kind, _)| (at.clone(), *kind)));
        points.extend(self.data.iter().map(|(at, _)| (at.clone(), Kind::Directory)));
        points.sort_by(|a, b| a.0.cmp(&b.0));
        let all = points.clone();
        points.retain(|(path, _)| !all.iter().any(|(other, _)| other != path && path.starts_with(other)));
        points
    }
}

/// The finished world.
pub(crate) struct World {
    pub(crate) root: RootKind,
    /// The roots of the output directories, in the policy's order.
    pub(crate) outputs: Vec<OwnedFd>,
}

impl World {
    /// Builds everything and enters it.
    pub(crate) fn build(launch: &Launch, host: Host) -> Result<Self, Fault> {
        let policy = &launch.policy;
        let outer = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .step("open the outer root")?;
        let (kind, root) = match host.root {
            HostRoot::Clone(tree) => (RootKind::Clone, tree),
            HostRoot::Empty => (RootKind::Tmpfs, tmpfs(1024 * 1024, 1024, "0755", MountAttrFlags::empty())?),
            HostRoot::Layers(layers, missing) => (RootKind::Overlay, overlay(&layers, &missing, &outer)?),
        };
        attach(&root, &outer).step("attach the root")?;
        let make = kind == RootKind::Tmpfs;
        for directory in ["/dev", "/proc"] {
            point::open(&root, Path::new(directory), Kind::Directory, make)?;
        }
        host.devices.mount(&root, policy.limits.memory_bytes, launch.watch.memory)?;
        procfs::mount(&root, &host.devices)?;
        let outputs = mount_all(policy, &root, host.inputs, host.data, make)?;
        if make {
            sys::set_mount_attr(root.as_fd(), sys::ATTR_RDONLY | sys::ATTR_NOSUID | sys::ATTR_NODEV, false)
                .step("make the root read-only")?;
        }
        enter(&root)?;
        Ok(Self { root: kind, outputs })
    }
}

enum What {
    Scratch { size_bytes: u64, inodes: u64 },
    Output { index: usize, size_bytes: u64, inodes: u64 },
    Tree(OwnedFd),
}

/// Mounts scratch space, outputs, inputs and data, outer ones first.
fn mount_all(
    policy: &Policy,
    root: &OwnedFd,
    inputs: Vec<(PathBuf, Kind, OwnedFd)>,
    data: Vec<(PathBuf, OwnedFd)>,
    make: bool,
) -> Result<Vec<OwnedFd>, Fault> {
    let mut mounts: Vec<(PathBuf, Kind, What)> = Vec::new();
    for tmpfs in &policy.tmpfs {
        let what = What::Scratch { size_bytes: tmpfs.size_bytes, inodes: tmpfs.inodes };
        mounts.push((tmpfs.at.clone(), Kind::Directory, what));
    }
    for (index, output) in policy.outputs.iter().enumerate() {
        let what = What::Output { index, size_bytes: output.size_bytes, inodes: output.inodes };
        mounts.push((output.at.clone(), Kind::Directory, what));
    }
    mounts.extend(inputs.into_iter().map(|(at, kind, tree)| (at, kind, What::Tree(tree))));
    mounts.extend(data.into_iter().map(|(at, tree)| (at, Kind::Directory, What::Tree(tree))));
    mounts.sort_by(|a, b| a.0.cmp(&b.0));

    let scratch: Vec<PathBuf> = policy.tmpfs.iter().map(|tmpfs| tmpfs.at.clone()).collect();
    let output_paths: Vec<PathBuf> = policy.outputs.iter().map(|output| output.at.clone()).collect();
    let mut outputs: Vec<Option<OwnedFd>> = policy.outputs.iter().map(|_| None).collect();
    for (at, kind, what) in mounts {
        let in_scratch =
            scratch.iter().chain(&output_paths).any(|outer| at != *outer && at.starts_with(outer));
        let target = point::open(root, &at, kind, make || in_scratch)?;
        match what {
            What::Scratch { size_bytes, inodes } => {
                let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
                attach(&tmpfs(size_bytes, inodes, "1777", attributes)?, &target).step_at("mount", &at)?;
            }
            What::Output { index, size_bytes, inodes } => {
                let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
                    | MountAttrFlags::MOUNT_ATTR_NODEV
                    | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                let mount = tmpfs(size_bytes, inodes, "0755", attributes)?;
                attach(&mount, &target).step_at("mount", &at)?;
                outputs[index] = Some(mount);
            }
            What::Tree(tree) => attach(&tree, &target).step_at("mount", &at)?,
        }
    }
    Ok(outputs.into_iter().flatten().collect())
}

/// Makes `root` the root of everything and lets go of the outer one.
fn enter(root: &OwnedFd) -> Result<(), Fault> {
    rustix::process::fchdir(root).step("enter the root")?;
    match rustix::process::pivot_root(".", ".") {
        // The first root of a booted system has nothing below it that it could be exchanged with.
        Err(Errno::INVAL) => {
            return Err(Errno::INVAL).step("pivot_root (the outer root can't be an initramfs)");
        }
        other => other.step("pivot_root")?,
    }
    unmount(".", UnmountFlags::DETACH).step("detach the outer root")?;
    rustix::process::chdir("/").step("enter the root")?;
    let (there, here) =
        (rustix::fs::fstat(root).step("check the root")?, rustix::fs::stat("/").step("check the root")?);
    if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino) {
        Ok(())
    } else {
        Err(Fault { step: "check that the root is the new one".to_owned(), errno: libc::EXDEV })
    }
}

/// A read-only overlay of the layers, with a scratch layer on top that has the mount points they lack.
fn overlay(layers: &Layers, missing: &[Missing], outer: &OwnedFd) -> Result<OwnedFd, Fault> {
    let step = "make the overlay";
    let points = if missing.is_empty() {
        None
    } else {
        let inodes = 1024 + 64 * missing.len() as u64;
        let points = tmpfs(1024 * 1024, inodes, "0755", MountAttrFlags::empty())?;
        for point in missing {
            point.make(&points)?;
        }
        // An overlay takes only what is attached in this namespace.
        attach(&points, outer).step("attach the mount points")?;
        Some(points)
    };
    let lower: Vec<String> = points.iter().chain(layers.top_first()).map(by_descriptor).collect();
    let filesystem = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).step(step)?;
    fsconfig_set_string(filesystem.as_fd(), "source", "pantry").step(step)?;
    fsconfig_set_string(filesystem.as_fd(), "lowerdir", lower.join(":")).step(step)?;
    // Opaque directories and the like are kept in attributes that any user can set.
    fsconfig_set_flag(filesystem.as_fd(), "userxattr").step(step)?;
    fsconfig_create(filesystem.as_fd()).step(step)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(filesystem.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).step(step)?;
    if let Some(points) = points {
        // The overlay keeps a mount of its own.
        unmount(by_descriptor(&points), UnmountFlags::DETACH).step("detach the mount points")?;
    }
    Ok(mount)
}

/// The name of an open descriptor for calls that take only paths.
fn by_descriptor(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A detached clone of a path of the host, with what is mounted below it only where it can't be without.
fn clone_tree(path: &Path, follow: bool) -> Result<OwnedFd, Fault> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if !follow {
        flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    }
    match open_tree(CWD, path, flags) {
        // Mounts below it are locked to it in this namespace.
        Err(Errno::INVAL) => open_tree(CWD, path, flags | OpenTreeFlags::AT_RECURSIVE),
        other => other,
    }
    .step_at("open", path)
}

fn file_type(fd: &OwnedFd) -> Result<FileType, Errno> {
    rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode))
}

/// A detached tmpfs with caps.
fn tmpfs(size_bytes: u64, inodes: u64, mode: &str, attributes: MountAttrFlags) -> Result<OwnedFd, Fault> {
    let step = "make a tmpfs";
    let filesystem = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).step(step)?;
    let filesystem = filesystem.as_fd();
    fsconfig_set_string(filesystem, "size", size_bytes.to_string()).step(step)?;
    fsconfig_set_string(filesystem, "nr_inodes", inodes.to_string()).step(step)?;
    fsconfig_set_string(filesystem, "mode", mode).step(step)?;
    fsconfig_create(filesystem).step(step)?;
    fsmount(filesystem, FsMountFlags::FSMOUNT_CLOEXEC, attributes).step(step)
}

/// Puts a detached mount onto a place.
fn attach(mount: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Clones an attached mount, or what lies at `name` in it.
fn clone_at(from: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(from, name, flags)
}

/// A duration as the kernel takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
