//! The Landlock layer: what a policy lets nobody write is not written, whatever mounts and file modes would allow.
//!
//! It is a second wall behind the mounts and in front of the system call filter, made by the program's own process
//! just before the filter, and it holds for everything that comes of it:
//!
//! - Reading and executing everywhere in the root; writing only beneath scratch space, outputs, data and `/dev`. Not in
//!   `/proc`, which mounts have to leave writable, and not through a descriptor that was handed in for reading.
//! - TCP (ABI 4) to and from the ports that the policy names, none without a network.
//! - No signal and no abstract socket (ABI 6) that leads out of the run.
//!
//! It is as strong as the kernel has it: the receipt says which ABI was used. ABI 1 (Linux 5.13 to 5.18) is not used at
//! all, because under it every rename from one directory to another fails, which ordinary programs need.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use ::landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, NetPort,
    PathBeneath, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError,
    RulesetStatus, Scope,
};
use nix::libc;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::error::{Fault, Step as _};
use super::grant::Grant;
use super::policy::Policy;

/// The newest ABI that is used: the newest that was tried.
pub(crate) const NEWEST: u32 = 7;
/// The first that lets files be renamed from one directory to another.
const OLDEST: u32 = 2;
/// The first that holds TCP.
pub(crate) const TCP: u32 = 4;
/// The first that holds signals and abstract sockets.
const SCOPES: u32 = 6;

/// What the ABI in use does not hold, in words; none when it holds all that is asked of it.
pub(crate) fn lacks(abi: u32) -> Option<&'static str> {
    match abi {
        ..TCP => Some("files alone: neither TCP nor signals and abstract sockets"),
        TCP..SCOPES => Some("files and TCP: not signals and abstract sockets"),
        _ => None,
    }
}

/// Whether this kernel can hold a run to certain TCP ports.
pub(crate) fn holds_ports() -> bool {
    let asked = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessNet::from_all(ABI::V4));
    asked.and_then(Ruleset::create).is_ok()
}

/// Holds the calling process, and all that comes of it, to what the policy names; gives the ABI that was used, none
/// where the kernel has no Landlock or too little of it. `at_most` is the newest ABI to use.
pub(crate) fn restrict(policy: &Policy, at_most: u32) -> Result<Option<u32>, Fault> {
    let at_most = at_most.min(NEWEST);
    let used = if at_most < OLDEST { None } else { apply(policy, at_most)? };
    if policy.grants.iter().any(Grant::names_ports) && used.is_none_or(|abi| abi < TCP) {
        let step = "hold the network to the granted ports (it needs Landlock's ABI 4, of Linux 6.7)";
        return Err(Fault { step: step.to_owned(), errno: libc::EOPNOTSUPP });
    }
    Ok(used)
}

fn apply(policy: &Policy, at_most: u32) -> Result<Option<u32>, Fault> {
    let abi = ABI::from(i32::try_from(at_most).unwrap_or(0));
    let tcp = Tcp::of(policy);
    let mut rules = handled(abi, at_most, &tcp).and_then(Ruleset::create).map_err(|error| fault(&error))?;
    allow_places(&mut rules, policy, abi)?;
    allow_streams(&mut rules, abi)?;
    if at_most >= TCP {
        tcp.allow(&mut rules).map_err(|error| fault(&error))?;
    }
    let status = rules.restrict_self().map_err(|error| fault(&error))?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } if status.ruleset != RulesetStatus::NotEnforced => {
            Ok(Some((effective_abi as u32).min(at_most)))
        }
        _ => Ok(None),
    }
}

/// What is forbidden unless a rule allows it.
fn handled(abi: ABI, at_most: u32, tcp: &Tcp) -> Result<Ruleset, RulesetError> {
    let mut ruleset = Ruleset::default()
        // A kernel with less has none of it.
        .set_compatibility(CompatLevel::SoftRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?;
    if at_most >= TCP && tcp.connect.is_some() {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
    }
    if at_most >= TCP && tcp.bind.is_some() {
        ruleset = ruleset.handle_access(AccessNet::BindTcp)?;
    }
    if at_most >= SCOPES {
        ruleset = ruleset.scope(Scope::from_all(abi))?;
    }
    Ok(ruleset)
}

fn allow_places(rules: &mut RulesetCreated, policy: &Policy, abi: ABI) -> Result<(), Fault> {
    let all = AccessFs::from_all(abi);
    // No scratch space has devices. To make one is the kernel's to refuse, with the answer that programs know.
    let scratch = all & !BitFlags::from(AccessFs::IoctlDev);
    let devices = all
        & (AccessFs::ReadFile
            | AccessFs::ReadDir
            | AccessFs::WriteFile
            | AccessFs::Truncate
            | AccessFs::IoctlDev);
    let mut places: Vec<(&Path, BitFlags<AccessFs>)> = vec![
        (Path::new("/"), AccessFs::from_read(abi)),
        (Path::new("/dev"), devices),
        (Path::new("/dev/shm"), scratch),
    ];
    places.extend(policy.tmpfs.iter().map(|tmpfs| (tmpfs.at.as_path(), scratch)));
    places.extend(policy.outputs.iter().map(|output| (output.at.as_path(), scratch)));
    places.extend(policy.data.iter().map(|data| (data.at.as_path(), scratch)));
    for (path, rights) in places {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(place) => allow(rules, place.as_fd(), rights).step_at("allow by Landlock", path)?,
            // Below a directory that is shut to the program: it can't get there, allowed or not.
            Err(Errno::ACCESS) => {}
            Err(errno) => return Err(errno).step_at("allow by Landlock", path),
        }
    }
    Ok(())
}

/// Lets the program open its own standard streams once more, as shells do by `/dev/stderr`, for what they were opened
/// for and no more.
fn allow_streams(rules: &mut RulesetCreated, abi: ABI) -> Result<(), Fault> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let step = "allow the standard streams by Landlock";
        let kind = rustix::fs::fstat(stream).map(|stat| FileType::from_raw_mode(stat.st_mode)).step(step)?;
        if matches!(kind, FileType::Directory | FileType::Socket) {
            continue;
        }
        let mode = rustix::fs::fcntl_getfl(stream).step(step)? & OFlags::RWMODE;
        let mut rights = BitFlags::from(AccessFs::IoctlDev);
        if mode != OFlags::WRONLY {
            rights |= AccessFs::ReadFile;
        }
        if mode != OFlags::RDONLY {
            rights |= AccessFs::WriteFile | AccessFs::Truncate;
        }
        match allow(rules, stream, rights & AccessFs::from_all(abi)) {
            // A pipe, or another file of the kernel's own, which Landlock lets everybody open who has it.
            Err(Errno::BADFD) => {}
            other => other.step(step)?,
        }
    }
    Ok(())
}

fn allow(rules: &mut RulesetCreated, place: BorrowedFd<'_>, rights: BitFlags<AccessFs>) -> Result<(), Errno> {
    match rules.add_rule(PathBeneath::new(place, rights)) {
        Ok(_) => Ok(()),
        Err(error) => Err(Errno::from_raw_os_error(errno(&error))),
    }
}

/// The TCP ports of a run; none means any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tcp {
    pub(crate) connect: Option<Vec<u16>>,
    pub(crate) bind: Option<Vec<u16>>,
}

impl Tcp {
    pub(crate) fn of(policy: &Policy) -> Self {
        let granted = policy.granted();
        let named = policy.grants.iter().any(Grant::names_ports);
        // The host's network is unconfined unless ports are named; who may set up its own uses it as it likes.
        let any = policy.leads_out() && !named || granted.contains(CapabilitySet::NET_ADMIN);
        if any {
            return Self { connect: None, bind: None };
        }
        let mut connect: Vec<u16> = policy.servers().iter().map(|server| server.port).collect();
        let mut bind = Vec::new();
        for grant in &policy.grants {
            match grant {
                Grant::NetworkClient(ports) => connect.extend_from_slice(ports),
                Grant::NetworkServer(ports) => bind.extend_from_slice(ports),
                _ => {}
            }
        }
        let low_ports = granted.contains(CapabilitySet::NET_BIND_SERVICE);
        Self { connect: Some(connect), bind: (!low_ports).then_some(bind) }
    }

    fn allow(&self, rules: &mut RulesetCreated) -> Result<(), RulesetError> {
        for port in self.connect.iter().flatten() {
            (&mut *rules).add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
        for port in self.bind.iter().flatten() {
            (&mut *rules).add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
        }
        Ok(())
    }
}

fn fault(error: &RulesetError) -> Fault {
    Fault { step: "restrict by Landlock".to_owned(), errno: errno(error) }
}

/// The number of the system's error behind one of the library's.
fn errno(error: &RulesetError) -> i32 {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(number) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return number;
        }
        cause = error.source();
    }
    libc::EINVAL
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::policy::Network;
    use super::*;

    fn tcp(network: Network, grants: &[&str]) -> Tcp {
        let mut policy = Policy::new(vec![], vec!["/x".to_owned()]).network(network);
        policy.grants = grants.iter().map(|grant| grant.parse().unwrap()).collect();
        Tcp::of(&policy)
    }

    #[test]
    fn tcp_is_held_to_what_is_named() {
        let ports = |connect: Option<&[u16]>, bind: Option<&[u16]>| Tcp {
            connect: connect.map(<[u16]>::to_vec),
            bind: bind.map(<[u16]>::to_vec),
        };
        assert_eq!(tcp(Network::None, &[]), ports(Some(&[]), Some(&[])));
        assert_eq!(tcp(Network::None, &["NET_BIND_SERVICE"]), ports(Some(&[]), None));
        assert_eq!(tcp(Network::None, &["NET_ADMIN"]), ports(None, None));
        assert_eq!(tcp(Network::Host, &[]), ports(None, None));
        assert_eq!(
            tcp(Network::Host, &["network-client=tcp:443,5432"]),
            ports(Some(&[443, 5432]), Some(&[]))
        );
        assert_eq!(tcp(Network::Host, &["network-server=8080"]), ports(Some(&[]), Some(&[8080])));
    }

    #[test]
    fn what_an_older_abi_does_not_hold_is_said() {
        assert!(lacks(2).is_some_and(|what| what.contains("TCP")));
        assert!(lacks(5).is_some_and(|what| !what.contains("neither")));
        assert_eq!(lacks(NEWEST), None);
    }
}
