//! Tags and manifests away; and whether they may go.
//!
//! A manifest that has an immutable tag may not. It may have any number of tags, and no transaction may look through
//! them all: while one runs, nobody else writes. Those of a manifest with more than a page are looked through before, and
//! the transaction only makes sure that none was set meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::blobs::event;
use super::manifests::{parse_asked, unknown};
use super::{Registry, RegistryError};
use crate::access::{Principal, Right};
use crate::names::{Digest, Reference, RepoName, Tag};
use crate::repos::{self, ImmutableTag, RepositorySettings};
use crate::state::StateError;
use crate::{audit, state};

/// How often the tags of a manifest are looked through for one request, each time after the last look was overtaken.
const LOOKS: usize = 3;
/// Manifests are counted in so many classes.
const CLASSES: usize = 64;

/// How often manifests were put since the start, which is when they get tags.
pub(super) struct Taggings([AtomicU64; CLASSES]);

impl Default for Taggings {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Taggings {
    /// To be called in each transaction that gives the manifest tags.
    pub(super) fn note(&self, digest: &Digest) {
        self.of(digest).fetch_add(1, Ordering::Relaxed);
    }

    /// In a transaction: another number than in an earlier one, if the manifest was given tags between the two.
    fn count(&self, digest: &Digest) -> u64 {
        self.of(digest).load(Ordering::Relaxed)
    }

    fn of(&self, digest: &Digest) -> &AtomicU64 {
        let class = digest.hex().bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31) + usize::from(byte));
        &self.0[class % CLASSES]
    }
}

/// What a look through all tags of a manifest was begun with, and what it found.
#[derive(Clone, Debug)]
struct Look {
    settings: RepositorySettings,
    /// [`Taggings::count`] in a transaction before the look.
    taggings: u64,
    found: Option<Tag>,
}

/// How an attempt to delete ended.
enum Attempt {
    Done,
    Unknown,
    Fixed(Tag),
    /// The tags of the manifest must be looked through, or once more.
    Look(Look),
}

impl Registry {
    /// Removes a tag, or by digest a manifest with all its tags.
    ///
    /// # Errors
    /// [`RegistryError::ManifestUnknown`] when there is none; [`RegistryError::TagImmutable`];
    /// [`RegistryError::Tagged`].
    pub async fn delete_manifest(
        &self,
        who: &Principal,
        name: &str,
        reference: &str,
    ) -> Result<(), RegistryError> {
        let repo = self.deletable(who, name)?;
        let asked = parse_asked(&repo, reference)?;
        let event = event(who, "registry.manifest.delete", &repo, reference);
        let administers = who.may_in(Right::Admin, &repo);
        self.0.faults.pass("registry.manifest-delete.before-record");
        let mut look = None;
        for left in (0..=LOOKS).rev() {
            let attempt = self.try_to_delete(&repo, &asked, administers, look.take(), event.clone()).await?;
            self.0.faults.pass("registry.manifest-delete.after-record");
            match (attempt, &asked) {
                (Attempt::Done, _) => {
                    // It is gone for everybody; what is left of it goes on also when the client stops waiting.
                    let (registry, repo) = (self.clone(), repo.clone());
                    let rest = tokio::spawn(async move { registry.finish_removals(Some(&repo)).await });
                    return Ok(rest.await.unwrap_or(Err(StateError::Closed))?);
                }
                (Attempt::Fixed(tag), _) => return Err(RegistryError::TagImmutable { tag }),
                (Attempt::Look(_), _) if left == 0 => return Err(RegistryError::Tagged),
                (Attempt::Look(begun), Reference::Digest(digest)) => {
                    look = Some(self.look_through(&repo, digest, begun).await?);
                }
                (Attempt::Unknown | Attempt::Look(_), _) => return Err(unknown(&repo, reference)),
            }
        }
        Err(RegistryError::Tagged)
    }

    async fn try_to_delete(
        &self,
        repo: &RepoName,
        asked: &Reference,
        administers: bool,
        look: Option<Look>,
        event: audit::Event,
    ) -> Result<Attempt, StateError> {
        let (repo, asked, now) = (repo.clone(), asked.clone(), self.0.clock.now());
        let taggings = Arc::clone(&self.0.taggings);
        let act = move |tx: &mut state::Tx<'_>| {
            let settings = repos::settings(tx, repo.root())?;
            let fixed = match &asked {
                _ if administers => None,
                Reference::Tag(tag) => settings.is_immutable(tag).then(|| tag.clone()),
                Reference::Digest(digest) => {
                    match repos::immutable_tag_of(tx, &repo, digest, &settings, None)? {
                        ImmutableTag::Is(tag) => Some(tag),
                        ImmutableTag::None => None,
                        ImmutableTag::NotUpTo(_) => {
                            let taggings = taggings.count(digest);
                            match &look {
                                Some(look) if look.settings == settings && look.taggings == taggings => {
                                    look.found.clone()
                                }
                                _ => return Ok(Attempt::Look(Look { settings, taggings, found: None })),
                            }
                        }
                    }
                }
            };
            if let Some(tag) = fixed
                && repos::get_manifest(tx, &repo, &asked)?.is_some()
            {
                return Ok(Attempt::Fixed(tag));
            }
            let deleted = match &asked {
                Reference::Tag(tag) => repos::delete_tag(tx, &repo, tag)?,
                Reference::Digest(digest) => repos::delete_manifest(tx, now, &repo, digest)?,
            };
            if deleted {
                audit::append(tx, now, &event)?;
            }
            Ok(if deleted { Attempt::Done } else { Attempt::Unknown })
        };
        self.0.state.write(act).await
    }

    /// Looks through the tags of the manifest off the thread that writes, a page a time.
    async fn look_through(&self, repo: &RepoName, digest: &Digest, begun: Look) -> Result<Look, StateError> {
        let mut after = None;
        loop {
            let (repo, digest, settings) = (repo.clone(), digest.clone(), begun.settings.clone());
            let page = move |view: &state::View<'_>| {
                repos::immutable_tag_of(view, &repo, &digest, &settings, after.as_ref())
            };
            match self.0.state.read(page).await? {
                ImmutableTag::NotUpTo(last) => after = Some(last),
                ImmutableTag::Is(tag) => return Ok(Look { found: Some(tag), ..begun }),
                ImmutableTag::None => return Ok(begun),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::{Conditions, PutManifest, RegistryParts};
    use super::*;
    use crate::access::Role;
    use crate::blobs::Blobs;
    use crate::config::RegistryConfig;
    use crate::names::{Faults, ManualClock, Millis, SystemRandom};
    use crate::repos::tests::put_settings;
    use crate::state::{MAX_SCAN_ROWS, State};

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const DOCUMENT: &[u8] =
        br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    const WHO: Principal = Principal::Peer { uid: 0, gid: 0, role: Role::Administrator };

    async fn registry(folder: &tempfile::TempDir) -> Registry {
        let state = State::open(&folder.path().join("state.redb"), Faults::none()).unwrap();
        let clock = Arc::new(ManualClock::at(Millis(1_700_000_000_000)));
        let random = Arc::new(SystemRandom);
        let blobs =
            Blobs::open(folder.path(), state.clone(), clock.clone(), random, Faults::none()).await.unwrap();
        Registry::new(RegistryParts {
            state,
            blobs,
            clock,
            faults: Faults::none(),
            config: RegistryConfig { default_repository: None, delete: true },
            manifest_cap_bytes: 1 << 20,
            grace: Duration::from_hours(1),
        })
    }

    async fn fix(registry: &Registry, pattern: &str) {
        let settings: RepositorySettings =
            serde_json::from_value(serde_json::json!({"immutable_tags": [pattern]})).unwrap();
        let put = move |tx: &mut state::Tx<'_>| put_settings(tx, "local", &settings);
        registry.0.state.write(put).await.unwrap();
    }

    async fn tag(registry: &Registry, tags: &[String]) {
        let digest = Digest::of(DOCUMENT).to_string();
        let bytes = Bytes::from_static(DOCUMENT);
        let (content_type, conditions) = (Some(INDEX), Conditions::default());
        let put = PutManifest { reference: &digest, tags, content_type, conditions, bytes };
        registry.put_manifest(&WHO, "local/app", put).await.unwrap();
    }

    /// As somebody who administers nothing.
    async fn attempt(registry: &Registry, look: Option<Look>) -> Attempt {
        let digest = Digest::of(DOCUMENT);
        let repo = RepoName::parse("local/app").unwrap();
        let deleted = event(&WHO, "registry.manifest.delete", &repo, &digest.to_string());
        registry.try_to_delete(&repo, &Reference::Digest(digest), false, look, deleted).await.unwrap()
    }

    async fn look(registry: &Registry, begun: Attempt) -> Look {
        let Attempt::Look(begun) = begun else { panic!("nothing is to be looked through") };
        let repo = RepoName::parse("local/app").unwrap();
        registry.look_through(&repo, &Digest::of(DOCUMENT), begun).await.unwrap()
    }

    #[tokio::test]
    async fn more_tags_than_a_page_are_looked_through_outside_of_the_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(&folder).await;
        fix(&registry, "*-final").await;
        let tags: Vec<String> = (0..2 * MAX_SCAN_ROWS + 100).map(|n| format!("build-{n:05}")).collect();
        for some in tags.chunks(100) {
            tag(&registry, some).await;
        }
        let looked = look(&registry, attempt(&registry, None).await).await;
        assert_eq!(looked.found, None);

        // A tag that was set since, and other settings, overtake the look.
        tag(&registry, &["z-final".to_owned()]).await;
        let begun = attempt(&registry, Some(looked.clone())).await;
        let looked = look(&registry, begun).await;
        assert_eq!(looked.found.as_ref().map(Tag::as_str), Some("z-final"));
        assert!(
            matches!(attempt(&registry, Some(looked.clone())).await, Attempt::Fixed(tag) if tag.as_str() == "z-final")
        );
        fix(&registry, "*-last").await;
        let looked = look(&registry, attempt(&registry, Some(looked)).await).await;
        assert!(matches!(attempt(&registry, Some(looked)).await, Attempt::Done));
        assert!(matches!(attempt(&registry, None).await, Attempt::Look(_) | Attempt::Unknown));
    }

    #[tokio::test]
    async fn few_tags_need_no_look() {
        let folder = tempfile::tempdir().unwrap();
        let registry = registry(&folder).await;
        fix(&registry, "v*").await;
        tag(&registry, &["latest".to_owned(), "v1".to_owned()]).await;
        assert!(matches!(attempt(&registry, None).await, Attempt::Fixed(tag) if tag.as_str() == "v1"));
        fix(&registry, "w*").await;
        assert!(matches!(attempt(&registry, None).await, Attempt::Done));
        assert!(matches!(attempt(&registry, None).await, Attempt::Unknown));
    }
}
