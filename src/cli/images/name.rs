//! The name of an image in a registry, which always says which registry.

use std::net::IpAddr;

use oci_distribution::Reference;

use crate::cli::failure::Failure;
use crate::cli::output::safe;
use crate::names::{self, RepoName};

/// `HOST[:PORT]/NAME[:TAG][@DIGEST]`
#[derive(Clone, Debug)]
pub(in crate::cli) struct Name {
    /// `HOST[:PORT]`
    pub(in crate::cli) registry: String,
    pub(in crate::cli) repository: String,
    /// A tag, or a digest where one is there.
    pub(in crate::cli) reference: String,
    pub(in crate::cli) tag: Option<String>,
}

impl Name {
    /// Parses a name as people write it; `latest` is the tag where none is there.
    pub(in crate::cli) fn parse(text: &str) -> Result<Self, Failure> {
        let bad = |why: &str| {
            Failure::usage("name_not_valid", format!("{:?} is no name of an image: {why}", safe(text)))
                .with_hint(Some(
                    "write HOST[:PORT]/NAME[:TAG], such as registry.example:7721/local/app:1".to_owned(),
                ))
        };
        // Without a host the crate would mean a public registry, to which nobody asked to send anything.
        let host = text.split_once('/').map(|(host, _)| host).ok_or_else(|| bad("it names no registry"))?;
        if !(host.contains(['.', ':']) || host == "localhost") {
            return Err(bad("its first part is no registry"));
        }
        let parsed = Reference::try_from(text).map_err(|error| bad(&error.to_string()))?;
        if parsed.registry() != host {
            return Err(bad("its registry is not clear"));
        }
        let repository = RepoName::parse(parsed.repository()).map_err(|error| bad(&error.to_string()))?;
        let reference = match (parsed.digest(), parsed.tag()) {
            (Some(digest), _) => digest,
            (None, tag) => tag.unwrap_or("latest"),
        };
        let reference = names::Reference::parse(reference).map_err(|error| bad(&error.to_string()))?;
        Ok(Self {
            registry: host.to_owned(),
            repository: repository.to_string(),
            tag: match &reference {
                names::Reference::Tag(tag) => Some(tag.to_string()),
                names::Reference::Digest(_) => parsed.tag().map(str::to_owned),
            },
            reference: reference.to_string(),
        })
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let separator = if self.reference.contains(':') { '@' } else { ':' };
        write!(f, "{}/{}{separator}{}", self.registry, self.repository, self.reference)
    }
}

/// Is a registry on this machine itself, where plain HTTP is the default?
pub(in crate::cli) fn plain_by_default(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => registry,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_registry() {
        let name = Name::parse("127.0.0.1:7721/local/team/app:1").unwrap();
        assert_eq!((name.registry.as_str(), name.repository.as_str()), ("127.0.0.1:7721", "local/team/app"));
        assert_eq!((name.reference.as_str(), name.tag.as_deref()), ("1", Some("1")));
        assert_eq!(Name::parse("localhost/local/app").unwrap().reference, "latest");
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = Name::parse(&format!("r.example/x/y:1@{digest}")).unwrap();
        assert_eq!((pinned.reference.as_str(), pinned.tag.as_deref()), (digest.as_str(), Some("1")));
        for bad in [
            "",
            "app",
            "local/app:1",
            "library/app",
            "r.example/",
            "r.example/UP:1",
            "r.example/a:b:c",
            "r.example/a@sha256:x",
        ] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plain_http_is_the_default_on_this_machine_alone() {
        for here in ["127.0.0.1:7721", "127.1.2.3", "localhost", "localhost:80", "[::1]:7721", "[::1]"] {
            assert!(plain_by_default(here), "{here}");
        }
        for there in ["10.0.0.1:7721", "registry.example", "localhost.example:80", "127.0.0.1.example"] {
            assert!(!plain_by_default(there), "{there}");
        }
    }
}
