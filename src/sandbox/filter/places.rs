//! Which calls name paths, by which arguments, and what for; and which name addresses.

use nix::libc;

/// What a call wants of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// To open it as the flags in this argument say.
    Open(u8),
    /// To open it for writing, made anew if missing.
    Rewrite,
    /// To write to a file that is there.
    Write,
    /// To make something new of this name.
    Create,
    /// To take the name away.
    Remove,
    /// To change its mode, owner, times or attributes.
    Change,
    /// To execute it.
    Execute,
}

/// A path among a call's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The argument with the directory that a relative path counts from; none for the working directory.
    pub(crate) base: Option<u8>,
    /// The argument that points at the path.
    pub(crate) path: u8,
    pub(crate) what: Use,
}

const fn at(path: u8, what: Use) -> Place {
    Place { base: None, path, what }
}

const fn below(base: u8, path: u8, what: Use) -> Place {
    Place { base: Some(base), path, what }
}

/// `fchmodat2`, newer than the C library's headers on some hosts.
const SYS_FCHMODAT2: libc::c_long = 452;

const PLACES: &[(libc::c_long, &[Place])] = &[
    (libc::SYS_openat, &[below(0, 1, Use::Open(2))]),
    (libc::SYS_truncate, &[at(0, Use::Write)]),
    (libc::SYS_mkdirat, &[below(0, 1, Use::Create)]),
    (libc::SYS_mknodat, &[below(0, 1, Use::Create)]),
    (libc::SYS_symlinkat, &[below(1, 2, Use::Create)]),
    (libc::SYS_linkat, &[below(2, 3, Use::Create)]),
    (libc::SYS_unlinkat, &[below(0, 1, Use::Remove)]),
    (libc::SYS_renameat, &[below(0, 1, Use::Remove), below(2, 3, Use::Remove)]),
    (libc::SYS_renameat2, &[below(0, 1, Use::Remove), below(2, 3, Use::Remove)]),
    (libc::SYS_fchmodat, &[below(0, 1, Use::Change)]),
    (SYS_FCHMODAT2, &[below(0, 1, Use::Change)]),
    (libc::SYS_fchownat, &[below(0, 1, Use::Change)]),
    (libc::SYS_utimensat, &[below(0, 1, Use::Change)]),
    (libc::SYS_setxattr, &[at(0, Use::Change)]),
    (libc::SYS_lsetxattr, &[at(0, Use::Change)]),
    (libc::SYS_removexattr, &[at(0, Use::Change)]),
    (libc::SYS_lremovexattr, &[at(0, Use::Change)]),
    (libc::SYS_execve, &[at(0, Use::Execute)]),
    (libc::SYS_execveat, &[below(0, 1, Use::Execute)]),
];

/// The older forms that only this architecture has.
#[cfg(target_arch = "x86_64")]
const PLACES_OLD: &[(libc::c_long, &[Place])] = &[
    (libc::SYS_open, &[at(0, Use::Open(1))]),
    (libc::SYS_creat, &[at(0, Use::Rewrite)]),
    (libc::SYS_mkdir, &[at(0, Use::Create)]),
    (libc::SYS_mknod, &[at(0, Use::Create)]),
    (libc::SYS_symlink, &[at(1, Use::Create)]),
    (libc::SYS_link, &[at(1, Use::Create)]),
    (libc::SYS_unlink, &[at(0, Use::Remove)]),
    (libc::SYS_rmdir, &[at(0, Use::Remove)]),
    (libc::SYS_rename, &[at(0, Use::Remove), at(1, Use::Remove)]),
    (libc::SYS_chmod, &[at(0, Use::Change)]),
    (libc::SYS_chown, &[at(0, Use::Change)]),
    (libc::SYS_lchown, &[at(0, Use::Change)]),
    (libc::SYS_utime, &[at(0, Use::Change)]),
    (libc::SYS_utimes, &[at(0, Use::Change)]),
    (libc::SYS_futimesat, &[below(0, 1, Use::Change)]),
];
#[cfg(not(target_arch = "x86_64"))]
const PLACES_OLD: &[(libc::c_long, &[Place])] = &[];

/// The paths that a call names; none for most calls.
///
/// `openat2` is not among them: only programs of ours have it.
pub(crate) fn places(number: u32) -> &'static [Place] {
    let number = libc::c_long::from(number);
    PLACES.iter().chain(PLACES_OLD).find(|(one, _)| *one == number).map_or(&[], |(_, places)| places)
}

/// Whether a call names an address of the network: its second argument points at it, the third has its length.
pub(crate) fn names_address(number: u32) -> bool {
    matches!(libc::c_long::from(number), libc::SYS_connect | libc::SYS_bind)
}
