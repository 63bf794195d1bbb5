//! The run-time proof: before any foreign code runs, the bundle shows in a real jail that it works and holds.
//!
//! Remembered per bundle, kernel and boot, so that a restart costs one read.

use std::path::PathBuf;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::sandbox::{Cancel, End, Policy, Sandbox, StdinBytes};
use crate::state::{Read as _, State, StateError, Table};

/// What the proof found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Everything holds.
    Passed,
    /// Foreign code must not run, for this reason.
    Refused { why: String },
    /// The server stops, and nothing was found.
    Stopped,
}

#[derive(Serialize, Deserialize)]
struct ProofRecord {
    bundle: String,
    kernel: String,
    boot: String,
}
crate::state::record!(ProofRecord, 1);

const PROOFS: Table<String, ProofRecord> = Table::new("proofs");

/// What runs inside: a write to `/` must fail with EROFS, the TLS roots and the tools must load.
const SCRIPT: &str = r#"
import errno, ssl, subprocess, sys
try:
    open("/written", "w")
    sys.exit("the root filesystem can be written")
except OSError as error:
    if error.errno != errno.EROFS:
        sys.exit(f"writing to / gave {error!r} instead of EROFS")
if not ssl.create_default_context().get_ca_certs():
    sys.exit("no TLS roots are found")
for argv in (["/usr/bin/git", "--version"], ["/usr/bin/uv", "--version"]):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
"#;

/// Proves the tools root in a jail, or remembers that it was proved on this kernel in this boot. `stop` ends it.
pub(super) async fn prove(
    state: &State,
    sandbox: &Sandbox,
    bundle_digest: &str,
    tools_root: Vec<PathBuf>,
    stop: &Cancel,
) -> Result<Proof, StateError> {
    let (kernel, boot) = (kernel_release(), boot_id());
    let key = "runtime".to_owned();
    let known = state.read(move |view| view.get(&PROOFS, &key)).await?;
    if let Some(known) = known
        && known.bundle == bundle_digest
        && known.kernel == kernel
        && known.boot == boot
    {
        return Ok(Proof::Passed);
    }
    let (jail, stop) = (sandbox.clone(), stop.clone());
    let run = tokio::task::spawn_blocking(move || {
        let mut policy =
            Policy::new(tools_root, ["/usr/bin/python3", "-I", "-c", SCRIPT].map(str::to_owned).to_vec());
        policy.limits.wall_ms = 60_000;
        jail.run(&policy, StdinBytes::Empty, &stop)
    });
    let outcome = match run.await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => {
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            return Ok(Proof::Refused { why: format!("{error}{hint}") });
        }
        Err(error) => return Ok(Proof::Refused { why: format!("the proof was lost: {error}") }),
    };
    if outcome.end == End::Cancelled {
        return Ok(Proof::Stopped);
    }
    if outcome.end != End::Exited(0) {
        return Ok(Proof::Refused {
            why: format!(
                "the bundle does not work in a jail ({:?}): {}",
                outcome.end,
                outcome.stderr.text().trim()
            ),
        });
    }
    let bundle = bundle_digest.to_owned();
    state
        .write(move |tx| {
            let record = ProofRecord { bundle: bundle.clone(), kernel: kernel.clone(), boot: boot.clone() };
            tx.put(&PROOFS, &"runtime".to_owned(), &record)
        })
        .await?;
    Ok(Proof::Passed)
}

fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
