//! Where the bundle comes from, and its unpacked trees.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;

use crate::names::Digest;
use crate::rootfs::{self, Bundle, BundleLayer, LayerRole};
use crate::trees::{LayerRef, Trees};

use super::DaemonError;

/// Where the bundle of this daemon comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provenance {
    /// Carried in the executable.
    Embedded,
    /// A layout folder that the configuration names.
    Layout,
    /// Put together from this machine's programs and kept under the root.
    AssembledFromHost,
}

/// What the daemon stands on, as log, `/health` and `pantry status` tell it.
#[derive(Clone, Debug, Serialize)]
pub struct Posture {
    /// Where the bundle comes from.
    pub bundle: Provenance,
    /// The digest of the bundle's manifest.
    pub bundle_digest: String,
    /// The Python of the bundle.
    pub python: String,
}

/// The bundle and the folders of its layers.
pub(super) struct Unpacked {
    pub(super) bundle: Bundle,
    pub(super) posture: Posture,
    /// L0, bottom first.
    pub(super) runtime: Vec<PathBuf>,
    /// L0 and L1, bottom first.
    pub(super) tools: Vec<PathBuf>,
}

/// Finds or makes the bundle. Blocking.
pub(super) fn find(
    root: &Path,
    layout: Option<&Path>,
    say: &dyn Fn(&str),
) -> Result<(Bundle, Provenance), DaemonError> {
    if let Some(layout) = layout {
        return Ok((Bundle::open_layout(layout)?, Provenance::Layout));
    }
    if let Some(bundle) = Bundle::open_embedded()? {
        return Ok((bundle, Provenance::Embedded));
    }
    let kept = root.join("bundle");
    if !kept.join("index.json").exists() {
        say("no bundle is embedded in this executable: assembling one from this machine's programs, once");
        let work = root.join("tmp/assemble");
        for left in [&work, &kept] {
            if left.exists() {
                fs::remove_dir_all(left)?;
            }
        }
        fs::create_dir_all(&work)?;
        let fresh = work.join("layout");
        let executable = std::env::current_exe()?;
        rootfs::assemble(&rootfs::AssembleOptions {
            spec: &rootfs::BundleSpec::built_in()?,
            pantry_binary: &executable,
            out: &fresh,
            work: &work.join("work"),
            uv: None,
            progress: say,
        })?;
        fs::rename(&fresh, &kept)?;
        fs::remove_dir_all(&work)?;
        say(&format!("the bundle is kept in {}", kept.display()));
    }
    Ok((Bundle::open_layout(&kept)?, Provenance::AssembledFromHost))
}

/// Unpacks what is not unpacked yet. Blocking.
pub(super) fn unpack(trees: &Trees, bundle: Bundle, provenance: Provenance) -> Result<Unpacked, DaemonError> {
    let mut below: Vec<LayerRef> = Vec::new();
    let (mut runtime, mut tools) = (Vec::new(), Vec::new());
    let wanted = unpacked_layers(&bundle)?;
    if trees.present(&wanted).is_none() {
        // Every byte is read before the first is unpacked, so that nothing of an altered bundle ever counts.
        bundle.verify()?;
    }
    for layer in bundle.layers() {
        if layer.role == LayerRole::Pantry {
            continue;
        }
        let reference = reference(layer)?;
        let folder = trees.ensure_from(&below, &reference, bundle.layer_reader(layer)?)?;
        if layer.role == LayerRole::Runtime {
            runtime.push(folder.clone());
        }
        tools.push(folder);
        below.push(reference);
    }
    let posture = Posture {
        bundle: provenance,
        bundle_digest: bundle.manifest_digest(),
        python: bundle.python_version(),
    };
    Ok(Unpacked { bundle, posture, runtime, tools })
}

/// The layers that jails stand on. The third one is this very program: nothing in a jail needs it.
fn unpacked_layers(bundle: &Bundle) -> Result<Vec<LayerRef>, DaemonError> {
    bundle.layers().iter().filter(|layer| layer.role != LayerRole::Pantry).map(reference).collect()
}

/// The chain ids of the bundle's trees, which a sweep must keep.
pub(super) fn chain(bundle: &Bundle) -> Result<Vec<Digest>, DaemonError> {
    let layers = bundle.layers().iter().map(reference).collect::<Result<Vec<_>, _>>()?;
    Ok(crate::trees::chain_ids(&layers))
}

fn reference(layer: &BundleLayer) -> Result<LayerRef, DaemonError> {
    Ok(LayerRef { digest: Digest::parse(&layer.digest)?, diff_id: Digest::parse(&layer.diff_id)? })
}
