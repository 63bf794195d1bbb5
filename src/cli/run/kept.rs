//! The images that were run, unpacked below `<root>/run-images/` for the next time.
//!
//! - `trees/` has their layers, in the form that `trees` keeps them;
//! - `images/<digest of the manifest>.json` names an image's layers and how it wants to be started. It is written last;
//!   whoever runs the image holds a shared lock on it, and its time is that of the last run;
//! - `downloads/` and `jails/` are for whoever holds `.lock`, and emptied by whoever holds it next.
//!
//! The eight that were run last are kept. Whatever a crash leaves counts for nothing and goes with the next image.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::cli::failure::Failure;
use crate::names::Digest;
use crate::sandbox::Sandbox;
use crate::trees::{LayerRef, TreeError, Trees, chain_ids, present_below};

/// So many images stay unpacked.
const KEPT: usize = 8;
/// The form of the records; others are unpacked anew.
const VERSION: u32 = 1;

/// An image as its configuration has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Image {
    version: u32,
    /// Digest of its manifest.
    pub(super) digest: Digest,
    /// Its layers, bottom first.
    pub(super) layers: Vec<LayerRef>,
    /// What it runs where nothing is named.
    pub(super) argv: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) cwd: PathBuf,
}

impl Image {
    /// An image that says nothing of how it wants to be started.
    pub(super) fn bare(digest: Digest, layers: Vec<LayerRef>) -> Self {
        let (argv, env, cwd) = (Vec::new(), BTreeMap::new(), PathBuf::from("/"));
        Self { version: VERSION, digest, layers, argv, env, cwd }
    }
}

/// An unpacked image that nobody removes as long as this value lives.
pub(super) struct Held {
    pub(super) image: Image,
    /// Its directories, bottom first.
    pub(super) layers: Vec<PathBuf>,
    _lock: std::fs::File,
}

/// The folder.
pub(super) struct Store {
    folder: PathBuf,
}

/// The right to add and remove images, of one process at a time.
pub(super) struct Adding {
    store: Store,
    _lock: std::fs::File,
}

impl Store {
    /// Opens the folder below a root, making both where they are missing.
    pub(super) fn open(root: &Path) -> Result<Self, Failure> {
        make(root, 0o755)?;
        let folder = fs_err::canonicalize(root)?.join("run-images");
        for (path, mode) in [
            (folder.clone(), 0o755),
            (folder.join("images"), 0o700),
            (folder.join("downloads"), 0o700),
            (folder.join("jails"), 0o700),
        ] {
            make(&path, mode)?;
            let found = fs_err::symlink_metadata(&path)?;
            let ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
            if !ours || found.mode() & 0o022 != 0 {
                let detail = format!("{} is no folder of yours alone", path.display());
                return Err(Failure::local("run_images_not_ours", detail)
                    .with_hint(Some("remove it, or name another place by --root".to_owned())));
            }
        }
        Ok(Self { folder })
    }

    fn record(&self, digest: &Digest) -> PathBuf {
        self.folder.join("images").join(format!("{}.json", digest.hex()))
    }

    /// An image that is there whole.
    pub(super) fn find(&self, digest: &Digest) -> Option<Held> {
        let path = self.record(digest);
        let (mut file, _) = fs_err::File::open(&path).ok()?.into_parts();
        flock(&file, FlockOperation::LockShared).ok()?;
        // Whoever removed it meanwhile has removed its name first.
        let (held, named) = (file.metadata().ok()?, fs_err::symlink_metadata(&path).ok()?);
        if held.ino() != named.ino() {
            return None;
        }
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        let image: Image = serde_json::from_str(&text).ok()?;
        if image.version != VERSION || image.digest != *digest {
            return None;
        }
        let layers = present_below(&self.folder, &image.layers)?;
        // That it was used counts for who goes first, and nothing else.
        let _ = file.set_modified(std::time::SystemTime::now());
        Some(Held { image, layers, _lock: file })
    }

    fn lock(&self) -> Result<std::fs::File, Failure> {
        let path = self.folder.join(".lock");
        let file = fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        Ok(file.into_parts().0)
    }

    /// Whether another process adds an image at the moment.
    pub(super) fn is_busy(&self) -> Result<bool, Failure> {
        Ok(flock(self.lock()?, FlockOperation::NonBlockingLockExclusive).is_err())
    }

    /// Waits for the right to add an image, and removes what others have left unfinished.
    pub(super) fn adding(self) -> Result<Adding, Failure> {
        let lock = self.lock()?;
        flock(&lock, FlockOperation::LockExclusive).map_err(std::io::Error::from)?;
        for left in fs_err::read_dir(self.folder.join("downloads"))? {
            fs_err::remove_dir_all(left?.path())?;
        }
        Ok(Adding { store: self, _lock: lock })
    }
}

impl Adding {
    /// Where an image may be put on its way, by whoever removes it again.
    pub(super) fn downloads(&self) -> PathBuf {
        self.store.folder.join("downloads")
    }

    /// Another process may have been faster.
    pub(super) fn find(&self, digest: &Digest) -> Option<Held> {
        self.store.find(digest)
    }

    /// Unpacks an image whose layers' bytes come from these readers, bottom first. Blocking.
    pub(super) fn add(self, image: &Image, bytes: Vec<Box<dyn Read + Send>>) -> Result<Held, Failure> {
        let sandbox = Sandbox::new(&self.store.folder.join("jails")).map_err(super::failed)?;
        sandbox.sweep().map_err(super::failed)?;
        let trees = Trees::open_foreign(&self.store.folder, sandbox).map_err(unusable)?;
        trees.sweep_unfinished().map_err(unusable)?;
        for (index, reader) in bytes.into_iter().enumerate() {
            trees.ensure_from(&image.layers[..index], &image.layers[index], reader).map_err(unusable)?;
        }
        let record = self.store.record(&image.digest);
        let mut file = tempfile::NamedTempFile::new_in(self.downloads())?;
        serde_json::to_writer(&mut file, image).map_err(std::io::Error::from)?;
        file.persist(&record).map_err(|error| error.error)?;
        let held = self.store.find(&image.digest).ok_or_else(|| {
            Failure::local("image_lost", "the unpacked image is gone already")
                .with_hint(Some("run it again".to_owned()))
        })?;
        self.forget(&trees)?;
        Ok(held)
    }

    /// Removes what was not run for the longest time, unless it runs.
    fn forget(&self, trees: &Trees) -> Result<(), Failure> {
        let mut records = Vec::new();
        for entry in fs_err::read_dir(self.store.folder.join("images"))? {
            let entry = entry?;
            records.push((entry.metadata()?.modified()?, entry.path()));
        }
        records.sort();
        let mut surplus = records.len().saturating_sub(KEPT);
        let mut keep = Vec::new();
        for (_, path) in records {
            let (mut file, _) = fs_err::File::open(&path)?.into_parts();
            if surplus > 0 && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                fs_err::remove_file(&path)?;
                surplus -= 1;
                continue;
            }
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            // What can't be read is of another version, and finds its trees gone.
            if let Ok(image) = serde_json::from_str::<Image>(&text) {
                keep.extend(chain_ids(&image.layers));
            }
        }
        trees.sweep(&keep).map_err(unusable)?;
        Ok(())
    }
}

/// A layer that no tree comes of.
#[allow(clippy::needless_pass_by_value)] // `map_err` gives it away.
fn unusable(error: TreeError) -> Failure {
    let failure = match &error {
        TreeError::Refused { .. } => {
            Failure::rejected(error.code(), format!("a layer of the image is refused: {error}"))
        }
        _ => Failure::local(error.code(), error.to_string()),
    };
    failure.with_hint(error.hint())
}

fn make(path: &Path, mode: u32) -> Result<(), Failure> {
    if fs_err::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(mode).create(path).map_err(|error| {
        Failure::local("root_unwritable", format!("cannot make {}: {error}", path.display()))
            .with_hint(Some("name a folder of yours by --root".to_owned()))
    })?;
    // The umask doesn't let every bit through.
    Ok(fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn put(store: &Store, name: &[u8]) -> Digest {
        let image = Image::bare(Digest::of(name), Vec::new());
        fs_err::write(store.record(&image.digest), serde_json::to_vec(&image).unwrap()).unwrap();
        image.digest
    }

    #[test]
    fn those_that_were_run_last_are_kept_and_those_that_run() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let digests: Vec<Digest> =
            (0..KEPT + 3).map(|number| put(&store, &[u8::try_from(number).unwrap()])).collect();
        for (age, digest) in digests.iter().rev().enumerate() {
            let file =
                fs_err::OpenOptions::new().write(true).open(store.record(digest)).unwrap().into_parts().0;
            let ago = std::time::Duration::from_secs(60 * (1 + age as u64));
            file.set_modified(std::time::SystemTime::now() - ago).unwrap();
        }
        // The oldest runs, the second is used again.
        let held = store.find(&digests[0]).unwrap();
        let file = fs_err::File::open(store.record(&digests[0])).unwrap().into_parts().0;
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        drop(store.find(&digests[1]).unwrap());
        let trees = Trees::foreign_unconfined(&store.folder).unwrap();
        let adding = store.adding().unwrap();
        adding.forget(&trees).unwrap();
        let there = |digest: &Digest| adding.find(digest).is_some();
        assert!(there(&digests[0]) && there(&digests[1]), "one runs, one was used");
        assert!(!there(&digests[2]) && !there(&digests[3]) && !there(&digests[4]));
        assert!(digests[5..].iter().all(there));
        drop(held);
    }

    #[test]
    fn a_record_of_another_form_is_none() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let digest = put(&store, b"image");
        assert!(store.find(&digest).is_some());
        let text = fs_err::read_to_string(store.record(&digest)).unwrap();
        fs_err::write(store.record(&digest), text.replace("\"version\":1", "\"version\":2")).unwrap();
        assert!(store.find(&digest).is_none());
        assert!(store.find(&Digest::of(b"other")).is_none());
    }
}
