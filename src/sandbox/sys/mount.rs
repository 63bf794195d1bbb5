//! `mount_setattr`, which neither rustix nor nix has.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use rustix::io::Errno;

pub(crate) const ATTR_RDONLY: u64 = 0x1;
pub(crate) const ATTR_NOSUID: u64 = 0x2;
pub(crate) const ATTR_NODEV: u64 = 0x4;
pub(crate) const ATTR_NOEXEC: u64 = 0x8;

const AT_RECURSIVE: u32 = 0x8000;

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

fn mount_setattr(fd: i32, path: &std::ffi::CStr, flags: u32, attr: &MountAttr) -> Result<(), Errno> {
    // SAFETY: `path` ends in NUL, `attr` has the layout of `struct mount_attr` in its first version and its true
    // size is passed; both outlive the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if answer == 0 { Ok(()) } else { Err(super::process::last_errno()) }
}

/// Adds the attributes `set` to the mount behind `mount`, and to those below it when `recursive`.
pub(crate) fn set_mount_attr(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> Result<(), Errno> {
    let attr = MountAttr { set, clear: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH.cast_unsigned() | if recursive { AT_RECURSIVE } else { 0 };
    mount_setattr(mount.as_raw_fd(), c"", flags, &attr)
}

/// Cuts every mount of the calling namespace off from propagation, in both directions.
pub(crate) fn make_private() -> Result<(), Errno> {
    let attr = MountAttr { set: 0, clear: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    mount_setattr(libc::AT_FDCWD, c"/", AT_RECURSIVE, &attr)
}
