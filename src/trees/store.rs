//! The trees below a root: made once, found by layer chain, swept.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::blobs::Blobs;
use crate::names::{Digest, Faults};
use crate::sandbox::Sandbox;

use super::confined::{Archive, Extractor};
use super::error::{RefusalCode, TreeError};
use super::extract::{Order, SourceCaps};
use super::mask;
use super::stamp::Stamp;
use super::walk;

/// What unfinished attempts are called.
const UNFINISHED: &str = ".tmp-";

/// A layer of an image: the name of its bytes and the digest of the archive in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerRef {
    /// Digest of the compressed bytes, under which they are stored.
    pub digest: Digest,
    /// Digest of the archive inside.
    pub diff_id: Digest,
}

/// The chain ids of the layers, bottom first: each names a layer together with all below it.
///
/// *Source*: OCI image specification, image configuration, Layer `ChainID`.
#[must_use]
pub fn chain_ids(layers: &[LayerRef]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(layers.len());
    for layer in layers {
        chain.push(chain_above(chain.last(), layer));
    }
    chain
}

fn chain_above(below: Option<&Digest>, layer: &LayerRef) -> Digest {
    match below {
        None => layer.diff_id.clone(),
        Some(below) => Digest::of(format!("{below} {}", layer.diff_id).as_bytes()),
    }
}

/// What an unpacked source holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// How many files.
    pub files: u64,
    /// Their bytes together.
    pub bytes: u64,
}

/// The unpacked trees of a root; `trees/<chain id>` holds what one layer adds to those below it.
#[derive(Clone)]
pub struct Trees(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    extractor: Extractor,
    /// None where the bytes of layers come from readers alone.
    blobs: Option<Blobs>,
    order: Order,
    faults: Faults,
    /// Chains that a thread of ours is unpacking at the moment.
    busy: Mutex<HashSet<Digest>>,
    freed: Condvar,
    attempts: AtomicU64,
}

impl Trees {
    /// Opens the trees below `root`, making the folder on first use.
    ///
    /// # Errors
    /// [`TreeError::Io`] when the folder can't be made.
    pub fn open(root: &Path, sandbox: Sandbox, blobs: Blobs, faults: Faults) -> Result<Self, TreeError> {
        Self::with(root, Extractor::Jail(sandbox), Some(blobs), Order::layer(), faults)
    }

    /// Opens trees of images that others made, below a folder of their own: the bytes of their layers come from
    /// [`ensure_from`](Self::ensure_from) alone. Setuid bits, devices and pipes in them are left out.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_foreign(folder: &Path, sandbox: Sandbox) -> Result<Self, TreeError> {
        Self::with(folder, Extractor::Jail(sandbox), None, Order::foreign(), Faults::none())
    }

    /// Trees whose extractor is a plain call, for tests of what is built on them.
    #[cfg(test)]
    pub(crate) fn unconfined(root: &Path, blobs: Blobs) -> Result<Self, TreeError> {
        Self::with(root, Extractor::InProcess, Some(blobs), Order::layer(), Faults::none())
    }

    /// Foreign trees whose extractor is a plain call.
    #[cfg(test)]
    pub(crate) fn foreign_unconfined(root: &Path) -> Result<Self, TreeError> {
        Self::with(root, Extractor::InProcess, None, Order::foreign(), Faults::none())
    }

    fn with(
        root: &Path,
        extractor: Extractor,
        blobs: Option<Blobs>,
        order: Order,
        faults: Faults,
    ) -> Result<Self, TreeError> {
        let dir = root.join("trees");
        fs_err::create_dir_all(&dir)?;
        // Jails have ids of their own, to which what lies here must be open.
        fs_err::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        Ok(Self(Arc::new(Inner {
            dir,
            extractor,
            blobs,
            order,
            faults,
            busy: Mutex::default(),
            freed: Condvar::new(),
            attempts: AtomicU64::new(0),
        })))
    }

    /// The layers' directories, bottom first, after unpacking what isn't there yet. Blocking.
    ///
    /// # Errors
    /// [`TreeError`] when a layer's blob is missing or damaged, or it holds what no layer may.
    pub fn ensure(&self, layers: &[LayerRef]) -> Result<Vec<PathBuf>, TreeError> {
        let chains = chain_ids(layers);
        let mut directories = Vec::with_capacity(layers.len());
        for (layer, chain) in layers.iter().zip(&chains) {
            let open = || {
                let missing = || TreeError::BlobMissing(layer.digest.clone());
                let blobs = self.0.blobs.as_ref().ok_or_else(missing)?;
                let reader = blobs.open_blob_blocking(&layer.digest)?.ok_or_else(missing)?;
                Ok(reader.into_blocking())
            };
            directories.push(self.ensure_one(chain, layer, open)?);
        }
        Ok(directories)
    }

    /// As [`ensure`](Self::ensure) for one layer whose bytes come from a reader, such as the bundle's. Blocking.
    ///
    /// # Errors
    /// As [`ensure`](Self::ensure).
    pub fn ensure_from(
        &self,
        below: &[LayerRef],
        layer: &LayerRef,
        bytes: Box<dyn Read + Send>,
    ) -> Result<PathBuf, TreeError> {
        let chain = chain_above(chain_ids(below).last(), layer);
        self.ensure_one(&chain, layer, move || Ok(bytes))
    }

    /// The directories of the layers, bottom first, when all of them are there already. Cheap. A layer that removes
    /// something of those below it has two: what it removes, and what it adds.
    #[must_use]
    pub fn present(&self, layers: &[LayerRef]) -> Option<Vec<PathBuf>> {
        present_in(&self.0.dir, layers)
    }

    /// Reads a whole tree again and compares it with what was unpacked. Blocking, and as slow as the disk.
    ///
    /// # Errors
    /// [`TreeError::Altered`] when it is not the same any more, or not there.
    pub fn verify(&self, chain: &Digest) -> Result<(), TreeError> {
        let stamp = self.stamp(chain).ok_or_else(|| TreeError::Altered { chain: chain.clone() })?;
        let found = walk::list(&self.tree(chain))?.figures();
        if found == stamp.figures { Ok(()) } else { Err(TreeError::Altered { chain: chain.clone() }) }
    }

    /// Unpacks a foreign source archive (tar or tar.gz, by content) into the new directory `into`. Blocking.
    ///
    /// Files become readable and directories passable for everybody, as jails have ids of their own. On failure
    /// nothing is left at `into`.
    ///
    /// # Errors
    /// [`TreeError::Refused`] with `source_too_large`, `archive_not_readable` or `archive_entry_refused`; others when
    /// the jail or the disk fails.
    ///
    /// # Limits
    /// `caps`, a compression ratio of 200, two minutes.
    pub fn unpack_source(
        &self,
        mut archive: File,
        into: &Path,
        caps: &SourceCaps,
    ) -> Result<Unpacked, TreeError> {
        archive.rewind()?;
        make_directory(into)?;
        let result = self.fill(Archive::File(archive), into, &Order::source(caps));
        match result {
            Ok(unpacking) => {
                let figures = unpacking.extracted.figures;
                Ok(Unpacked { files: figures.files, bytes: figures.bytes })
            }
            Err(error) => {
                walk::remove_tree(into)?;
                Err(error)
            }
        }
    }

    /// Removes unfinished attempts that nobody works on, which a process that was killed has left. Blocking.
    ///
    /// # Errors
    /// [`TreeError`] when something can't be removed.
    pub fn sweep_unfinished(&self) -> Result<(), TreeError> {
        for entry in fs_err::read_dir(&self.0.dir)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                continue;
            }
            // Whoever works on it holds its lock.
            let abandoned = File::open(entry.path()).is_ok_and(|directory| {
                let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
                rustix::fs::flock(&directory, lock).is_ok()
            });
            if abandoned {
                walk::remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the trees that are not in `keep`, and unfinished attempts that nobody works on. Blocking.
    ///
    /// Gives the number of trees removed. For quiet times: a tree that a jail uses must be in `keep`.
    ///
    /// # Errors
    /// [`TreeError`] when something can't be removed.
    pub fn sweep(&self, keep: &[Digest]) -> Result<u64, TreeError> {
        let keep: HashSet<&str> = keep.iter().map(Digest::hex).collect();
        let _lock = self.lock()?;
        self.sweep_unfinished()?;
        let mut removed = 0;
        for entry in fs_err::read_dir(&self.0.dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(UNFINISHED) {
                continue;
            }
            let hex = name.strip_suffix(".json").unwrap_or(&name);
            let Ok(chain) = Digest::parse(&format!("sha256:{hex}")) else { continue };
            if keep.contains(hex) || self.busy().contains(&chain) {
                continue;
            }
            // The stamp first: without it nobody takes the rest for a tree.
            remove_file(&self.stamp_file(&chain))?;
            walk::remove_tree(&mask::of(&self.tree(&chain)))?;
            if self.tree(&chain).symlink_metadata().is_ok() {
                walk::remove_tree(&self.tree(&chain))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn tree(&self, chain: &Digest) -> PathBuf {
        self.0.dir.join(chain.hex())
    }

    fn stamp_file(&self, chain: &Digest) -> PathBuf {
        self.0.dir.join(format!("{}.json", chain.hex()))
    }

    fn stamp(&self, chain: &Digest) -> Option<Stamp> {
        Stamp::of(&self.stamp_file(chain), &self.tree(chain), chain)
    }

    fn busy(&self) -> std::sync::MutexGuard<'_, HashSet<Digest>> {
        self.0.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held while a tree is put into place or removed, by whichever process.
    fn lock(&self) -> Result<File, TreeError> {
        let path = self.0.dir.join(".lock");
        let file = fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        let file = file.into_parts().0;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .map_err(TreeError::at("lock", path))?;
        Ok(file)
    }

    fn ensure_one(
        &self,
        chain: &Digest,
        layer: &LayerRef,
        open: impl FnOnce() -> Result<Box<dyn Read + Send>, TreeError>,
    ) -> Result<PathBuf, TreeError> {
        if self.stamp(chain).is_some() {
            return Ok(self.tree(chain));
        }
        let _turn = self.turn(chain);
        if self.stamp(chain).is_some() {
            return Ok(self.tree(chain));
        }
        let attempt = self.begin()?;
        let unpacking = self.fill(Archive::Stream(open()?), &attempt.path, &self.0.order)?;
        check_places(&attempt.path)?;
        if let Some(found) = unpacking.fed.filter(|fed| *fed != layer.digest) {
            return Err(TreeError::Digest { expected: layer.digest.clone(), found });
        }
        if unpacking.extracted.diff_id != layer.diff_id {
            return Err(TreeError::DiffId {
                layer: layer.digest.clone(),
                expected: layer.diff_id.clone(),
                found: unpacking.extracted.diff_id,
            });
        }
        let stamp = Stamp {
            version: Stamp::VERSION,
            chain: chain.clone(),
            layer: layer.digest.clone(),
            diff_id: layer.diff_id.clone(),
            inode: fs_err::symlink_metadata(&attempt.path)?.ino(),
            figures: unpacking.extracted.figures,
        };
        self.commit(&attempt, &stamp, &unpacking.extracted.removed)?;
        Ok(self.tree(chain))
    }

    /// Unpacks into a directory of ours and takes over what came out.
    fn fill(
        &self,
        archive: Archive,
        into: &Path,
        order: &Order,
    ) -> Result<super::confined::Unpacking, TreeError> {
        let unpacking = self.0.extractor.run(archive, into, order)?;
        let found = walk::adopt(into)?;
        if found != unpacking.extracted.figures.entries {
            return Err(TreeError::Foreign {
                path: into.to_owned(),
                what: "it has entries that were not reported",
            });
        }
        walk::settle(into)?;
        Ok(unpacking)
    }

    fn commit(&self, attempt: &Attempt, stamp: &Stamp, removed: &[String]) -> Result<(), TreeError> {
        let _lock = self.lock()?;
        if self.stamp(&stamp.chain).is_some() {
            // Another process was faster; ours is removed with the attempt.
            return Ok(());
        }
        let tree = self.tree(&stamp.chain);
        let file = self.stamp_file(&stamp.chain);
        remove_file(&file)?;
        walk::remove_tree(&tree)?;
        mask::make(&mask::of(&tree), removed)?;
        self.0.faults.pass("trees.before_rename");
        fs_err::rename(&attempt.path, &tree)?;
        self.0.faults.pass("trees.after_rename");
        let text = serde_json::to_vec(stamp).expect("invariant: a stamp is plain data");
        let unfinished = attempt.path.with_extension("json");
        let mut out = fs_err::File::create(&unfinished)?;
        out.write_all(&text)?;
        fs_err::rename(&unfinished, &file)?;
        self.0.faults.pass("trees.after_stamp");
        Ok(())
    }

    fn begin(&self) -> Result<Attempt, TreeError> {
        loop {
            let number = self.0.attempts.fetch_add(1, Ordering::Relaxed);
            let path = self.0.dir.join(format!("{UNFINISHED}{}-{number}", std::process::id()));
            match make_directory(&path) {
                // Left by a process of the same id.
                Err(TreeError::Io(error)) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                other => other?,
            }
            let lock = File::from(walk::open_directory(&path)?);
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
                .map_err(TreeError::at("lock", &path))?;
            return Ok(Attempt { path, _lock: lock });
        }
    }

    /// Waits until no other thread of this process unpacks the same chain.
    fn turn(&self, chain: &Digest) -> Turn<'_> {
        let mut busy = self.busy();
        while busy.contains(chain) {
            busy = self.0.freed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        busy.insert(chain.clone());
        Turn { trees: self, chain: chain.clone() }
    }
}

/// The directories of layers below the root of a daemon that may be running, bottom first, when all of them are there
/// already; nothing is made. Cheap.
#[must_use]
pub fn present_below(root: &Path, layers: &[LayerRef]) -> Option<Vec<PathBuf>> {
    present_in(&root.join("trees"), layers)
}

fn present_in(dir: &Path, layers: &[LayerRef]) -> Option<Vec<PathBuf>> {
    let mut directories = Vec::with_capacity(layers.len());
    for chain in chain_ids(layers) {
        let tree = dir.join(chain.hex());
        Stamp::of(&dir.join(format!("{}.json", chain.hex())), &tree, &chain)?;
        let mask = mask::of(&tree);
        if mask.symlink_metadata().is_ok() {
            directories.push(mask);
        }
        directories.push(tree);
    }
    Some(directories)
}

/// The right of one thread to unpack a chain.
struct Turn<'a> {
    trees: &'a Trees,
    chain: Digest,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.trees.busy().remove(&self.chain);
        self.trees.0.freed.notify_all();
    }
}

/// A directory that is being filled; what is left of it goes away with this value.
struct Attempt {
    path: PathBuf,
    _lock: File,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Err(error) = walk::remove_tree(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished tree could not be removed");
        }
    }
}

/// Makes a directory that only we may enter; it must not be there yet.
/// Refuses a tree in which a place that every jail mounts over, or a program's scratch space, is no real directory: what
/// it is must not depend on where a link leads (CVE-2026-41579). A jail looks once more when it starts.
fn check_places(tree: &Path) -> Result<(), TreeError> {
    for name in ["dev", "proc", "sys", "tmp"] {
        if fs_err::symlink_metadata(tree.join(name)).is_ok_and(|found| !found.is_dir()) {
            return Err(TreeError::Refused {
                code: RefusalCode::ArchiveEntryRefused,
                message: format!("the entry `{name}` is no directory, which it must be in a root"),
            });
        }
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), TreeError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    builder.create(path).map_err(|source| {
        let kind = source.kind();
        TreeError::Io(std::io::Error::new(
            kind,
            format!("failed to create directory `{}`: {source}", path.display()),
        ))
    })
}

fn remove_file(path: &Path) -> Result<(), TreeError> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
