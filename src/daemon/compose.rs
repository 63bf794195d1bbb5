//! Opens everything in order and serves until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::access::{self, Access, AccessParts, Mode};
use crate::audit;
use crate::blobs::Blobs;
use crate::callback::Signer;
use crate::changes::{Changes, TaskSet};
use crate::config::{self, AuthMode, Config};
use crate::install::{InstallParts, Installer};
use crate::keys::{CallbackRing, Tls, TlsInfo, TokenKey};
use crate::names::{Clock, Faults, Millis, Random, SystemClock, SystemRandom};
use crate::registry::{Registry, RegistryParts};
use crate::runner::Embedded;
use crate::sandbox::{Cancel, Limits, Sandbox};
use crate::server::{SandboxProbe, Server, ServerParts};
use crate::state::{State, StateError, Tx};
use crate::store::{Store, StoreParts};
use crate::trees::Trees;

use super::DaemonError;
use super::bundle::{self, Posture};
use super::certificate;
use super::proof::{self, Proof};
use super::root::Root;
use super::upkeep::{Keeper, KeeperParts};

/// More changes than are ever kept.
const SCAN: usize = 1_000;

/// How old the receipt that health shows may be.
const PROBE_EVERY: Duration = Duration::from_mins(1);

/// What a client needs to know once the daemon answers.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The address of the HTTP port.
    pub address: SocketAddr,
    /// The same with its scheme.
    pub url: String,
    /// What the port shows by TLS.
    pub tls: Option<TlsInfo>,
    /// The local socket.
    pub socket: PathBuf,
    /// The root folder.
    pub root: PathBuf,
    /// What the daemon stands on.
    pub posture: Posture,
    /// From the call to the first request that could be answered.
    pub ready_ms: u128,
}

/// Opens the parts, binds, calls `ready`, recovers, and serves until `stop` resolves.
///
/// # Errors
/// [`DaemonError`] for what keeps it from starting.
#[allow(clippy::too_many_lines)] // One list of what is opened, in its order: splitting it would hide the order.
pub async fn serve(
    mut config: Config,
    say: impl Fn(&str) + Send + Sync + 'static,
    ready: impl FnOnce(&Ready) + Send,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), DaemonError> {
    let began = Instant::now();
    config::guard(&config)?;
    let root = Root::open(&config.root)?;
    let path = root.path().to_path_buf();
    config.root.clone_from(&path);
    let faults = Faults::from_environment();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(SystemRandom);

    let state = {
        let (file, faults) = (path.join("state.redb"), faults.clone());
        tokio::task::spawn_blocking(move || State::open(&file, faults)).await??
    };
    let blobs = Blobs::open(&path, state.clone(), clock.clone(), random.clone(), faults.clone()).await?;
    let keys_dir = path.join("keys");
    let access = Access::open(AccessParts {
        state: state.clone(),
        clock: clock.clone(),
        random: random.clone(),
        keys_dir: keys_dir.clone(),
        mode: match config.auth_mode {
            AuthMode::None => Mode::None,
            AuthMode::Token => Mode::Token,
        },
        htpasswd: config.auth_htpasswd.clone(),
        token_key: TokenKey::open(&keys_dir, random.as_ref())?.bytes().to_vec(),
        token_life: Duration::from_secs(config.auth_token_ttl_seconds),
        recorder: Arc::new(record),
    })
    .await?;
    if config.auth_mode == AuthMode::None {
        tracing::info!(listen = %config.listen, "nobody is asked who they are (auth.mode none), which only loopback allows");
    }
    let ring = CallbackRing::open(
        &keys_dir,
        config.callback.signing_key.as_ref().map(config::Secret::expose),
        config.callback.previous_key.as_ref().map(|key| (key.expose(), config.callback.previous_key_until)),
        random.as_ref(),
    )?;
    let tls = {
        let (config, clock) = (config.clone(), clock.clone());
        tokio::task::spawn_blocking(move || Tls::open(&config, clock)).await??
    };
    let sandbox = Sandbox::new(&path.join("run/jails"))?;
    let trees = Trees::open(&path, sandbox.clone(), blobs.clone(), faults.clone())?;

    let unpacked = {
        let (trees, path, layout, sandbox) =
            (trees.clone(), path.clone(), config.bundle.layout.clone(), sandbox.clone());
        let said: Arc<dyn Fn(&str) + Send + Sync> = Arc::new(say);
        tokio::task::spawn_blocking(move || {
            sandbox.sweep()?;
            let (found, provenance) = bundle::find(&path, layout.as_deref(), said.as_ref())?;
            bundle::unpack(&trees, found, provenance)
        })
        .await??
    };
    let base = crate::packs::import_bundle(&state, &blobs, clock.as_ref(), &unpacked.bundle).await?;

    let changes = Changes::new(&path, state.clone(), blobs.clone(), clock.clone(), faults.clone());
    let limits = Limits {
        memory_bytes: config.sandbox.test_memory_bytes,
        processes: config.sandbox.test_processes,
        wall_ms: config.sandbox.test_wall_ms,
        ..Limits::tests()
    };
    let mut runner =
        Embedded::new(blobs.clone(), trees.clone(), sandbox.clone(), Signer::new(ring.clone()), limits);
    if let Some(tls) = &tls {
        // Results are posted to our own port, whose certificate nobody else need know.
        runner = runner.with_tls(tls.client_config()?);
    }
    let store = Store::new(StoreParts {
        state: state.clone(),
        blobs: blobs.clone(),
        trees: trees.clone(),
        sandbox: sandbox.clone(),
        changes: changes.clone(),
        keys: ring,
        clock: clock.clone(),
        random: random.clone(),
        config: config.clone(),
        base,
        runtime_root: unpacked.runtime.clone(),
        tools_root: unpacked.tools.clone(),
        runner,
        faults: faults.clone(),
    });
    let installer = Installer::new(InstallParts {
        root: path.clone(),
        state: state.clone(),
        blobs: blobs.clone(),
        trees: trees.clone(),
        changes: changes.clone(),
        clock: clock.clone(),
        random: random.clone(),
        faults: faults.clone(),
    });
    let registry = Registry::new(RegistryParts {
        state: state.clone(),
        blobs: blobs.clone(),
        clock: clock.clone(),
        faults: faults.clone(),
        config: config.registry.clone(),
        manifest_cap_bytes: config.limits.manifest_cap_bytes,
        grace: Duration::from_secs(config.storage.collect_grace_seconds),
    });
    registry.load().await?;
    let resumed = registry.clone();
    // Not waited for: nothing of what is going is seen, however much there is of it.
    let _removing = tokio::spawn(async move {
        if let Err(error) = resumed.resume_removals().await {
            tracing::warn!(%error, code = error.code(), "removals of the last run go on with the next collection");
        }
    });
    let storage = &config.storage;
    let keeper = Keeper::new(KeeperParts {
        state: state.clone(),
        blobs: blobs.clone(),
        changes: changes.clone(),
        clock: clock.clone(),
        random: random.clone(),
        grace: Duration::from_secs(storage.collect_grace_seconds),
        every: (storage.collect_every_seconds > 0)
            .then(|| Duration::from_secs(storage.collect_every_seconds)),
        registry: registry.clone(),
    });

    let proved: Arc<OnceLock<Proof>> = Arc::new(OnceLock::new());
    let sandbox_probe = probe(&sandbox, &unpacked.runtime, proved.clone());
    let bound = Server::bind(
        &config,
        ServerParts {
            state: state.clone(),
            blobs: blobs.clone(),
            registry,
            store: store.clone(),
            installer: installer.clone(),
            changes: changes.clone(),
            tls: tls.clone(),
            upkeep: Arc::new(keeper.clone()),
            access,
            clock,
            random: random.clone(),
            sandbox_probe,
            posture: serde_json::to_value(&unpacked.posture).unwrap_or_default(),
        },
    )
    .await?;
    let address = bound.local_addr();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let base_url = config.callback.url.clone().unwrap_or_else(|| local_url(scheme, address));
    store.set_callback_url(base_url);
    ready(&Ready {
        url: format!("{scheme}://{address}"),
        tls: tls.as_ref().map(Tls::info),
        address,
        socket: bound.socket_path().to_path_buf(),
        root: path.clone(),
        posture: unpacked.posture.clone(),
        ready_ms: began.elapsed().as_millis(),
    });

    let stopping = Cancel::new()?;
    let ending = CancellationToken::new();
    let recovery = {
        let (state, changes, installer, trees) =
            (state.clone(), changes.clone(), installer.clone(), trees.clone());
        let (digest, tools) = (unpacked.posture.bundle_digest.clone(), unpacked.tools.clone());
        let bundle_chain = bundle::chain(&unpacked.bundle)?;
        let (proved, store, stopping) = (proved.clone(), store.clone(), stopping.clone());
        let (keeper, ending) = (keeper.clone(), ending.clone());
        tokio::spawn(async move {
            let outcome = recover(&state, &changes, &installer, &trees, bundle_chain).await;
            if let Err(error) = outcome {
                tracing::error!(error = %error, code = error.code(), "recovery of the last run failed");
            }
            match store.adopt().await {
                Ok(0) => {}
                Ok(adopted) => tracing::info!(adopted, "submissions of an older Pantry are waited for"),
                Err(error) => {
                    tracing::error!(error = %error, code = error.code, "submissions of an older Pantry wait");
                }
            }
            // What needs no jail goes on at once; what does waits for the proof.
            let mut tasks = TaskSet::new();
            store.register(&mut tasks);
            installer.register(&mut tasks);
            keeper.register(&mut tasks);
            changes.start(tasks);
            // Not before changes run: one that an earlier process began goes on first.
            let _tending = tokio::spawn(keeper.tend(ending));
            let proof =
                proof::prove(&state, &sandbox, &digest, tools, &stopping).await.unwrap_or_else(|error| {
                    Proof::Refused { why: format!("the run-time proof could not be read: {error}") }
                });
            match &proof {
                Proof::Passed => {
                    store.admit();
                    if let Err(error) = state.settle() {
                        tracing::warn!(error = %error, "the copy from before the migration stays");
                    }
                }
                Proof::Refused { why } => {
                    tracing::error!(why = %why, "foreign code is refused: the run-time proof failed");
                    store.refuse(why);
                }
                Proof::Stopped => return,
            }
            let _first = proved.set(proof);
        })
    };

    let tending = tokio::spawn(tend(blobs.clone()));
    let certifying = tokio::spawn(certificate::certify(tls.clone(), random, ending.clone()));
    let refreshing = tokio::spawn(certificate::keep(tls)?);
    let stop = async move {
        stop.await;
        // Nobody waits any more for what the proof would find.
        stopping.cancel();
        store.closing();
    };
    bound.serve(stop).await;
    tending.abort();
    refreshing.abort();
    ending.cancel();
    certifying.await?;
    recovery.await?;
    changes.stop().await;
    state.close().await?;
    // The lock on the root outlives everything that writes to it.
    drop(root);
    Ok(())
}

/// A real jail at most once a minute, once the proof has passed.
fn probe(sandbox: &Sandbox, runtime: &[PathBuf], proved: Arc<OnceLock<Proof>>) -> SandboxProbe {
    type Last = Option<(Instant, serde_json::Value)>;
    let (sandbox, runtime) = (sandbox.clone(), runtime.to_vec());
    let last: Arc<tokio::sync::Mutex<Last>> = Arc::default();
    Arc::new(move || {
        let (sandbox, runtime, proved, last) =
            (sandbox.clone(), runtime.clone(), proved.clone(), last.clone());
        Box::pin(async move {
            match proved.get() {
                None => return Ok(serde_json::json!({ "proof": "under way" })),
                Some(Proof::Refused { why }) => return Err(why.clone()),
                Some(Proof::Passed | Proof::Stopped) => {}
            }
            let mut last = last.lock().await;
            if let Some((at, receipt)) = last.as_ref()
                && at.elapsed() < PROBE_EVERY
            {
                return Ok(receipt.clone());
            }
            let argv = ["/usr/bin/python3", "-I", "-S", "-c", "pass"].map(str::to_owned).to_vec();
            let run = tokio::task::spawn_blocking(move || sandbox.probe(runtime, argv)).await;
            let receipt = run.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            let receipt = serde_json::to_value(receipt).map_err(|error| error.to_string())?;
            *last = Some((Instant::now(), receipt.clone()));
            Ok(receipt)
        })
    })
}

/// Puts what happened to accounts into the audit log.
fn record(tx: &mut Tx<'_>, now: Millis, event: &access::Event) -> Result<(), StateError> {
    let event = audit::Event {
        who: event.who.clone(),
        action: event.action.to_owned(),
        subject: event.subject.clone(),
        outcome: event.outcome.to_owned(),
        why: event.why.clone(),
    };
    audit::append(tx, now, &event)
}

/// Sweeps abandoned uploads once an hour.
async fn tend(blobs: Blobs) {
    let mut hourly = tokio::time::interval(Duration::from_hours(1));
    loop {
        hourly.tick().await;
        match blobs.sweep_uploads().await {
            Ok(0) => {}
            Ok(swept) => tracing::info!(uploads = swept, "removed abandoned uploads"),
            Err(error) => tracing::warn!(error = %error, code = error.code(), "abandoned uploads stay"),
        }
    }
}

/// Brings disk and records together after a crash: before any change goes on.
async fn recover(
    state: &State,
    changes: &Changes,
    installer: &Installer,
    trees: &Trees,
    mut keep: Vec<crate::names::Digest>,
) -> Result<(), DaemonError> {
    let mended = installer.recover().await?;
    tracing::debug!(?mended, "wrappers and launch files agree with the records");
    let store = trees.clone();
    tokio::task::spawn_blocking(move || store.sweep_unfinished()).await??;
    let idle = changes.list(None, SCAN).await?.iter().all(crate::changes::ChangeView::is_ended);
    if idle {
        keep.extend(state.read(|view| Installer::kept_trees(view)).await?);
        let trees = trees.clone();
        let swept = tokio::task::spawn_blocking(move || trees.sweep(&keep)).await??;
        if swept > 0 {
            tracing::info!(trees = swept, "removed unpacked trees that nothing names");
        }
    }
    Ok(())
}

/// How this machine itself reaches the port.
fn local_url(scheme: &str, address: SocketAddr) -> String {
    let host = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => "[::1]".to_owned(),
        SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        SocketAddr::V4(v4) => v4.ip().to_string(),
    };
    format!("{scheme}://{host}:{}", address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_address_is_reached_by_loopback() {
        let cases = [
            ("0.0.0.0:7721", "http://127.0.0.1:7721"),
            ("127.0.0.1:1", "http://127.0.0.1:1"),
            ("[::]:9", "http://[::1]:9"),
            ("[::1]:9", "http://[::1]:9"),
        ];
        for (address, url) in cases {
            assert_eq!(local_url("http", address.parse().expect("an address of the table")), url);
        }
    }
}
