//! Certificates that an authority signs by itself, for as long as it confirms that our names lead here.
//!
//! Invariants: an authority is asked only when a certificate is missing or near its end, never twice at a time, and after
//! a failure not before a wait that grows from a minute to a day and outlives a restart; what comes is put in place only
//! when it is good for every name, with its key, in one file; what is shown meanwhile stays.

mod attempts;
mod challenge;
mod client;
mod error;
mod order;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;

use super::files::{self, Pair};
use super::{Tls, names, validity};
use crate::config::{AcmeConfig, Config};
use crate::keys::KeyError;
use crate::names::{Clock, Millis, Random};
use attempts::Attempts;
use error::AcmeError;

pub use challenge::ACME_PROTOCOL;
pub(super) use challenge::Challenges;

const FILE: &str = "acme.pem";
/// The first line of the file, before the authority that it came from; PEM lets text stand there (RFC 7468, section 2).
const FROM: &str = "Directory: ";
/// One attempt, from the account to the certificate.
const WHOLE: Duration = Duration::from_mins(6);
/// The clock is looked at so often, as it may be set.
const LOOK: Duration = Duration::from_secs(30);

/// How certificates of an authority are going, for operators.
#[derive(Clone, Debug, Serialize)]
pub struct AcmeInfo {
    /// The authority.
    pub directory: String,
    /// The names that a certificate is asked for.
    pub names: Vec<String>,
    /// Whether the certificate that is shown is the authority's; until then it is one of our own.
    pub issued: bool,
    /// When the authority is asked next (RFC 3339).
    pub next_attempt: String,
    /// Attempts that failed since the last certificate.
    pub failures: u32,
    /// Why the last one failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// What is asked for, and how it is going.
pub(super) struct Acme {
    asked: AcmeConfig,
    directory: String,
    keys_dir: PathBuf,
    clock: Arc<dyn Clock>,
    pub(super) challenges: Challenges,
    attempts: Mutex<Attempts>,
    hurried: Notify,
}

/// A certificate of an authority as it is kept.
pub(super) struct Issued {
    pub(super) pair: Pair,
    /// When another one is to be asked for.
    pub(super) renew_at: Millis,
}

impl Acme {
    /// `None` where no directory is named.
    pub(super) fn of(config: &Config, clock: Arc<dyn Clock>) -> Option<Self> {
        let (asked, keys_dir) = (config.tls.acme.clone(), config.root.join("keys"));
        let directory = asked.directory.clone()?;
        let attempts = Mutex::new(Attempts::open(&keys_dir, &asked));
        let (challenges, hurried) = (Challenges::default(), Notify::new());
        Some(Self { asked, directory, keys_dir, clock, challenges, attempts, hurried })
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the authority is asked next, where the certificate that is shown is to be renewed at that time.
    fn next(&self, renew_at: Option<Millis>) -> Millis {
        renew_at.unwrap_or(Millis(0)).max(self.attempts().not_before)
    }

    pub(super) fn info(&self, renew_at: Option<Millis>) -> AcmeInfo {
        let next = self.next(renew_at).max(self.clock.now());
        let attempts = self.attempts();
        AcmeInfo {
            directory: self.directory.clone(),
            names: self.asked.names.clone(),
            issued: renew_at.is_some(),
            next_attempt: next.rfc3339(),
            failures: attempts.failures,
            last_error: attempts.last_error.clone(),
        }
    }

    async fn attempt(&self) -> Result<(), AcmeError> {
        let ordered = order::obtain(&self.asked, &self.directory, &self.keys_dir, &self.challenges);
        let pem = tokio::time::timeout(WHOLE, ordered).await.map_err(|_| AcmeError::TooLong)??;
        let path = file(&self.keys_dir);
        let issued = issued(&path, pem.as_bytes())?;
        let leaf = issued.pair.chain.first().map_or(&[][..], AsRef::as_ref);
        if !names::are_in(&self.asked.names, leaf) {
            return Err(AcmeError::Unfit { what: "is not for all names of tls.acme_names" });
        }
        if issued.renew_at <= self.clock.now() {
            return Err(AcmeError::Unfit { what: "is about to end, or has ended" });
        }
        Ok(files::put(&path, format!("{FROM}{}\n{pem}", self.directory).as_bytes(), 0o600)?)
    }
}

/// Where the certificate is kept, with its key.
pub(super) fn file(keys_dir: &Path) -> PathBuf {
    keys_dir.join(FILE)
}

/// The certificate that is kept, if there is one that has not ended; whatever is wrong with the file, another one will
/// take its place.
pub(super) fn kept(keys_dir: &Path, asked: &AcmeConfig, now: Millis) -> Option<Issued> {
    let path = file(keys_dir);
    let content = match files::read(&path) {
        Ok(content) => content,
        Err(KeyError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return None;
        }
        Err(error) => {
            tracing::error!(%error, "the authority's certificate is not shown");
            return None;
        }
    };
    let mut issued = issued(&path, &content)
        .inspect_err(|error| tracing::error!(%error, "the authority's certificate is not shown"))
        .ok()?;
    let leaf = issued.pair.chain.first()?;
    if validity::not_after(leaf)? <= now {
        return None;
    }
    let from = asked.directory.as_ref().map(|directory| format!("{FROM}{directory}\n"));
    let same_authority = from.is_some_and(|from| content.starts_with(from.as_bytes()));
    if !same_authority || !names::are_in(&asked.names, leaf) {
        issued.renew_at = Millis(0);
    }
    Some(issued)
}

/// Key and chain of one file; to be renewed when a third of the lifetime is left.
fn issued(path: &Path, content: &[u8]) -> Result<Issued, KeyError> {
    let pair = Pair::parse((path, content), (path, content))?;
    let span = pair.chain.first().and_then(|leaf| validity::span(leaf));
    let (from, to) = span.ok_or_else(|| KeyError::NoCertificate { path: path.to_owned() })?;
    Ok(Issued { pair, renew_at: from.after(to.since(from) / 3 * 2) })
}

impl Tls {
    /// Asks the authority for certificates for as long as it is polled, where the configuration names one; ends at once
    /// elsewhere. May be dropped at any time.
    pub async fn certify(&self, random: Arc<dyn Random>) {
        let Some(acme) = &self.0.acme else { return };
        loop {
            let now = acme.clock.now();
            let next = acme.next(self.current().renew_at);
            if next > now {
                tokio::select! {
                    () = tokio::time::sleep(next.since(now).min(LOOK)) => {}
                    () = acme.hurried.notified() => {}
                }
                continue;
            }
            let begun = acme.attempts().begin(now, random.as_ref());
            if let Err(error) = begun {
                // Who can't note that it asks does not ask.
                tracing::error!(%error, code = error.code(), "the authority is not asked for a certificate");
                continue;
            }
            tracing::info!(directory = acme.directory, names = ?acme.asked.names, "a certificate is asked for");
            let outcome = acme.attempt().await;
            let noted = match outcome {
                Ok(()) => {
                    self.show_issued();
                    acme.attempts().succeeded()
                }
                Err(error) => {
                    let now = acme.clock.now();
                    let mut attempts = acme.attempts();
                    let noted = attempts.failed(now, error.told(), error.is_rate_limit());
                    let (why, next, failures) = (error.told(), attempts.not_before, attempts.failures);
                    tracing::error!(why, failures, next_attempt = %next, "the authority gave no certificate");
                    noted
                }
            };
            if let Err(error) = noted {
                tracing::error!(%error, code = error.code(), "what the authority said was not kept");
            }
        }
    }

    /// Lets the next attempt at the authority begin at once, if one is due and only waits for its time.
    pub fn hurry(&self) {
        if let Some(acme) = &self.0.acme {
            acme.attempts().hurry();
            acme.hurried.notify_one();
        }
    }

    fn show_issued(&self) {
        match self.reload() {
            Ok(_) => {
                let shown = self.info();
                tracing::info!(
                    sha256 = %shown.certificate_sha256,
                    not_after = %shown.not_after,
                    "the authority's certificate is shown from now on"
                );
            }
            Err(error) => {
                tracing::error!(%error, code = error.code(), "the authority's certificate is not shown");
            }
        }
    }
}
