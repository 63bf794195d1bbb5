//! What the server has acknowledged: what must be there, what may be gone, what must not be there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest as _, Sha256, Sha512};

use super::fates::Doubt;
use super::random::Dice;

/// Between two clocks that count the same grace, one of them in whole milliseconds.
const MARGIN: Duration = Duration::from_millis(200);
/// Content of at most this many bytes lives in the state file.
const INLINE_BYTES: usize = 32 * 1024;

fn hex(hash: &[u8]) -> String {
    let digits: Vec<String> = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// The SHA-256 of some bytes, under which they lie.
pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// The other name that the same bytes may have.
pub fn long_digest_of(bytes: &[u8]) -> String {
    format!("sha512:{}", hex(&Sha512::digest(bytes)))
}

/// Whether a digest is one of these bytes.
pub fn is_name_of(digest: &str, bytes: &[u8]) -> bool {
    let found = if digest.starts_with("sha512:") { long_digest_of(bytes) } else { digest_of(bytes) };
    found == digest
}

/// Bytes that can be made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub seed: u64,
    pub size: usize,
    pub sha256: String,
}

impl Content {
    pub fn new(seed: u64, size: usize) -> Self {
        let sha256 = digest_of(&Dice::new(seed).bytes(size));
        Self { seed, size, sha256 }
    }

    pub fn bytes(&self) -> Bytes {
        Dice::new(self.seed).bytes(self.size).into()
    }

    /// The name of its file, when it has one.
    pub fn file(&self) -> Option<&String> {
        (self.size > INLINE_BYTES).then_some(&self.sha256)
    }
}

/// A blob that a repository was said to hold.
pub struct Blob {
    pub content: Content,
    /// When the server was last asked to keep it: uploaded, mounted, found by HEAD, or left by its last manifest.
    pub since: Instant,
}

/// A manifest as it was made.
pub struct Document {
    pub bytes: Bytes,
    pub media_type: &'static str,
    /// The blobs that it names.
    pub blobs: Vec<String>,
    /// The manifests that it lists.
    pub children: Vec<String>,
    /// The manifest that it is about, and as what it is listed there.
    pub subject: Option<String>,
    pub artifact_type: Option<&'static str>,
}

/// A manifest that was acknowledged.
#[derive(Clone)]
pub struct Manifest {
    pub document: Arc<Document>,
    /// The files that it keeps, also when the repository no longer holds their blobs.
    pub files: BTreeSet<String>,
}

/// What is set for a repository.
#[derive(Clone, Default)]
pub struct Rules {
    /// The first segment of its name, when nothing else lies below it.
    pub root: Option<String>,
    /// Manifests come before what they name.
    pub sparse: bool,
    /// So many tags are kept, beside those that are always.
    pub keep_last: Option<usize>,
}

/// One repository, written by one worker alone.
#[derive(Default)]
pub struct Repository {
    pub name: String,
    pub rules: Rules,
    pub blobs: BTreeMap<String, Blob>,
    pub manifests: BTreeMap<String, Manifest>,
    pub tags: BTreeMap<String, String>,
    /// The tags as they were set, oldest first, and the fading ones among them.
    pub order: Vec<String>,
    /// Tags and manifests that were deleted and not put again.
    pub gone: BTreeSet<String>,
    /// What manifests were ever about.
    pub subjects: BTreeSet<String>,
    /// What an index ever listed, and what was ever about another.
    pub bound: BTreeSet<String>,
    /// Tags that retention may have removed or will, and what they point to.
    pub fading: BTreeMap<String, String>,
    /// Manifests that retention may have removed or will.
    pub doubtful: BTreeMap<String, Doubt>,
}

impl Repository {
    pub fn new(name: String, rules: Rules) -> Self {
        Self { name, rules, ..Self::default() }
    }

    /// Whether a manifest keeps the blob.
    pub fn keeps(&self, digest: &str) -> bool {
        self.manifests.values().any(|held| held.document.blobs.iter().any(|kept| kept == digest))
    }

    /// Blobs that no manifest keeps, oldest first.
    pub fn loose(&self) -> Vec<String> {
        let mut loose: Vec<_> = self.blobs.iter().filter(|(digest, _)| !self.keeps(digest)).collect();
        loose.sort_by_key(|(_, blob)| blob.since);
        loose.into_iter().map(|(digest, _)| digest.clone()).collect()
    }

    /// Blobs that a manifest names and the repository does not hold.
    pub fn owed(&self) -> BTreeSet<String> {
        let named = self.manifests.values().flat_map(|held| &held.document.blobs);
        named.filter(|digest| !self.blobs.contains_key(*digest)).cloned().collect()
    }

    /// Whether a blob must still have been there when an answer came: it is kept, or its grace had not ended.
    pub fn must_hold(&self, digest: &str, answered: Instant, grace: Duration) -> bool {
        let Some(blob) = self.blobs.get(digest) else { return false };
        self.keeps(digest) || answered.saturating_duration_since(blob.since) + MARGIN < grace
    }

    /// A blob is there: pushed, mounted, or vouched for by what was answered.
    pub fn arrive(&mut self, digest: &str, content: &Content, asked: Instant) {
        self.blobs
            .entry(digest.to_owned())
            .or_insert_with(|| Blob { content: content.clone(), since: asked });
        self.renew(digest, asked);
        let Some(file) = content.file() else { return };
        let doubtful = self.doubtful.values_mut().map(|doubt| &mut doubt.manifest);
        for held in self.manifests.values_mut().chain(doubtful) {
            if held.document.blobs.iter().any(|named| named == digest) {
                held.files.insert(file.clone());
            }
        }
    }

    /// Takes note that the server was asked at this time to keep the blob.
    pub fn renew(&mut self, digest: &str, asked: Instant) {
        if let Some(blob) = self.blobs.get_mut(digest) {
            blob.since = blob.since.max(asked);
        }
    }

    /// A manifest was acknowledged, with what it names as far as `blobs` has it.
    pub fn accept(&mut self, digest: &str, document: &Arc<Document>, tag: Option<&str>, asked: Instant) {
        let before = self.doubtful.remove(digest).map(|doubt| doubt.manifest);
        let before = before.or_else(|| self.manifests.remove(digest));
        let mut files = before.map(|held| held.files).unwrap_or_default();
        let here = document.blobs.iter().filter_map(|name| self.blobs.get(name));
        files.extend(here.filter_map(|blob| blob.content.file().cloned()));
        self.manifests.insert(digest.to_owned(), Manifest { document: Arc::clone(document), files });
        self.gone.remove(digest);
        if !self.rules.sparse {
            // It was not refused, so what it lists was there, and is kept from now on.
            for child in &document.children {
                if let Some(doubt) = self.doubtful.remove(child) {
                    self.manifests.insert(child.clone(), doubt.manifest);
                }
            }
        }
        self.bound.extend(document.children.iter().cloned());
        if let Some(subject) = &document.subject {
            self.subjects.insert(subject.clone());
            self.bound.insert(digest.to_owned());
        }
        if let Some(tag) = tag {
            self.set_tag(tag, digest);
        }
        self.weigh(asked);
    }

    fn set_tag(&mut self, tag: &str, digest: &str) {
        self.revive(tag);
        self.order.retain(|other| other != tag);
        self.order.push(tag.to_owned());
        self.tags.insert(tag.to_owned(), digest.to_owned());
        self.gone.remove(tag);
    }

    pub fn forget_tag(&mut self, tag: &str, asked: Instant) {
        self.order.retain(|other| other != tag);
        self.tags.remove(tag);
        self.gone.insert(tag.to_owned());
        self.weigh(asked);
    }

    /// Forgets a manifest and its tags; its blobs are loose from when the server was first asked.
    pub fn forget_manifest(&mut self, digest: &str, asked: Instant) {
        let Some(held) = self.manifests.remove(digest) else { return };
        self.tags.retain(|_, target| target != digest);
        self.fading.retain(|_, target| target != digest);
        self.order.retain(|tag| self.tags.contains_key(tag) || self.fading.contains_key(tag));
        for kept in &held.document.blobs {
            self.renew(kept, asked);
        }
        self.gone.insert(digest.to_owned());
        self.weigh(asked);
    }

    /// Forgets everything: the repository was removed.
    pub fn forget_all(&mut self) {
        self.gone.extend(std::mem::take(&mut self.tags).into_keys());
        self.gone.extend(std::mem::take(&mut self.manifests).into_keys());
        self.gone.extend(std::mem::take(&mut self.doubtful).into_keys());
        self.gone.extend(std::mem::take(&mut self.fading).into_keys());
        self.order.clear();
        self.blobs.clear();
    }

    /// The manifests that are about this one and must be listed, and those that may be.
    pub fn referrers(&self, subject: &str) -> (BTreeMap<&String, &Document>, BTreeSet<&String>) {
        let about = |document: &Document| document.subject.as_deref() == Some(subject);
        let must = self.manifests.iter().filter(|(_, held)| about(&held.document));
        let may = self.doubtful.iter().filter(|(_, doubt)| about(&doubt.manifest.document));
        (
            must.map(|(digest, held)| (digest, &*held.document)).collect(),
            may.map(|(digest, _)| digest).collect(),
        )
    }
}
