//! The typed configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::names::Millis;

use super::secret::Secret;

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder that holds everything Pantry writes; absolute.
    pub root: PathBuf,
    /// The address of the one port.
    pub listen: SocketAddr,
    /// How people and runners reach this server from outside; `http` or `https`, without a slash at its end.
    pub public_url: Option<String>,
    /// Where submissions are tested.
    pub runner: RunnerConfig,
    /// How results are signed and where they are sent.
    pub callback: CallbackConfig,
    /// The package store.
    pub store: StoreConfig,
    /// Limits towards clients.
    pub limits: LimitsConfig,
    /// The log.
    pub log: LogConfig,
    /// The registry.
    pub registry: RegistryConfig,
    /// What is kept, and for how long.
    pub storage: StorageConfig,
    /// Limits of the jails that test packages.
    pub sandbox: SandboxConfig,
    /// Names that a request's `Host` may carry beside the listening address and that of `public_url`; lowercase.
    pub allowed_hosts: Vec<String>,
    /// Who somebody without a token is. By default [`AuthMode::None`] on loopback and [`AuthMode::Token`] elsewhere.
    pub auth_mode: AuthMode,
    /// A file of further users, in the form of `htpasswd -B`; absolute.
    pub auth_htpasswd: Option<PathBuf>,
    /// How long a token of the token service counts, in seconds.
    pub auth_token_ttl_seconds: u64,
    /// TLS on the port.
    pub tls: TlsConfig,
    /// The bundled root filesystem.
    pub bundle: BundleConfig,
}

/// Where submissions are tested.
#[derive(Clone, Debug)]
pub struct RunnerConfig {
    /// Which runner.
    pub kind: RunnerKind,
    /// `owner/name` of the repository whose workflow tests submissions.
    pub github_repository: Option<String>,
    /// The workflow's file name.
    pub github_workflow: Option<String>,
    /// Base URL of the forge's API.
    pub github_api: Option<String>,
    /// The token that dispatches the workflow.
    pub github_token: Option<Secret>,
}

/// Which runner tests submissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunnerKind {
    /// In this process, in jails.
    Embedded,
    /// Dispatched to a workflow of a runner repository.
    GithubActions,
}

/// How results are signed and where they are sent.
#[derive(Clone, Debug)]
pub struct CallbackConfig {
    /// The current signing key.
    pub signing_key: Option<Secret>,
    /// The key before it, accepted while both sides change.
    pub previous_key: Option<Secret>,
    /// When the previous key stops being accepted; without it, when it is taken out of the configuration.
    pub previous_key_until: Option<Millis>,
    /// Base URL to which results are sent, when it differs from `public_url`.
    pub url: Option<String>,
}

/// The package store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The package index; without it the resolver's own configuration on this machine counts.
    pub index_url: Option<String>,
    /// Most bytes of an uploaded source.
    pub upload_cap_bytes: u64,
    /// Submissions that are worked on at a time.
    pub concurrent: usize,
}

/// Limits towards clients.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// Connections at a time.
    pub connections: usize,
    /// Connections of one address at a time; by default half of all.
    pub per_address_connections: usize,
    /// Time a client has to send a request's header, in milliseconds.
    pub header_timeout_ms: u64,
    /// Time a client has to agree on TLS, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// A connection without a request is closed after this, in milliseconds.
    pub idle_timeout_ms: u64,
    /// The window over which the rate of a body is measured, in milliseconds.
    pub stall_timeout_ms: u64,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// Most bytes of a pushed manifest.
    pub manifest_cap_bytes: u64,
    /// Submissions an hour from one address; 0 is no limit.
    pub submissions_per_hour: u32,
}

/// The log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// One JSON line an event in place of text.
    pub json: bool,
    /// What is logged, in the form `level,target=level`.
    pub filter: String,
}

/// The registry.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// The repository that names without one of its own go to.
    pub default_repository: Option<String>,
    /// Whether clients may delete.
    pub delete: bool,
}

/// What is kept, and for how long.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// Time between two collections, in seconds; 0 is never by itself.
    pub collect_every_seconds: u64,
    /// How long nobody must have wanted something before it is collected, in seconds.
    pub collect_grace_seconds: u64,
}

/// Limits of the jails that test packages.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// Memory of a test, in bytes.
    pub test_memory_bytes: u64,
    /// Processes and threads of a test at a time.
    pub test_processes: u64,
    /// Wall clock of a test, in milliseconds.
    pub test_wall_ms: u64,
}

/// The bundled root filesystem.
#[derive(Clone, Debug)]
pub struct BundleConfig {
    /// A layout directory that is used in place of the embedded one.
    pub layout: Option<PathBuf>,
}

/// Who somebody without a token or the local socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Anonymous clients may pull, push to writable repositories and read; only on loopback.
    None,
    /// Anonymous clients may only ask whether the server is alive.
    Token,
}

/// TLS on the port.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// Where the certificate comes from. By default [`TlsMode::Off`] on loopback and [`TlsMode::SelfSigned`] elsewhere.
    pub mode: TlsMode,
    /// The certificate chain in PEM form, the server's own first.
    pub certificate: Option<PathBuf>,
    /// The private key in PEM form.
    pub key: Option<PathBuf>,
    /// The authorities whose client certificates are accepted; without it none is asked for.
    pub client_ca: Option<PathBuf>,
    /// Who signs the certificate of [`TlsMode::Acme`].
    pub acme: AcmeConfig,
}

/// Certificates that an authority signs by itself (RFC 8555).
#[derive(Clone, Debug, Default)]
pub struct AcmeConfig {
    /// The `https` URL of the authority's directory.
    pub directory: Option<String>,
    /// Where the authority may write to.
    pub email: Option<String>,
    /// The names that the certificate is for, in lower case; the first is its main one.
    pub names: Vec<String>,
    /// The authorities that the directory's own certificate is signed by, in PEM form; without it the machine's.
    pub ca: Option<PathBuf>,
}

/// Where the certificate of the port comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Plain HTTP.
    Off,
    /// Signed by an authority of this server's own, made at the first start.
    SelfSigned,
    /// Files that somebody else keeps.
    Files,
    /// Asked for and renewed by ACME.
    Acme,
}

impl TlsMode {
    /// As it is written in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::SelfSigned => "self_signed",
            Self::Files => "files",
            Self::Acme => "acme",
        }
    }
}
