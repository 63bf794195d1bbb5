//! Keeps the certificate of the port current while the daemon runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::DaemonError;
use crate::keys::{Refreshed, Tls};
use crate::names::Random;

/// How often it is looked whether a file of the certificate has changed.
const EVERY: Duration = Duration::from_secs(3);

/// Asks the authority for certificates until the daemon ends, where the configuration names one.
pub(super) async fn certify(tls: Option<Tls>, random: Arc<dyn Random>, ending: CancellationToken) {
    let Some(tls) = tls else { return };
    tokio::select! {
        () = tls.certify(random) => {}
        () = ending.cancelled() => {}
    }
}

/// Shows another certificate when a file of it changes or when it is about to end, and upon SIGHUP, until it is dropped.
///
/// SIGHUP is taken also where TLS is off, as it would else end the daemon; it also ends the wait after a failure of the
/// authority.
pub(super) fn keep(tls: Option<Tls>) -> Result<impl Future<Output = ()> + Send, DaemonError> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        let mut looks = tokio::time::interval(EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = looks.tick() => false,
                _ = hangup.recv() => true,
            };
            let Some(tls) = tls.clone() else {
                if asked {
                    tracing::info!("SIGHUP: TLS is off, there is nothing to read again");
                }
                continue;
            };
            if asked {
                tls.hurry();
            }
            let showing = tls.clone();
            let outcome =
                tokio::task::spawn_blocking(move || if asked { tls.reload() } else { tls.refresh() }).await;
            match outcome {
                Ok(Ok(Refreshed::Same)) if asked => tracing::info!("SIGHUP: the certificate is the same"),
                Ok(Ok(Refreshed::Same)) => {}
                Ok(Ok(Refreshed::Exchanged)) => {
                    let shown = showing.info();
                    tracing::info!(
                        sha256 = %shown.certificate_sha256,
                        not_after = %shown.not_after,
                        "another certificate is shown from now on"
                    );
                }
                Ok(Err(error)) => {
                    let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::error!(
                        %error,
                        why,
                        code = error.code(),
                        hint = error.hint().unwrap_or_default(),
                        "the new certificate cannot be used; the one before is still shown"
                    );
                }
                Err(lost) => tracing::error!(error = %lost, "the certificate could not be looked at"),
            }
        }
    })
}
