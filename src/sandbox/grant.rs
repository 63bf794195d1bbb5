//! Named grants: what a run may do beyond the ordinary, each asked for by name.
//!
//! A capability is effective in the run's own user namespace only: over its own processes, over files of the one id
//! that it has, over a network namespace of its own. It gives nothing over the host. Nothing is granted by default,
//! and an unknown name is refused.
//!
//! | name | what it gives |
//! |---|---|
//! | `network-client=tcp:443,5432` | of the host's network, which the policy has to ask for too, TCP connections to these ports alone |
//! | `network-server=8080` | likewise TCP listeners on these ports alone |
//! | `file-control` | CHOWN, DAC_OVERRIDE, FOWNER and FSETID |
//! | `process-control` | KILL and SYS_NICE |
//! | `package-management` | `file-control`, SETFCAP and SYS_CHROOT; calls that change owners answer 0 without acting |
//! | a Linux capability | itself |

use std::fmt;
use std::str::FromStr;

use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::error::SandboxError;

/// Most ports of one grant.
const MOST_PORTS: usize = 64;

/// The capabilities that can be granted.
const CAPABILITIES: [(&str, CapabilitySet); 15] = [
    ("NET_ADMIN", CapabilitySet::NET_ADMIN),
    ("NET_RAW", CapabilitySet::NET_RAW),
    ("NET_BIND_SERVICE", CapabilitySet::NET_BIND_SERVICE),
    ("CHOWN", CapabilitySet::CHOWN),
    ("DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
    ("FOWNER", CapabilitySet::FOWNER),
    ("FSETID", CapabilitySet::FSETID),
    ("SETUID", CapabilitySet::SETUID),
    ("SETGID", CapabilitySet::SETGID),
    ("SETPCAP", CapabilitySet::SETPCAP),
    ("KILL", CapabilitySet::KILL),
    ("SYS_NICE", CapabilitySet::SYS_NICE),
    ("SYS_CHROOT", CapabilitySet::SYS_CHROOT),
    ("AUDIT_WRITE", CapabilitySet::AUDIT_WRITE),
    ("SETFCAP", CapabilitySet::SETFCAP),
];

/// What nobody is granted, and why.
const NEVER: [(&str, &str); 10] = [
    ("ALL", "it would be every right there is"),
    ("SYS_ADMIN", "it mounts, makes namespaces and reaches most of the kernel code that escapes go through"),
    ("SYS_MODULE", "it loads code into the kernel"),
    ("SYS_PTRACE", "it reads and changes processes that are not its own, the jail's init among them"),
    ("SYS_RAWIO", "it reaches devices and memory of the machine"),
    ("SYS_BOOT", "it restarts the machine"),
    ("MAC_ADMIN", "it changes the rules of the host's security modules"),
    ("MAC_OVERRIDE", "it passes the rules of the host's security modules over"),
    ("SYS_TIME", "the clock is everybody's"),
    ("SYS_TTY_CONFIG", "it takes terminals from others"),
];

/// Something beyond the ordinary that a run may do; written as its name, see the module's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Grant {
    /// TCP connections to these ports alone.
    NetworkClient(Vec<u16>),
    /// TCP listeners on these ports alone.
    NetworkServer(Vec<u16>),
    /// Files of its own id, whatever their mode.
    FileControl,
    /// Processes of its own jail.
    ProcessControl,
    /// What package managers expect.
    PackageManagement,
    /// One capability in the run's own user namespace.
    Capability(Capability),
}

/// A Linux capability that can be granted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Capability(usize);

impl Capability {
    /// Its name, without `CAP_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        CAPABILITIES[self.0].0
    }

    /// Every capability that can be granted.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..CAPABILITIES.len()).map(Self)
    }

    /// Its bit, as `/proc/PID/status` has it.
    #[must_use]
    pub fn bit(self) -> u64 {
        CAPABILITIES[self.0].1.bits()
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Grant {
    /// The capabilities that come with it.
    pub(crate) fn capabilities(&self) -> CapabilitySet {
        let files = CapabilitySet::CHOWN
            | CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::FOWNER
            | CapabilitySet::FSETID;
        match self {
            Self::NetworkClient(_) | Self::NetworkServer(_) => CapabilitySet::empty(),
            Self::FileControl => files,
            Self::ProcessControl => CapabilitySet::KILL | CapabilitySet::SYS_NICE,
            Self::PackageManagement => files | CapabilitySet::SETFCAP | CapabilitySet::SYS_CHROOT,
            Self::Capability(capability) => CAPABILITIES[capability.0].1,
        }
    }

    /// Whether it holds TCP to certain ports.
    pub(crate) fn names_ports(&self) -> bool {
        matches!(self, Self::NetworkClient(_) | Self::NetworkServer(_))
    }

    /// The name without ports.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::NetworkClient(_) => "network-client",
            Self::NetworkServer(_) => "network-server",
            Self::FileControl => "file-control",
            Self::ProcessControl => "process-control",
            Self::PackageManagement => "package-management",
            Self::Capability(capability) => capability.name(),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let (prefix, ports) = match self {
            Self::NetworkClient(ports) => ("=tcp:", ports),
            Self::NetworkServer(ports) => ("=", ports),
            _ => return Ok(()),
        };
        for (index, port) in ports.iter().enumerate() {
            write!(f, "{}{port}", if index == 0 { prefix } else { "," })?;
        }
        Ok(())
    }
}

impl From<Grant> for String {
    fn from(grant: Grant) -> Self {
        grant.to_string()
    }
}

impl TryFrom<String> for Grant {
    type Error = SandboxError;

    fn try_from(text: String) -> Result<Self, SandboxError> {
        text.parse()
    }
}

impl FromStr for Grant {
    type Err = SandboxError;

    /// Parses a name, for the two of the network with their ports.
    ///
    /// # Errors
    /// [`SandboxError::Refused`] with the reason, for an unknown name, for what is never granted, and for ports that
    /// are none.
    fn from_str(text: &str) -> Result<Self, SandboxError> {
        // What comes from outside is shown, but not at any length.
        let shown: String = text.chars().take(64).flat_map(char::escape_default).collect();
        let refused = |why: String, hint: &str| SandboxError::refused(format!("grant {shown}"), why, hint);
        let (name, argument) = match text.split_once('=') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let named = match (name, argument) {
            ("network-client", Some(list)) => ports(list.strip_prefix("tcp:")).map(Self::NetworkClient),
            ("network-server", Some(list)) => ports(Some(list)).map(Self::NetworkServer),
            ("network-client" | "network-server", None) => Err("it names no ports"),
            ("file-control", None) => Ok(Self::FileControl),
            ("process-control", None) => Ok(Self::ProcessControl),
            ("package-management", None) => Ok(Self::PackageManagement),
            _ => {
                if let Some((_, why)) = NEVER.iter().find(|(never, _)| *never == name) {
                    return Err(refused(format!("it is never granted: {why}"), "do without it"));
                }
                let index = CAPABILITIES.iter().position(|(known, _)| *known == name && argument.is_none());
                return index.map(|index| Self::Capability(Capability(index))).ok_or_else(|| {
                    refused(
                        "there is no such grant".to_owned(),
                        "docs/security.md lists those that there are",
                    )
                });
            }
        };
        named.map_err(|why| {
            refused(why.to_owned(), "write network-client=tcp:443,5432 or network-server=8080: 1 to 64 ports")
        })
    }
}

fn ports(list: Option<&str>) -> Result<Vec<u16>, &'static str> {
    let list = list.ok_or("its ports do not begin with tcp:")?;
    let mut ports = Vec::new();
    for word in list.split(',') {
        match word.parse::<u16>() {
            // `parse` takes a plus sign too.
            Ok(port) if port > 0 && word.bytes().all(|byte| byte.is_ascii_digit()) => ports.push(port),
            _ => return Err("a port is a number from 1 to 65535"),
        }
    }
    ports.sort_unstable();
    ports.dedup();
    if ports.len() > MOST_PORTS { Err("it names too many ports") } else { Ok(ports) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn every_grant_is_read_as_it_is_written() {
        let mut texts: Vec<String> = Capability::all().map(|one| one.name().to_owned()).collect();
        let others = ["network-client=tcp:443,5432", "network-server=80", "file-control", "process-control"];
        texts.extend(others.iter().chain(&["package-management"]).map(ToString::to_string));
        for text in texts {
            let grant: Grant = text.parse().unwrap();
            assert_eq!(grant.to_string(), text);
            let json = serde_json::to_string(&grant).unwrap();
            assert_eq!(serde_json::from_str::<Grant>(&json).unwrap(), grant, "{json}");
        }
        assert_eq!("network-server=9,8,9".parse::<Grant>().unwrap().to_string(), "network-server=8,9");
    }

    #[rstest]
    #[case("ALL", "every right")]
    #[case("SYS_ADMIN", "never granted")]
    #[case("SYS_MODULE", "into the kernel")]
    #[case("SYS_PTRACE", "never granted")]
    #[case("SYS_RAWIO", "never granted")]
    #[case("SYS_BOOT", "never granted")]
    #[case("MAC_ADMIN", "never granted")]
    #[case("MAC_OVERRIDE", "never granted")]
    #[case("SYS_TIME", "the clock")]
    #[case("SYS_TTY_CONFIG", "never granted")]
    #[case("", "no such grant")]
    #[case("CAP_CHOWN", "no such grant")]
    #[case("chown", "no such grant")]
    #[case("SYS_RESOURCE", "no such grant")]
    #[case("CHOWN=1", "no such grant")]
    #[case("file-control=/etc", "no such grant")]
    #[case("network-client", "no ports")]
    #[case("network-client=443", "tcp:")]
    #[case("network-client=tcp:", "from 1 to 65535")]
    #[case("network-client=tcp:0", "from 1 to 65535")]
    #[case("network-client=tcp:+1", "from 1 to 65535")]
    #[case("network-client=udp:53", "tcp:")]
    #[case("network-server=80,65536", "from 1 to 65535")]
    fn anything_else_is_refused_with_the_reason(#[case] text: &str, #[case] why: &str) {
        match text.parse::<Grant>() {
            Err(error) => assert!(error.to_string().contains(why) && error.hint().is_some(), "{error}"),
            Ok(grant) => panic!("{grant:?}"),
        }
        assert!(serde_json::from_str::<Grant>(&serde_json::to_string(text).unwrap()).is_err());
    }

    #[test]
    fn no_bundle_has_what_is_never_granted() {
        let all = Capability::all().fold(CapabilitySet::empty(), |all, one| all | CAPABILITIES[one.0].1);
        for grant in [Grant::FileControl, Grant::ProcessControl, Grant::PackageManagement] {
            assert!(all.contains(grant.capabilities()), "{grant}");
        }
        assert!(!all.intersects(
            CapabilitySet::SYS_ADMIN
                | CapabilitySet::SYS_MODULE
                | CapabilitySet::SYS_PTRACE
                | CapabilitySet::MKNOD
        ));
    }
}
