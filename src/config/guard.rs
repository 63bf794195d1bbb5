//! What must not be started.

use super::error::ConfigError;
use super::load::is_loopback;
use super::model::{AuthMode, Config, RunnerKind, TlsMode};
use super::secret::MIN_KEY_BYTES;

const CURRENT_KEY: &str = "PANTRY_CALLBACK_SIGNING_KEY";
const PREVIOUS_KEY: &str = "PANTRY_CALLBACK_SIGNING_KEY_PREVIOUS";

/// Refuses to start with a configuration that would be unsafe, or that would lose submissions.
///
/// # Errors
/// When anonymous access would be open beyond loopback, a signing key is too short, or the dispatched runner lacks
/// what it needs. A complete configuration of the dispatched runner is refused too, since this version can't
/// dispatch: a submission must never wait for a runner that nobody starts.
pub fn guard(config: &Config) -> Result<(), ConfigError> {
    if config.auth_mode == AuthMode::None && !is_loopback(config.listen.ip()) {
        return Err(ConfigError::OpenToAll { listen: config.listen });
    }
    guard_tls(config)?;
    let callback = &config.callback;
    for (variable, key) in [(CURRENT_KEY, &callback.signing_key), (PREVIOUS_KEY, &callback.previous_key)] {
        let found = key.as_ref().map(|key| key.expose().len());
        if let Some(found) = found.filter(|found| *found < MIN_KEY_BYTES) {
            return Err(ConfigError::ShortKey { variable, found });
        }
    }
    if callback.previous_key.is_some() && callback.signing_key.is_none() {
        return Err(ConfigError::PreviousKeyAlone);
    }
    match config.runner.kind {
        RunnerKind::Embedded => Ok(()),
        RunnerKind::GithubActions => guard_dispatched(config),
    }
}

/// What a mode needs must be there, and what another mode would use must not: who names a certificate expects it to be
/// shown.
fn guard_tls(config: &Config) -> Result<(), ConfigError> {
    let tls = &config.tls;
    let mode = tls.mode;
    let acme = &tls.acme;
    let settings = [
        (TlsMode::Files, "tls.certificate", tls.certificate.is_some(), true),
        (TlsMode::Files, "tls.key", tls.key.is_some(), true),
        (TlsMode::Acme, "tls.acme_directory", acme.directory.is_some(), true),
        (TlsMode::Acme, "tls.acme_names", !acme.names.is_empty(), true),
        (TlsMode::Acme, "tls.acme_email", acme.email.is_some(), false),
        (TlsMode::Acme, "tls.acme_ca", acme.ca.is_some(), false),
    ];
    for (of, key, given, needed) in settings {
        if mode == of && needed && !given {
            return Err(ConfigError::TlsIncomplete { mode, key });
        }
        if mode != of && given {
            return Err(ConfigError::TlsUnused { mode, key, of });
        }
    }
    if mode == TlsMode::Off && tls.client_ca.is_some() {
        return Err(ConfigError::TlsUnused { mode, key: "tls.client_ca", of: TlsMode::Files });
    }
    Ok(())
}

fn guard_dispatched(config: &Config) -> Result<(), ConfigError> {
    let callback_url = config.callback.url.as_deref().or(config.public_url.as_deref());
    let needs = [
        (config.callback.signing_key.is_some(), CURRENT_KEY, "the callback's signing key"),
        (config.runner.github_token.is_some(), "PANTRY_RUNNER_GITHUB_TOKEN", "a token that may dispatch"),
        (
            config.runner.github_repository.is_some(),
            "PANTRY_RUNNER_GITHUB_REPOSITORY",
            "the runner's repository",
        ),
        (callback_url.is_some(), "PANTRY_PUBLIC_URL", "a public URL for the callback"),
    ];
    for (there, variable, what) in needs {
        if !there {
            return Err(ConfigError::RunnerIncomplete { variable, what });
        }
    }
    if let Some(url) = callback_url.filter(|url| names_this_machine(url)) {
        return Err(ConfigError::CallbackNotPublic { url: url.to_owned() });
    }
    Err(ConfigError::RunnerNotAvailable)
}

fn names_this_machine(url: &str) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else { return true };
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse().is_ok_and(|ip: std::net::IpAddr| is_loopback(ip) || ip.is_unspecified())
}
