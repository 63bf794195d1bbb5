//! What the resolver and the wheel download reach: the hosts of the index, through the jail's proxy, and nothing else.
//!
//! The hosts are those of the index addresses that the operator named, which may be private ones, and public ones that
//! the index's own pages for the wanted packages link files to. The pages are read in a jail, which reaches the index
//! alone, because they are hostile bytes like any other; what comes out is a short list of hosts and ports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::sandbox::{
    AllowedHost, Cancel, Contact, ContactVerdict, End, HostPattern, Limits, Outcome, Outside, Policy,
    Sandbox, SandboxError, SeccompProfile, StdinBytes, Upstream,
};

use super::index;
use super::resolver::{fresh_directory, read_capped, remove};

const DEFAULT_INDEX: &str = include_str!("jailed/default_index.py");
const LINKS: &str = include_str!("jailed/links.py");
const CERTIFICATES_INSIDE: &str = "/input/certificates.pem";
/// Where the proxy is inside.
const PROXY_PORT: u16 = 3128;
/// Most hosts of a proxy.
const MOST_HOSTS: usize = 64;
const WALL_MS: u64 = 30_000;

/// The resolver's own default index, once it was asked: it is the same as long as the bundle's tools are.
static ASKED: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());

/// Whom a step of a submission asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContactRow {
    /// `resolve` or `download`.
    pub(crate) during: String,
    #[serde(flatten)]
    pub(crate) contact: Contact,
}

/// Why it isn't known what may be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReachError {
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("what the index's pages link to can't be read: {0}")]
    List(#[from] serde_json::Error),
    #[error("the resolver did not say which index it uses; set store.index_url ({0})")]
    Default(String),
    #[error("it was stopped")]
    Cancelled,
}

/// The index, and the hosts that may be reached for it.
#[derive(Debug)]
pub(crate) struct Reach {
    environment: BTreeMap<String, String>,
    certificates: Option<PathBuf>,
    allow: Vec<AllowedHost>,
    outside: Outside,
}

#[derive(Serialize)]
struct Asked<'a> {
    indexes: Vec<String>,
    names: Vec<&'a str>,
}

impl Reach {
    /// From the configured index and the environment: the indexes' own hosts.
    pub(crate) fn new(
        configured: Option<&str>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, SandboxError> {
        let environment = index::environment(configured, variable);
        let mut reach = Self {
            certificates: index::certificates(variable),
            allow: Vec::new(),
            outside: Outside { upstream: Upstream::from_variables(variable)?, ..Outside::default() },
            environment,
        };
        for address in index::addresses(&reach.environment) {
            // The operator named it, wherever it is.
            reach.lead_to(place_of(&address), true);
        }
        Ok(reach)
    }

    /// Adds the public hosts of these addresses.
    pub(crate) fn lead_to_addresses<'a>(&mut self, addresses: impl IntoIterator<Item = &'a str>) {
        for address in addresses {
            self.lead_to(place_of(address), false);
        }
    }

    fn lead_to(&mut self, place: Option<(HostPattern, u16)>, private: bool) {
        let Some((host, port)) = place else { return };
        let known = self.allow.iter().any(|allowed| allowed.host == host && allowed.port == port);
        // Whoever has a public address has a name for it; others would refuse the whole run.
        let reachable = private || host.address().is_none();
        if !known && reachable && self.allow.len() < MOST_HOSTS {
            self.allow.push(AllowedHost { host, port, private });
        }
    }

    /// Gives a policy the proxy, the index's settings, and the certificates. `input` is the directory that the policy
    /// mounts at `/input`; the certificates are copied into it.
    pub(crate) fn connect(&self, mut policy: Policy, input: &Path) -> std::io::Result<Policy> {
        policy = policy.proxy(PROXY_PORT, self.allow.clone());
        for (name, value) in &self.environment {
            policy = policy.env(name, value);
        }
        let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            policy = policy.env(name, &proxy);
        }
        for name in ["NO_PROXY", "no_proxy"] {
            policy = policy.env(name, "");
        }
        if let Some(file) = &self.certificates {
            fs_err::write(input.join("certificates.pem"), fs_err::read(file)?)?;
            policy = policy.env("SSL_CERT_FILE", CERTIFICATES_INSIDE);
        }
        Ok(policy)
    }

    /// Runs a policy that was connected, and adds to `heard` whom it asked for.
    pub(crate) fn run(
        &self,
        sandbox: &Sandbox,
        policy: &Policy,
        script: &str,
        cancel: &Cancel,
        (during, heard): (&str, &mut Vec<ContactRow>),
    ) -> Result<Outcome, SandboxError> {
        let stdin = StdinBytes::Bytes(script.as_bytes().to_vec());
        let mut outcome = sandbox.run_with(policy, stdin, cancel, &self.outside)?;
        let contacts = std::mem::take(&mut outcome.network);
        heard.extend(contacts.into_iter().map(|contact| ContactRow { during: during.to_owned(), contact }));
        Ok(outcome)
    }

    /// Finds out what else is to be reached for these packages: the resolver's own default index where none is named,
    /// and the hosts that the indexes' pages link to. Blocking.
    pub(crate) fn explore(
        &mut self,
        sandbox: &Sandbox,
        tools_root: &[PathBuf],
        packages: &[String],
        work: &Path,
        cancel: &Cancel,
    ) -> Result<(), ReachError> {
        if !index::names_default(&self.environment) {
            let address = self.default_index(sandbox, tools_root, work, cancel)?;
            self.lead_to(place_of(&address), false);
            self.environment.insert("UV_DEFAULT_INDEX".to_owned(), address);
        }
        let (input, output) = (work.join("links-input"), work.join("links-output"));
        fresh_directory(&input)?;
        remove(&output)?;
        let names = packages.iter().filter_map(|requirement| name_of(requirement)).collect();
        let asked = Asked { indexes: index::addresses(&self.environment), names };
        fs_err::write(input.join("asked.json"), serde_json::to_vec(&asked)?)?;
        let policy = script_policy(tools_root, &["/input/asked.json", "/output"]);
        let policy = self.connect(policy, &input)?.input(&input, "/input").output("/output", &output);
        // A page that names further hosts as redirections is asked for at those it may be asked at: none.
        let outcome = self.run(sandbox, &policy, LINKS, cancel, ("links", &mut Vec::new()))?;
        match outcome.end {
            End::Cancelled => return Err(ReachError::Cancelled),
            End::Exited(0) => {}
            // The resolver meets the same index, and says in its words what is wrong with it.
            _ => return Ok(()),
        }
        let list = read_capped(&output.join("hosts.json"), 64 << 10)?;
        for (host, port) in serde_json::from_slice::<Vec<(String, u16)>>(&list)? {
            let host = HostPattern::parse(&host).ok().filter(|_| port != 0 && !host.starts_with('*'));
            self.lead_to(host.zip(Some(port)), false);
        }
        remove(&input)?;
        Ok(remove(&output)?)
    }

    fn default_index(
        &self,
        sandbox: &Sandbox,
        tools_root: &[PathBuf],
        work: &Path,
        cancel: &Cancel,
    ) -> Result<String, ReachError> {
        let key: PathBuf = tools_root.iter().collect();
        if let Some(known) = ASKED.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(known.clone());
        }
        let (input, output) = (work.join("index-input"), work.join("index-output"));
        fresh_directory(&input)?;
        remove(&output)?;
        let nothing = Self {
            environment: BTreeMap::new(),
            certificates: self.certificates.clone(),
            allow: Vec::new(),
            outside: Outside::default(),
        };
        let policy = script_policy(tools_root, &["/output"]);
        let policy = nothing.connect(policy, &input)?.input(&input, "/input").output("/output", &output);
        let mut heard = Vec::new();
        let outcome = nothing.run(sandbox, &policy, DEFAULT_INDEX, cancel, ("index", &mut heard))?;
        match outcome.end {
            End::Exited(0) => {}
            End::Cancelled => return Err(ReachError::Cancelled),
            _ => return Err(ReachError::Default(super::finding::tail(&outcome.stderr.text(), 300))),
        }
        let address = String::from_utf8_lossy(&read_capped(&output.join("index.txt"), 2_048)?).into_owned();
        // What it says, and where it went.
        let went = |place: &(HostPattern, u16)| {
            heard.iter().any(|row| {
                (row.contact.host.as_str(), row.contact.port) == (place.0.to_string().as_str(), place.1)
            })
        };
        if !place_of(&address).is_some_and(|place| went(&place)) {
            return Err(ReachError::Default("its words and its deeds differ".to_owned()));
        }
        ASKED.lock().unwrap_or_else(PoisonError::into_inner).insert(key, address.clone());
        remove(&input)?;
        remove(&output)?;
        Ok(address)
    }
}

/// The refused hosts in a sentence, if there are any.
pub(crate) fn told(heard: &[ContactRow]) -> Option<String> {
    let refused: Vec<String> = heard
        .iter()
        .filter(|row| row.contact.verdict == ContactVerdict::Refused)
        .map(|row| format!("{}:{} ({})", row.contact.host, row.contact.port, row.contact.why))
        .take(5)
        .collect();
    (!refused.is_empty()).then(|| format!("it tried to reach what it may not: {}", refused.join(", ")))
}

fn script_policy(tools_root: &[PathBuf], arguments: &[&str]) -> Policy {
    let argv = ["/usr/bin/python3", "-I", "-"].iter().chain(arguments).map(|text| (*text).to_owned());
    let mut policy = Policy::new(tools_root.to_vec(), argv.collect()).profile(SeccompProfile::Build);
    policy = policy.env("UV_CACHE_DIR", "/tmp/cache");
    policy.limits = Limits { wall_ms: WALL_MS, ..Limits::build() };
    policy
}

/// The host and port of a web address.
fn place_of(address: &str) -> Option<(HostPattern, u16)> {
    let address: http::Uri = address.parse().ok()?;
    let port = match (address.port_u16(), address.scheme_str()) {
        (Some(port), _) => port,
        (None, Some("https")) => 443,
        (None, Some("http")) => 80,
        _ => return None,
    };
    let host = HostPattern::parse(address.host()?).ok()?;
    (port != 0).then_some((host, port))
}

/// The package that a requirement is about.
fn name_of(requirement: &str) -> Option<&str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let text = requirement.trim();
    let end = text.find(|c| !fits(c)).unwrap_or(text.len());
    (end > 0 && end <= 128).then(|| &text[..end])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn reach(pairs: &[(&str, &str)]) -> Reach {
        let map: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Reach::new(None, &move |name| map.get(name).cloned()).unwrap()
    }

    fn hosts(reach: &Reach) -> Vec<(String, u16, bool)> {
        reach.allow.iter().map(|one| (one.host.to_string(), one.port, one.private)).collect()
    }

    #[test]
    fn the_indexes_own_hosts_may_be_private_and_others_not() {
        let mut reach = reach(&[
            ("UV_DEFAULT_INDEX", "https://name:word@Index.example/simple"),
            ("UV_INDEX", "extra=http://10.0.0.5:3141/root file:///srv/index"),
            ("UV_EXTRA_INDEX_URL", "https://index.example:443/other"),
        ]);
        let own = [("index.example".to_owned(), 443, true), ("10.0.0.5".to_owned(), 3141, true)];
        assert_eq!(hosts(&reach), own);
        reach.lead_to_addresses([
            "https://files.example/a.whl",
            "http://10.0.0.5:3141/b",
            "ftp://x.example/",
        ]);
        assert_eq!(hosts(&reach)[2..], [("files.example".to_owned(), 443, false)]);
        reach.lead_to_addresses([
            "http://10.0.0.1/a",
            "http://[::1]/a",
            "http://127.1/a",
            "http:///a",
            "http://a:0/",
        ]);
        assert_eq!(reach.allow.len(), 3, "{:?}", reach.allow);
    }

    #[test]
    fn inside_there_is_our_proxy_alone() {
        let directory = tempfile::tempdir().unwrap();
        let reach = reach(&[
            ("UV_DEFAULT_INDEX", "https://index.example/simple"),
            ("HTTPS_PROXY", "http://name:word@proxy.example:8080"),
            ("NO_PROXY", "index.example"),
            ("SSL_CERT_FILE", "/nowhere"),
        ]);
        let policy = Policy::new(vec!["/root".into()], vec!["/bin/true".to_owned()]);
        let policy = reach.connect(policy, directory.path()).unwrap();
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            assert_eq!(policy.env[name], "http://127.0.0.1:3128");
        }
        assert_eq!((policy.env["NO_PROXY"].as_str(), policy.env["no_proxy"].as_str()), ("", ""));
        assert!(
            !serde_json::to_string(&policy).unwrap().contains("word"),
            "no credentials of proxies inside"
        );
        assert_eq!(policy.inputs, [], "neither resolv.conf nor hosts");
    }

    #[test]
    fn names_are_taken_from_requirements() {
        for (requirement, name) in [
            ("a.b>=1", Some("a.b")),
            (" c[x]==2; python_version > '3'", Some("c")),
            ("[x]", None),
            ("", None),
        ] {
            assert_eq!(name_of(requirement), name);
        }
    }

    #[test]
    fn what_was_refused_is_told() {
        let row = |verdict| ContactRow {
            during: "resolve".to_owned(),
            contact: Contact {
                host: "x.example".to_owned(),
                port: 443,
                verdict,
                why: "no".to_owned(),
                times: 1,
                sent_bytes: 0,
                received_bytes: 0,
            },
        };
        assert_eq!(told(&[row(ContactVerdict::Reached), row(ContactVerdict::Failed)]), None);
        let said = told(&[row(ContactVerdict::Refused)]).unwrap();
        assert!(said.contains("x.example:443 (no)"), "{said}");
        let json = serde_json::to_value(row(ContactVerdict::Refused)).unwrap();
        assert_eq!((&json["during"], &json["host"]), (&"resolve".into(), &"x.example".into()));
        assert_eq!(serde_json::from_value::<ContactRow>(json).unwrap(), row(ContactVerdict::Refused));
    }
}
