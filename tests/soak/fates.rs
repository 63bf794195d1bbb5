//! What retention does to a repository, and when.
//!
//! The server applies the rules once a second, the worker goes on meanwhile: between the request from which on a tag
//! may go and the pass that takes it, nobody outside knows whether it is there. Such tags are *fading*, and the
//! manifests that may go with them *doubtful*: neither there nor gone, until somebody looks after a pass.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::model::{Manifest, Repository};

/// Tags that the rules keep by their name.
pub const ALWAYS: &str = "t3*";

/// Whether the rules keep the tag by its name.
pub fn is_always_kept(tag: &str) -> bool {
    tag.starts_with("t3")
}

/// A manifest that retention may have removed or will.
pub struct Doubt {
    pub manifest: Manifest,
    /// Nothing but its last tag keeps it, or ever did: it goes with that.
    pub certain: bool,
}

impl Repository {
    /// Finds what the rules let go of from now on; `asked` is before the request that made it so.
    pub fn weigh(&mut self, asked: Instant) {
        let Some(keep) = self.rules.keep_last else { return };
        let (mut newer, mut just_faded) = (0, BTreeSet::new());
        for tag in self.order.iter().rev() {
            let Some(digest) = self.tags.get(tag).cloned() else { continue };
            if newer >= keep && !is_always_kept(tag) {
                self.tags.remove(tag);
                just_faded.insert(digest.clone());
                self.fading.insert(tag.clone(), digest);
            }
            newer += 1;
        }
        while let Some(digest) = self.next_doubtful() {
            let Some(manifest) = self.manifests.remove(&digest) else { break };
            for kept in &manifest.document.blobs {
                self.renew(kept, asked);
            }
            let certain = just_faded.contains(&digest) && !self.bound.contains(&digest);
            self.doubtful.insert(digest, Doubt { manifest, certain });
        }
    }

    /// A manifest that may go with an image, and that nothing keeps which must be there.
    fn next_doubtful(&self) -> Option<String> {
        let lists = |held: &Manifest, digest: &String| held.document.children.contains(digest);
        let found = self.manifests.iter().find(|(digest, held)| {
            let subject = held.document.subject.as_ref();
            let may_go = self.fading.values().any(|target| target == *digest)
                || self.doubtful.values().any(|doubt| lists(&doubt.manifest, digest))
                || subject.is_some_and(|subject| self.doubtful.contains_key(subject));
            may_go
                && !self.tags.values().any(|target| target == *digest)
                && !self.manifests.values().any(|other| lists(other, digest))
                && !subject.is_some_and(|subject| self.manifests.contains_key(subject))
        });
        found.map(|(digest, _)| digest.clone())
    }

    /// A tag that is listed though no rule keeps it.
    pub fn overdue(&self, listed: &BTreeSet<String>) -> Option<&String> {
        let keep = self.rules.keep_last?;
        let listed = self.order.iter().rev().filter(|tag| listed.contains(*tag));
        listed.skip(keep).find(|tag| !is_always_kept(tag))
    }

    /// A fading tag is set again: whether what it pointed to went with it is open.
    pub fn revive(&mut self, tag: &str) {
        let Some(digest) = self.fading.remove(tag) else { return };
        if let Some(doubt) = self.doubtful.get_mut(&digest) {
            doubt.certain = false;
        }
    }

    /// After a pass: the fading tags that are still there are kept ones, the others are gone. Gives the former, with
    /// what they point to.
    pub fn settle_tags(&mut self, listed: &BTreeSet<String>) -> BTreeMap<String, String> {
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.fading).into_iter().partition(|(tag, _)| listed.contains(tag));
        self.tags.extend(kept.clone());
        self.order.retain(|tag| !gone.contains_key(tag));
        self.gone.extend(gone.into_keys());
        kept
    }

    /// After a pass: a doubtful manifest was looked for, and is there or gone for good.
    pub fn settle(&mut self, digest: &str, found: bool) {
        let Some(doubt) = self.doubtful.remove(digest) else { return };
        if found {
            self.manifests.insert(digest.to_owned(), doubt.manifest);
        } else {
            self.gone.insert(digest.to_owned());
        }
    }
}
