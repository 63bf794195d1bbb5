//! What there is to know of the host: ids that we may use, the kernel, and why a step was refused.

use fs_err as fs;
use nix::libc;

use super::error::{Fault, SandboxError};
use super::policy::Identity;
use super::world::procfs::MOUNT_STEP;

/// Outside ids of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutsideIds {
    /// Whether they are others than the caller's own.
    pub(crate) as_root: bool,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Where the ids that own nothing begin, and how many we use in turn.
const FREE_IDS: u32 = 1_000_000;
const FREE_IDS_COUNT: u32 = 60_000;

/// Chooses the outside ids of the `turn`-th run.
pub(crate) fn outside_ids(identity: Identity, turn: u64) -> OutsideIds {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let own = OutsideIds { as_root: false, uid, gid };
    if uid != 0 {
        return own;
    }
    match identity.host_base.or_else(|| free_id_of("/proc/self/uid_map", turn)) {
        Some(id) => OutsideIds { as_root: true, uid: id, gid: identity.host_group.unwrap_or(id) },
        None => own,
    }
}

/// The outside group of the `turn`-th run where none is named; none without root, or with but a few ids.
pub(crate) fn free_group(turn: u64) -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    free_id_of("/proc/self/gid_map", turn)
}

/// The id of the `turn`-th run by the map of the user namespace.
fn free_id_of(map: &str, turn: u64) -> Option<u32> {
    let map = fs::read_to_string(map).unwrap_or_default();
    free_id(&map, u32::try_from(turn % u64::from(FREE_IDS_COUNT)).unwrap_or(0))
}

/// An id that exists in this user namespace and isn't anybody's; none if it has but a few.
fn free_id(map: &str, offset: u32) -> Option<u32> {
    let ranges: Vec<(u64, u64)> = map
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let first = fields.next()?.parse().ok()?;
            Some((first, fields.nth(1)?.parse().ok()?))
        })
        .collect();
    let wanted = u64::from(FREE_IDS + offset);
    if ranges.iter().any(|(first, count)| (*first..first + count).contains(&wanted)) {
        return u32::try_from(wanted).ok();
    }
    // The upper ids of a container's range: its own users are at the lower end.
    let (first, count) = ranges.into_iter().max_by_key(|(first, count)| first + count)?;
    (count > 10_000).then(|| u32::try_from(first + count - 1000 - u64::from(offset % 1000)).ok()).flatten()
}

/// The release of the running kernel.
pub(crate) fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Refuses kernels that lack what every run needs.
pub(crate) fn check_kernel(release: &str) -> Result<(), SandboxError> {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 15) {
        return Ok(());
    }
    Err(SandboxError::Unsupported {
        what: format!("the kernel is {release}, and 5.15 is the oldest that works"),
        hint: "start a newer kernel".to_owned(),
    })
}

/// Turns a failed step into what the person can act on.
pub(crate) fn explain(fault: Fault) -> SandboxError {
    let setting = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let refused = matches!(fault.errno, libc::EPERM | libc::EACCES);
    let unsupported =
        |what: &str, hint: &str| SandboxError::Unsupported { what: what.to_owned(), hint: hint.to_owned() };
    if fault.step == "clone3"
        && (refused || matches!(fault.errno, libc::ENOSPC | libc::EUSERS | libc::ENOSYS))
    {
        let root = rustix::process::geteuid().is_root();
        // Root isn't held by this one.
        if !root && setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
            return unsupported(
                "user namespaces are off",
                "set kernel.unprivileged_userns_clone=1 by sysctl",
            );
        }
        if setting("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
            return unsupported("user namespaces are off", "set user.max_user_namespaces above 0 by sysctl");
        }
        return unsupported(
            "user namespaces are refused",
            "raise user.max_user_namespaces, and if this is a container let it make user namespaces (its system call filter may forbid clone3)",
        );
    }
    if refused && fault.step == MOUNT_STEP {
        return unsupported(
            "a /proc can't be mounted, because parts of the outer /proc are covered or read-only",
            "run outside the container, or give it an unmasked /proc (systempaths=unconfined, or no ProtectKernelTunables and ProtectKernelLogs in the unit)",
        );
    }
    let restricted =
        setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1");
    if refused && restricted && !rustix::process::geteuid().is_root() {
        return unsupported(
            "AppArmor takes the rights away that a user namespace gives",
            "install an AppArmor profile with `userns,` for this program (kernel.apparmor_restrict_unprivileged_userns stays on)",
        );
    }
    SandboxError::Setup { step: fault.step, errno: fault.errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ids_lie_where_nobody_lives() {
        assert_eq!(free_id("         0          0 4294967295\n", 7), Some(1_000_007));
        assert_eq!(free_id("0 100000 65536\n", 7), Some(65_536 - 1007));
        assert_eq!(free_id("0 1000 1\n", 7), None);
        assert_eq!(free_id("", 7), None);
    }

    #[test]
    fn a_group_of_its_own_is_taken_where_one_is_named() {
        let ids = |host_group| outside_ids(Identity { uid: 1, gid: 1, host_base: Some(42), host_group }, 7);
        if !rustix::process::geteuid().is_root() {
            assert_eq!((ids(Some(4242)), free_group(7)), (ids(None), None), "there is one group only");
            return;
        }
        assert_eq!((ids(None).uid, ids(None).gid), (42, 42));
        assert_eq!((ids(Some(4242)).uid, ids(Some(4242)).gid), (42, 4242));
        let free = outside_ids(Identity { uid: 1, gid: 1, host_base: None, host_group: None }, 7);
        assert!(!free.as_root || free_group(7) == Some(free.gid));
    }

    #[test]
    fn old_kernels_are_refused_by_name() {
        assert!(check_kernel("6.18.44-fc").is_ok());
        assert!(check_kernel("5.15.0").is_ok());
        assert!(
            check_kernel("5.4.0-150-generic").is_err_and(|error| error.to_string().contains("5.4.0-150"))
        );
    }
}
