//! The network modes `socket`, in which a run reaches what it reaches through servers of ours, and `service`, in which the
//! caller plugs the run's network in (`plug`).
//!
//! Of `socket`: inside there is a network namespace with loopback alone. The init makes a listener on 127.0.0.1 for each server of
//! the policy and passes it out before the program starts; threads of the caller's process accept there and serve: a
//! service of the caller, or a proxy that lets through the hosts the policy names. So no packet leaves the namespace,
//! and nothing inside needs a right for it.
//!
//! Invariants:
//! - A connection goes to an address that was checked, never to a name that is looked up once more.
//! - Every refusal says why, to the program and in [`Outcome::network`](super::Outcome::network).
//! - The threads end with the run. A look-up in the C library can't be interrupted: it may outlive its run by the
//!   time that the resolver's configuration allows, holding nothing of it; there are [`lookup::MOST`] of them at most.

mod address;
mod contact;
mod host;
mod inside;
mod io;
mod lookup;
mod plug;
mod proxy;
mod relay;
mod request;
mod serve;
mod upstream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::contact::{Contact, ContactVerdict};
pub use self::host::HostPattern;
pub(crate) use self::inside::{listen, loopback_up};
pub use self::plug::Plug;
pub(crate) use self::serve::Servers;
pub use self::upstream::Upstream;
use super::error::SandboxError;
use super::policy::{Network, Policy};

/// Most servers of a run.
const MOST_SERVERS: usize = 8;
/// Most hosts that one proxy leads to.
const MOST_HOSTS: usize = 64;

/// Something that listens on loopback inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The port on 127.0.0.1, 1 to 65535; no two servers of a run have the same.
    pub port: u16,
    /// What is behind it.
    pub serve: Serve,
}

/// What is behind a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Serve {
    /// A proxy for `CONNECT` and for plain HTTP.
    Proxy {
        /// Where it leads to, at most 64; nowhere else.
        allow: Vec<AllowedHost>,
    },
    /// A service of the caller, which says with the run where it is.
    Service {
        /// Its name in [`Outside::services`].
        name: String,
    },
}

/// A host that a proxy leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedHost {
    /// Its name or address.
    pub host: HostPattern,
    /// Its port, 1 to 65535.
    pub port: u16,
    /// Whether it may be on a private network or on this machine's loopback. Only for hosts that the operator named.
    #[serde(default)]
    pub private: bool,
}

/// What the servers of a run lead to beside what its policy says: addresses and credentials of the caller, which are
/// no part of a policy and never get inside.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// The services by name.
    pub services: BTreeMap<String, ServiceAddress>,
    /// The proxies through which the caller itself reaches other hosts. Where one is used, names are looked up there,
    /// and which addresses they may lead to is its decision; the list of allowed hosts holds all the same.
    pub upstream: Upstream,
    /// What plugs the network of a run with `service` in.
    pub plug: Option<Plug>,
}

/// Where a service of the caller listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAddress {
    /// Over TCP.
    Tcp(SocketAddr),
    /// At a path.
    Unix(PathBuf),
}

/// Refuses servers that can't be.
pub(crate) fn check(policy: &Policy, outside: &Outside) -> Result<(), SandboxError> {
    if policy.network == Network::Service && outside.plug.is_none() {
        return Err(SandboxError::refused(
            "network service",
            "nobody plugs it in",
            "give a plug with the run, or choose another network",
        ));
    }
    let servers = policy.servers();
    if servers.len() > MOST_SERVERS {
        return Err(SandboxError::refused(
            "network.servers",
            format!("{} are asked for, and at most {MOST_SERVERS} fit", servers.len()),
            "let one proxy lead to several hosts",
        ));
    }
    for (at, server) in servers.iter().enumerate() {
        let field = format!("network.servers[{at}]");
        if server.port == 0 {
            let hint = "choose a port from 1 to 65535";
            return Err(SandboxError::refused(format!("{field}.port"), "0 is no port", hint));
        }
        if servers[..at].iter().any(|other| other.port == server.port) {
            return Err(SandboxError::refused(
                format!("{field}.port"),
                format!("{} is another server's", server.port),
                "give each server a port of its own",
            ));
        }
        match &server.serve {
            Serve::Proxy { allow } => check_hosts(&field, allow)?,
            Serve::Service { name } if !outside.services.contains_key(name) => {
                return Err(SandboxError::refused(
                    format!("{field}.serve.name {name:?}"),
                    "there is no such service",
                    "name one of those that are given with the run",
                ));
            }
            Serve::Service { .. } => {}
        }
    }
    Ok(())
}

fn check_hosts(server: &str, allow: &[AllowedHost]) -> Result<(), SandboxError> {
    if allow.len() > MOST_HOSTS {
        return Err(SandboxError::refused(
            format!("{server}.serve.allow"),
            format!("it has {} hosts, and at most {MOST_HOSTS} fit", allow.len()),
            "name fewer, or a domain by `*.`",
        ));
    }
    for (at, allowed) in allow.iter().enumerate() {
        let field = format!("{server}.serve.allow[{at}]");
        if allowed.port == 0 {
            let hint = "choose a port from 1 to 65535";
            return Err(SandboxError::refused(format!("{field}.port"), "0 is no port", hint));
        }
        if allowed.private && allowed.host.is_domain() {
            return Err(SandboxError::refused(
                format!("{field}.private"),
                format!("`{}` is many hosts, whose addresses nobody has named", allowed.host),
                "name each private host by itself",
            ));
        }
        if let Some(Err(why)) = allowed.host.address().map(|ip| address::check(ip, allowed.private)) {
            return Err(SandboxError::refused(
                format!("{field}.host {}", allowed.host),
                format!("it is {why}"),
                if allowed.private { "remove it" } else { "if it is the operator's own, say `private`" },
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
