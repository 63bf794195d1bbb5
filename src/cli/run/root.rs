//! What `--root-fs` means: a directory, what Pantry carries, an image in files, or one in a registry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::fetch;
use super::kept::{Held, Image, Store};
use super::mounts;
use crate::cli::arguments::{Global, Run};
use crate::cli::client::{self, environment};
use crate::cli::failure::Failure;
use crate::cli::images::Name;
use crate::cli::output::{safe, say};
use crate::config::{self, Flags};
use crate::names::Digest;
use crate::rootfs::{Bundle, LayerRole, RootfsError};
use crate::trees::{LayerRef, present_below};

/// The name of what Pantry carries; a directory of that name is written `./pantry/base`.
const BASE: &str = "pantry/base";

/// The root of a run, and what an image says of how it wants to be started.
#[derive(Default)]
pub(super) struct Root {
    /// The directories, bottom first.
    pub(super) layers: Vec<PathBuf>,
    pub(super) argv: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: PathBuf,
    /// Keeps the image from being removed as long as it runs.
    _held: Option<Held>,
}

impl Root {
    fn plain(layers: Vec<PathBuf>) -> Self {
        Self { layers, cwd: PathBuf::from("/"), ..Self::default() }
    }

    fn of(mut held: Held) -> Self {
        Self {
            layers: std::mem::take(&mut held.layers),
            argv: held.image.argv.clone(),
            env: held.image.env.clone(),
            cwd: held.image.cwd.clone(),
            _held: Some(held),
        }
    }
}

pub(super) fn find(global: &Global, options: &Run) -> Result<Root, Failure> {
    let wanted = options.root_fs.as_str();
    if wanted == BASE {
        return base(global);
    }
    let path = Path::new(wanted);
    match fs_err::metadata(path) {
        Ok(kind) if kind.is_dir() && !is_image(path) => directory(path),
        Ok(_) => fetch::from_files(global, path).map(Root::of),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !looks_like_path(wanted) => {
            let name = Name::parse(wanted).map_err(|_| not_found(wanted))?;
            fetch::from_registry(global, options, &name).map(Root::of)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(not_found(wanted)),
        Err(error) => Err(Failure::usage("root_fs_unreadable", error.to_string())),
    }
}

fn looks_like_path(text: &str) -> bool {
    text.is_empty()
        || text.starts_with(['/', '.'])
        || Path::new(text).extension().is_some_and(|end| end == "tar")
}

fn not_found(wanted: &str) -> Failure {
    Failure::usage("root_fs_not_found", format!("there is no {:?}", safe(wanted))).with_hint(Some(
        "name a directory, an OCI layout, an archive, HOST[:PORT]/NAME[:TAG] of a registry, or pantry/base"
            .to_owned(),
    ))
}

/// An OCI layout, or what `docker save` wrote and somebody unpacked.
fn is_image(path: &Path) -> bool {
    path.join("oci-layout").is_file() || path.join("manifest.json").is_file() && !path.join("usr").exists()
}

fn directory(path: &Path) -> Result<Root, Failure> {
    let path = fs_err::canonicalize(path)?;
    let what = format!("{} as a root", path.display());
    if mounts::is_the_hosts(&path) {
        let detail = format!("{what} would show the host itself");
        return Err(Failure::usage("root_fs_not_valid", detail)
            .with_hint(Some("unpack a root below a directory of its own, or take pantry/base".to_owned())));
    }
    mounts::refuse_kernels("root_fs_not_valid", &what, &path)?;
    Ok(Root::plain(vec![path]))
}

/// The runtime layer of the bundle: the daemon's tree of it where there is one, else one of ours.
fn base(global: &Global) -> Result<Root, Failure> {
    let root = client::root(global);
    let bundle = bundle(global, &root)?;
    let layer = bundle.layers().iter().find(|layer| layer.role == LayerRole::Runtime);
    let layer =
        layer.ok_or_else(|| Failure::local("no_bundle_embedded", "the bundle has no runtime layer"))?;
    let digest = |text: &str| {
        Digest::parse(text).map_err(|error| Failure::local("bundle_not_valid", error.to_string()))
    };
    let reference = LayerRef { digest: digest(&layer.digest)?, diff_id: digest(&layer.diff_id)? };
    let layers = [reference];
    if let Ok(root) = fs_err::canonicalize(&root)
        && let Some(trees) = present_below(&root, &layers)
    {
        return Ok(Root::plain(trees));
    }
    let store = Store::open(&root)?;
    let manifest = digest(&bundle.manifest_digest())?;
    if let Some(held) = store.find(&manifest) {
        return Ok(Root::of(held));
    }
    say(global, "unpacking what Pantry carries, once");
    let adding = store.adding()?;
    bundle.verify().map_err(unusable)?;
    let bytes = bundle.layer_reader(layer).map_err(unusable)?;
    let image = Image::bare(manifest, layers.to_vec());
    adding.add(&image, vec![bytes]).map(Root::of)
}

#[allow(clippy::needless_pass_by_value)] // `map_err` gives it away.
fn unusable(error: RootfsError) -> Failure {
    Failure::local(error.code(), error.to_string()).with_hint(error.hint())
}

/// The bundle as the daemon would find it; none is put together here.
fn bundle(global: &Global, root: &Path) -> Result<Bundle, Failure> {
    let flags = Flags { root: global.root.clone(), config: global.config.clone(), listen: None };
    let loaded = config::load(&flags, &environment())
        .map_err(|error| Failure::local(error.code(), error.to_string()).with_hint(error.hint()))?;
    if let Some(layout) = &loaded.config.bundle.layout {
        return Bundle::open_layout(layout).map_err(unusable);
    }
    if let Some(bundle) = Bundle::open_embedded().map_err(unusable)? {
        return Ok(bundle);
    }
    let kept = root.join("bundle");
    if kept.join("index.json").is_file() {
        return Bundle::open_layout(&kept).map_err(unusable);
    }
    Err(Failure::local("no_bundle_embedded", "this executable carries no bundle").with_hint(Some(
        "start `pantry serve` once, which puts one together, or name a layout by PANTRY_BUNDLE_LAYOUT"
            .to_owned(),
    )))
}
