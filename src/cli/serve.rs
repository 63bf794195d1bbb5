//! `pantry serve`: runs the daemon until SIGTERM or SIGINT.

use std::io::Write as _;

use tokio::signal::unix::{SignalKind, signal};

use super::arguments::{Format, Global, Serve};
use super::client::environment;
use super::failure::Failure;
use super::log;
use super::output::safe;
use crate::config::{self, Flags};
use crate::daemon::{self, Ready};

pub(super) fn run(global: &Global, options: &Serve) -> Result<(), Failure> {
    let flags = Flags { root: global.root.clone(), config: global.config.clone(), listen: options.listen };
    let loaded = config::load(&flags, &environment()).and_then(|loaded| {
        config::guard(&loaded.config)?;
        Ok(loaded)
    });
    let loaded =
        loaded.map_err(|error| Failure::local(error.code(), error.to_string()).with_hint(error.hint()))?;
    if options.check {
        for (key, value, source) in &loaded.provenance {
            let _ = writeln!(std::io::stdout(), "{key} = {value}  ({source})");
        }
        for warning in &loaded.warnings {
            let _ = writeln!(std::io::stderr(), "warning: {}", safe(warning));
        }
        return Ok(());
    }
    log::start(&loaded.config.log, global.output == Format::Json);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(64)
        .build()
        .map_err(|error| Failure::local("runtime_unavailable", format!("cannot start: {error}")))?;
    let quiet = global.quiet;
    let served = runtime.block_on(async move {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let say = move |line: &str| {
            if !quiet {
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        };
        Ok::<_, std::io::Error>(daemon::serve(loaded.config, say, announce, stop).await)
    })?;
    served.map_err(|error| Failure::local(error.code(), error.to_string()).with_hint(error.hint()))
}

/// The one line on stdout that scripts wait for.
fn announce(ready: &Ready) {
    let _ = writeln!(
        std::io::stdout(),
        "pantry is ready at {} (root {}, {} ms)",
        ready.url,
        ready.root.display(),
        ready.ready_ms
    );
    if let Some(tls) = &ready.tls {
        let _ = match (&tls.authority_sha256, &tls.authority_file) {
            (Some(authority), Some(file)) => {
                writeln!(std::io::stdout(), "clients trust {file}, whose SHA-256 fingerprint is {authority}")
            }
            _ => writeln!(
                std::io::stdout(),
                "the certificate's SHA-256 fingerprint is {}; it ends {}",
                tls.certificate_sha256,
                tls.not_after
            ),
        };
    }
    let _ = std::io::stdout().flush();
}
