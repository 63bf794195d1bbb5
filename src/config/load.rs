//! From flags, environment, file and defaults to a [`Config`].

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::names::{Millis, RepoName};

use super::error::ConfigError;
use super::file;
use super::model::{
    AcmeConfig, AuthMode, BundleConfig, CallbackConfig, Config, LimitsConfig, LogConfig, RegistryConfig,
    RunnerConfig, RunnerKind, SandboxConfig, StorageConfig, StoreConfig, TlsConfig, TlsMode,
};
use super::secret::Secret;
use super::settings::{SETTINGS, Shape, setting};
use super::sources;
use super::values::{Given, Text, Values};

const GIB: u64 = 1 << 30;
/// No authority puts more names into one certificate.
const ACME_NAMES: usize = 100;

/// What flags gave; everything optional.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--root`.
    pub root: Option<PathBuf>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<SocketAddr>,
}

/// A configuration and how it came to be.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Key, value as shown (secrets hidden), and source: `flag`, `environment`, `credential`, `file`, `default`.
    pub provenance: Vec<(String, String, &'static str)>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Sentences for the log: what looks wrong and stops nothing.
    pub warnings: Vec<String>,
}

/// Makes the configuration from flags, environment, file and defaults, the first that gives a value winning.
///
/// The file is `--config`, else `PANTRY_CONFIG`, else `pantry.yaml` in the root, which may be absent. `env` is
/// passed in.
///
/// # Errors
/// When the file can't be read or has an unknown key, or a value isn't what its setting takes.
pub fn load(flags: &Flags, env: &BTreeMap<String, String>) -> Result<Loaded, ConfigError> {
    let mut values = Values::default();
    offer_flags(flags, &mut values);
    sources::environment(env, &mut values)?;
    sources::credentials(env, &mut values)?;
    let mut warnings = sources::unknown_variables(env);
    let file = offer_file(flags, env, &mut values, &mut warnings)?;
    for known in SETTINGS {
        if let Some(default) = known.default {
            let text = Text::One(default.to_owned());
            values.offer(known, Given { text, source: "default", origin: "default".to_owned() });
        }
    }
    let config = build(&values, env)?;
    let computed = BTreeMap::from([
        ("root", config.root.display().to_string()),
        ("auth.mode", if config.auth_mode == AuthMode::None { "none" } else { "token" }.to_owned()),
        ("tls.mode", config.tls.mode.as_str().to_owned()),
        ("limits.per_address_connections", config.limits.per_address_connections.to_string()),
        ("log.json", config.log.json.to_string()),
    ]);
    Ok(Loaded { provenance: values.shown(&computed), config, file, warnings })
}

/// The default root: `/var/lib/pantry` as root, else below the user's state directory.
#[must_use]
pub fn default_root(env: &BTreeMap<String, String>) -> PathBuf {
    let system = || PathBuf::from("/var/lib/pantry");
    if nix::unistd::geteuid().is_root() {
        return system();
    }
    // The XDG specification has relative paths ignored.
    let absolute =
        |name: &str| sources::variable(env, name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map_or_else(system, |state| state.join("pantry"))
}

fn offer_flags(flags: &Flags, values: &mut Values) {
    let given = [
        ("root", "--root", flags.root.as_ref().map(|path| path.display().to_string())),
        ("listen", "--listen", flags.listen.map(|address| address.to_string())),
    ];
    for (path, origin, text) in given {
        if let (Some(known), Some(text)) = (setting(path), text) {
            let given = Given { text: Text::One(text), source: "flag", origin: origin.to_owned() };
            values.offer(known, given);
        }
    }
}

fn offer_file(
    flags: &Flags,
    env: &BTreeMap<String, String>,
    values: &mut Values,
    warnings: &mut Vec<String>,
) -> Result<Option<PathBuf>, ConfigError> {
    let named = flags.config.clone().or_else(|| sources::variable(env, "PANTRY_CONFIG").map(PathBuf::from));
    let (path, by_name) = match named {
        Some(path) => (path, true),
        None => (root(values, env)?.join("pantry.yaml"), false),
    };
    let found = match file::read(&path) {
        Ok(found) => found,
        Err(ConfigError::Unreadable { source, .. })
            if !by_name && source.kind() == std::io::ErrorKind::NotFound =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut holds_secret = false;
    for value in found {
        if value.setting.path == "root" && !by_name {
            return Err(ConfigError::RootInRootFile { path });
        }
        holds_secret |= value.setting.shape == Shape::Secret;
        let origin = format!("{}:{}", path.display(), value.line);
        values.offer(value.setting, Given { text: value.text, source: "file", origin });
    }
    if holds_secret && others_may_read(&path) {
        warnings.push(format!(
            "{} holds a secret and others may read it; run `chmod 0600` on it",
            path.display()
        ));
    }
    Ok(Some(path))
}

fn others_may_read(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o044 != 0)
}

fn root(values: &Values, env: &BTreeMap<String, String>) -> Result<PathBuf, ConfigError> {
    Ok(values.path("root")?.unwrap_or_else(|| default_root(env)))
}

fn build(values: &Values, env: &BTreeMap<String, String>) -> Result<Config, ConfigError> {
    let listen: SocketAddr = values.parsed("listen", "an address with a port, such as 127.0.0.1:7721")?;
    Ok(Config {
        root: root(values, env)?,
        listen,
        public_url: url(values, "public_url")?,
        runner: runner(values)?,
        callback: CallbackConfig {
            signing_key: secret(values, "callback.signing_key"),
            previous_key: secret(values, "callback.signing_key_previous"),
            previous_key_until: values.with(
                "callback.previous_key_until",
                "an instant such as 2026-01-31T12:00:00Z",
                instant,
            )?,
            url: url(values, "callback.url")?,
        },
        store: StoreConfig {
            index_url: url(values, "store.index_url")?,
            upload_cap_bytes: values.number("store.upload_cap_bytes", 1, 4 * GIB)?,
            concurrent: count(values, "store.concurrent", 64)?,
        },
        limits: limits(values)?,
        log: log(values)?,
        registry: RegistryConfig {
            default_repository: values.with("registry.default_repository", "a repository name", |text| {
                RepoName::parse(text).ok().map(|name| name.to_string())
            })?,
            delete: values.with("registry.delete", "true or false", boolean)?.unwrap_or(true),
        },
        storage: StorageConfig {
            collect_every_seconds: values.number("storage.collect_every_seconds", 0, 365 * 86_400)?,
            collect_grace_seconds: values.number("storage.collect_grace_seconds", 0, 365 * 86_400)?,
        },
        sandbox: SandboxConfig {
            test_memory_bytes: values.number("sandbox.test_memory_bytes", 16 << 20, 1 << 40)?,
            test_processes: values.number("sandbox.test_processes", 1, 65_536)?,
            test_wall_ms: values.number("sandbox.test_wall_ms", 1000, 86_400_000)?,
        },
        allowed_hosts: hosts(values)?,
        auth_mode: auth_mode(values, listen)?,
        auth_htpasswd: values.path("auth.htpasswd")?,
        auth_token_ttl_seconds: values.number("auth.token_ttl_seconds", 60, 86_400)?,
        tls: tls(values, listen)?,
        bundle: BundleConfig { layout: values.path("bundle.layout")? },
    })
}

fn runner(values: &Values) -> Result<RunnerConfig, ConfigError> {
    let kind = match values.text("runner.kind") {
        Some("embedded") | None => RunnerKind::Embedded,
        Some("github_actions") => RunnerKind::GithubActions,
        Some(other) => {
            let given = other.chars().take(80).collect();
            return Err(ConfigError::UnknownRunner { origin: values.origin("runner.kind"), given });
        }
    };
    let plain = |text: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        !text.is_empty() && text.len() <= 100 && text.bytes().all(allowed) && !text.starts_with('.')
    };
    Ok(RunnerConfig {
        kind,
        github_repository: values.with("runner.github_repository", "<owner>/<name>", |text| {
            let (owner, name) = text.split_once('/')?;
            (plain(owner) && plain(name)).then(|| text.to_owned())
        })?,
        github_workflow: values.with("runner.github_workflow", "the file name of a workflow", |text| {
            plain(text).then(|| text.to_owned())
        })?,
        github_api: url(values, "runner.github_api")?,
        github_token: secret(values, "runner.github_token"),
    })
}

fn limits(values: &Values) -> Result<LimitsConfig, ConfigError> {
    let connections = count(values, "limits.connections", 65_536)?;
    let per_address = "limits.per_address_connections";
    let per_address_connections = match values.text(per_address) {
        Some(_) => count(values, per_address, 65_536)?,
        None => (connections / 2).max(1),
    };
    let time = |path: &'static str| values.number(path, 100, 3_600_000);
    Ok(LimitsConfig {
        connections,
        per_address_connections,
        header_timeout_ms: time("limits.header_timeout_ms")?,
        handshake_timeout_ms: time("limits.handshake_timeout_ms")?,
        idle_timeout_ms: time("limits.idle_timeout_ms")?,
        stall_timeout_ms: time("limits.stall_timeout_ms")?,
        streams: values
            .with("limits.streams", "a whole number from 1 to 1024", |text| {
                text.parse().ok().filter(|streams| (1..=1024).contains(streams))
            })?
            .unwrap_or(64),
        manifest_cap_bytes: values.number("limits.manifest_cap_bytes", 1024, 256 << 20)?,
        submissions_per_hour: values
            .parsed("limits.submissions_per_hour", "a whole number; 0 is no limit")?,
    })
}

fn tls(values: &Values, listen: SocketAddr) -> Result<TlsConfig, ConfigError> {
    let by_address = if is_loopback(listen.ip()) { TlsMode::Off } else { TlsMode::SelfSigned };
    let modes = [TlsMode::Off, TlsMode::SelfSigned, TlsMode::Files, TlsMode::Acme];
    let given = values.with("tls.mode", "off, self_signed, files or acme", |text| {
        modes.into_iter().find(|mode| mode.as_str() == text)
    })?;
    Ok(TlsConfig {
        mode: given.unwrap_or(by_address),
        certificate: values.path("tls.certificate")?,
        key: values.path("tls.key")?,
        client_ca: values.path("tls.client_ca")?,
        acme: acme(values)?,
    })
}

fn acme(values: &Values) -> Result<AcmeConfig, ConfigError> {
    // As it was written: a slash at its end may belong to it.
    let given = values.text("tls.acme_directory").map(str::to_owned);
    let directory = url(values, "tls.acme_directory")?.and(given);
    if directory.as_ref().is_some_and(|url| !url.starts_with("https://")) {
        return Err(values.refuse("tls.acme_directory", "an https URL, as RFC 8555 asks for"));
    }
    let email = values.with("tls.acme_email", "an address such as name@example.org", |text| {
        let (name, host) = text.split_once('@')?;
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b",?&%".contains(&byte));
        (plain && !name.is_empty() && host_name(host)).then(|| text.to_owned())
    })?;
    let mut names: Vec<String> = Vec::new();
    for name in values.many("tls.acme_names") {
        let name = name.to_ascii_lowercase();
        if !host_name(&name) || names.len() == ACME_NAMES {
            let expected = format!("{ACME_NAMES} DNS names at most, without a port, an address or a `*`");
            return Err(values.refuse("tls.acme_names", expected));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(AcmeConfig { directory, email, names, ca: values.path("tls.acme_ca")? })
}

/// Whether it is a DNS name with a letter in it, and so no address.
fn host_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_word =
        text.rsplit('.').next().is_some_and(|last| last.bytes().any(|b| b.is_ascii_alphabetic()));
    text.len() <= 253 && text.split('.').all(label) && last_is_word
}

fn log(values: &Values) -> Result<LogConfig, ConfigError> {
    // People read a terminal, programs the rest.
    let json = values.with("log.json", "true or false", boolean)?;
    let filter =
        values.with("log.filter", "a filter such as info or info,pantry::registry=debug", |text| {
            tracing_subscriber::EnvFilter::try_new(text).ok().map(|_| text.to_owned())
        })?;
    Ok(LogConfig {
        json: json.unwrap_or_else(|| !std::io::stderr().is_terminal()),
        filter: filter.unwrap_or_else(|| "info".to_owned()),
    })
}

fn auth_mode(values: &Values, listen: SocketAddr) -> Result<AuthMode, ConfigError> {
    let by_address = if is_loopback(listen.ip()) { AuthMode::None } else { AuthMode::Token };
    let given = values.with("auth.mode", "none or token", |text| match text {
        "none" => Some(AuthMode::None),
        "token" => Some(AuthMode::Token),
        _ => None,
    })?;
    Ok(given.unwrap_or(by_address))
}

/// Whether only this machine reaches the address, also where it is written as an IPv6 one.
pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn secret(values: &Values, path: &'static str) -> Option<Secret> {
    values.text(path).filter(|text| !text.is_empty()).map(|text| Secret::new(text.to_owned()))
}

fn count(values: &Values, path: &'static str, most: u64) -> Result<usize, ConfigError> {
    let number = values.number(path, 1, most)?;
    usize::try_from(number).map_err(|_| values.refuse(path, "a smaller number"))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn instant(text: &str) -> Option<Millis> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(Millis)
}

fn url(values: &Values, path: &'static str) -> Result<Option<String>, ConfigError> {
    values.with(path, "an http or https URL without user, query or fragment", |text| {
        let url: http::Uri = text.parse().ok()?;
        let plain = matches!(url.scheme_str(), Some("http" | "https")) && url.query().is_none();
        let authority = url.authority()?;
        let named = !authority.host().is_empty() && !authority.as_str().contains('@') && !text.contains('#');
        (plain && named).then(|| text.trim_end_matches('/').to_owned())
    })
}

fn hosts(values: &Values) -> Result<Vec<String>, ConfigError> {
    let path = "allowed_hosts";
    let mut hosts = values
        .many(path)
        .into_iter()
        .map(|host| {
            let whole = host.parse::<http::uri::Authority>().is_ok_and(|name| !name.as_str().contains('@'));
            if whole && host.len() <= 255 {
                Ok(host.to_ascii_lowercase())
            } else {
                Err(values.refuse(path, "a list of host names, with a port or without"))
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    // Who has a certificate for a name is called by it.
    hosts.extend(values.many("tls.acme_names").iter().map(|name| name.to_ascii_lowercase()));
    Ok(hosts)
}

#[cfg(test)]
mod tests;
