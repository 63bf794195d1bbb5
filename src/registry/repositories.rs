//! What operators do with repositories: make, list, set and remove them, and look into their images.

use super::blobs::event;
use super::{Registry, RetentionSummary};
use crate::access::{self, Principal};
use crate::audit;
use crate::blobs;
use crate::names::{Digest, Millis, RepoName, Tag};
use crate::repos::{
    self, Added, ImageView, Removing, Repositories, RepositorySettings, RepositoryView, RootName,
    SettingsError, Totals,
};
use crate::state::{StateError, Tx, View};

/// Why an act on a repository is refused, or fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// The name breaks the rule.
    #[error("{given:?} is no name of a repository: {rule}")]
    Name {
        /// As it was given, cut to 80 characters.
        given: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// There is none of this name.
    #[error("there is no repository {0:?}")]
    Unknown(String),
    /// There is one of this name already.
    #[error("there is a repository {0:?} already")]
    Exists(String),
    /// One of this name is being removed, and holds something still.
    #[error("a repository {0:?} is being removed and holds something still")]
    Going(String),
    /// There are as many as there may be.
    #[error("a registry has 1,000 repositories at most")]
    TooMany,
    /// Only Pantry itself writes there.
    #[error("{0:?} is Pantry's own: only Pantry itself changes it")]
    Reserved(String),
    /// It holds something.
    #[error("{name:?} holds {} images with {} tags", totals.images, totals.tags)]
    NotEmpty {
        /// The repository.
        name: String,
        /// What it holds.
        totals: Totals,
    },
    /// A setting is out of its bounds.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The image or the tag is none, or is not there.
    #[error("there is no tag {tag:?} of an image {image:?} in this repository")]
    TagUnknown {
        /// As it was given, cut to 255 characters.
        image: String,
        /// As it was given, cut to 128 characters.
        tag: String,
    },
    /// The place to go on from is none.
    #[error("`after` is not what a page of this list gave as `next`")]
    Cursor,
    /// The state failed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl RepositoryError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name { .. } => "repository_name_invalid",
            Self::Unknown(_) => "repository_unknown",
            Self::Exists(_) => "repository_exists",
            Self::Going(_) => "repository_going",
            Self::TooMany => "repositories_too_many",
            Self::Reserved(_) => "repository_reserved",
            Self::NotEmpty { .. } => "repository_not_empty",
            Self::Settings(_) => "repository_settings_invalid",
            Self::TagUnknown { .. } => "tag_unknown",
            Self::Cursor => "cursor_invalid",
            Self::State(error) => error.code(),
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unknown(_) => Some("`pantry repo list` shows those that there are"),
            Self::Exists(_) => Some("`pantry repo set` changes its settings"),
            Self::Going(_) => Some("try again when what it held is gone"),
            Self::NotEmpty { .. } => Some("`--force` removes it with everything that it holds"),
            Self::TagUnknown { .. } => Some("`pantry repo tags` lists the tags of an image"),
            Self::Reserved(_) => Some("published packages and the bundle's images live there"),
            _ => None,
        }
    }
}

/// How the removal of a repository went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedRepository {
    /// What it held.
    pub totals: Totals,
    /// How many grants on it, and on what lay below it, were taken back.
    pub grants: u64,
}

/// A tag of an image, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagView {
    /// The tag.
    pub tag: Tag,
    /// The manifest that it points to.
    pub digest: Digest,
    /// When it was set.
    pub set_at: Millis,
    /// When its manifest was asked for last, as far as known.
    pub pulled_at: Option<Millis>,
}

fn name_of(text: &str) -> Result<RootName, RepositoryError> {
    RootName::parse(text)
        .map_err(|rule| RepositoryError::Name { given: text.chars().take(80).collect(), rule })
}

fn told(who: &Principal, action: &str, name: &str, why: String) -> audit::Event {
    audit::Event {
        who: who.label(),
        action: action.to_owned(),
        subject: name.to_owned(),
        outcome: "done".to_owned(),
        why,
    }
}

impl Registry {
    /// The names of the repositories in memory.
    #[must_use]
    pub fn names(&self) -> &Repositories {
        &self.0.repositories
    }

    /// Reads which repositories there are, and makes those of a fresh root; to be called before requests come.
    ///
    /// # Errors
    /// [`StateError`] when the state fails.
    pub async fn load(&self) -> Result<(), StateError> {
        blobs::count_once(&self.0.state).await?;
        self.0.repositories.load(self.0.clock.now()).await
    }

    /// The repositories after `after` by name.
    ///
    /// # Errors
    /// [`RepositoryError::State`].
    pub async fn repositories(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<RepositoryView>, RepositoryError> {
        let read = move |view: &View<'_>| repos::repositories(view, after.as_deref(), limit);
        Ok(self.0.state.read(read).await?)
    }

    /// One repository with what it holds.
    ///
    /// # Errors
    /// [`RepositoryError::Unknown`].
    pub async fn repository(&self, name: &str) -> Result<RepositoryView, RepositoryError> {
        let asked = name.to_owned();
        let found = self.0.state.read(move |view| repos::repository(view, &asked)).await?;
        found.ok_or_else(|| unknown(name))
    }

    /// Makes a repository; with `dry_run` only tells whether it could.
    ///
    /// # Errors
    /// [`RepositoryError`]; then there is no new one.
    pub async fn add_repository(
        &self,
        who: &Principal,
        name: &str,
        settings: &RepositorySettings,
        dry_run: bool,
    ) -> Result<RepositoryView, RepositoryError> {
        let root = name_of(name)?;
        settings.check()?;
        let now = self.0.clock.now();
        if dry_run {
            let asked = name.to_owned();
            if self.0.state.read(move |view| repos::repository(view, &asked)).await?.is_some() {
                return Err(RepositoryError::Exists(name.to_owned()));
            }
            return Ok(RepositoryView {
                name: name.to_owned(),
                reserved: false,
                created_at: now,
                settings: settings.clone(),
                totals: Totals::default(),
            });
        }
        let event = told(who, "repository.add", name, text(settings));
        let wanted = settings.clone();
        let added = self
            .0
            .state
            .write(move |tx| {
                let added = repos::add_repository(tx, now, &root, &wanted)?;
                if added == Added::Made {
                    audit::append(tx, now, &event)?;
                }
                Ok(added)
            })
            .await
            .inspect_err(|_| self.0.repositories.doubt(name))?;
        match added {
            Added::Made => {}
            Added::Exists => {
                // Whoever made it may have gone before it was in memory.
                self.0.repositories.reload().await?;
                return Err(RepositoryError::Exists(name.to_owned()));
            }
            Added::Going => return Err(RepositoryError::Going(name.to_owned())),
            Added::TooMany => return Err(RepositoryError::TooMany),
        }
        self.0.repositories.reload().await.inspect_err(|_| self.0.repositories.doubt(name))?;
        self.repository(name).await
    }

    /// Replaces the settings of a repository; with `dry_run` only tells whether they could be.
    ///
    /// # Errors
    /// [`RepositoryError`]; then nothing has changed.
    pub async fn set_repository(
        &self,
        who: &Principal,
        name: &str,
        settings: &RepositorySettings,
        dry_run: bool,
    ) -> Result<RepositoryView, RepositoryError> {
        if repos::is_reserved(name) {
            return Err(RepositoryError::Reserved(name.to_owned()));
        }
        settings.check()?;
        if dry_run {
            let found = self.repository(name).await?;
            return Ok(RepositoryView { settings: settings.clone(), ..found });
        }
        let event = told(who, "repository.set", name, text(settings));
        let (asked, wanted) = (name.to_owned(), settings.clone());
        let set = move |tx: &mut Tx<'_>, _: Millis| repos::set_repository(tx, &asked, &wanted);
        if self.0.write_told(event, set).await? { self.repository(name).await } else { Err(unknown(name)) }
    }

    /// Removes a repository with all grants on it, and with `force` everything that it holds, a part a transaction: from the first one on it
    /// is not seen any more. What a crash leaves goes with the next start.
    ///
    /// # Errors
    /// [`RepositoryError`]; the refusals leave everything as it was.
    pub async fn remove_repository(
        &self,
        who: &Principal,
        name: &str,
        force: bool,
        dry_run: bool,
    ) -> Result<RemovedRepository, RepositoryError> {
        let found = self.repository(name).await?;
        let who = who.clone();
        let (now, asked) = (self.0.clock.now(), name.to_owned());
        let (removing, grants) = if dry_run {
            let read = move |view: &View<'_>| {
                let removing = repos::may_remove(view, &asked, force)?;
                Ok::<_, StateError>((removing, access::grants_below(view, &asked)?))
            };
            self.0.state.read(read).await?
        } else {
            self.0
                .state
                .write(move |tx| {
                    let removing = repos::begin_removal(tx, now, &asked, force)?;
                    let mut grants = 0;
                    if removing == Removing::Begun {
                        grants = access::revoke_below(tx, &asked)?;
                        let forced = if force { "forced, " } else { "" };
                        let why = format!("{forced}grants revoked: {grants}");
                        audit::append(tx, now, &told(&who, "repository.remove", &asked, why))?;
                    }
                    Ok::<_, StateError>((removing, grants))
                })
                .await
                // It may be going though nobody could say so: what a client brings now would go with it.
                .inspect_err(|_| self.0.repositories.doubt(name))?
        };
        match removing {
            Removing::Begun => {}
            Removing::Unknown => return Err(unknown(name)),
            Removing::Reserved => return Err(RepositoryError::Reserved(name.to_owned())),
            Removing::NotEmpty(totals) => {
                return Err(RepositoryError::NotEmpty { name: name.to_owned(), totals });
            }
        }
        if !dry_run {
            self.0.repositories.reload().await.inspect_err(|_| self.0.repositories.doubt(name))?;
            self.drain(name).await?;
        }
        Ok(RemovedRepository { totals: found.totals, grants })
    }

    /// The images of a repository after `after`.
    ///
    /// # Errors
    /// [`RepositoryError::Unknown`].
    pub async fn images(
        &self,
        name: &str,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<ImageView>, RepositoryError> {
        let root = self.repository(name).await?.name;
        let read = move |view: &View<'_>| repos::images(view, &root, after.as_deref(), limit);
        Ok(self.0.state.read(read).await?)
    }

    /// The tags of an image (its whole name) after `after`.
    ///
    /// # Errors
    /// [`RepositoryError::Unknown`]; an image that is not there has none.
    pub async fn image_tags(
        &self,
        name: &str,
        image: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<TagView>, RepositoryError> {
        self.repository(name).await?;
        let unknown = || tag_unknown(image, after.unwrap_or_default());
        let repo = RepoName::parse(image).ok().filter(|repo| repo.root() == name).ok_or_else(unknown)?;
        let after = after.map(Tag::parse).transpose().map_err(|_| RepositoryError::Cursor)?;
        let pulls = std::sync::Arc::clone(&self.0.pulls);
        let read = move |view: &View<'_>| {
            let pending = |repo: &RepoName, digest: &Digest| pulls.last(repo, digest);
            repos::tags_page(view, &repo, &repos::Newest::default(), &pending, after.as_ref(), limit)
        };
        let page = self.0.state.read(read).await?;
        let view = |found: repos::Surveyed| TagView {
            tag: found.tag,
            digest: found.digest,
            set_at: found.set_at,
            pulled_at: found.pulled_at,
        };
        Ok(page.into_iter().map(view).collect())
    }

    /// Removes a tag of an image (its whole name), immutable or not; with `dry_run` only tells whether it is there.
    ///
    /// # Errors
    /// [`RepositoryError::TagUnknown`], [`RepositoryError::Reserved`].
    pub async fn delete_image_tag(
        &self,
        who: &Principal,
        name: &str,
        image: &str,
        tag: &str,
        dry_run: bool,
    ) -> Result<(), RepositoryError> {
        if repos::is_reserved(name) {
            return Err(RepositoryError::Reserved(name.to_owned()));
        }
        self.repository(name).await?;
        let unknown = || tag_unknown(image, tag);
        let repo = RepoName::parse(image).ok().filter(|repo| repo.root() == name).ok_or_else(unknown)?;
        let parsed = Tag::parse(tag).map_err(|_| unknown())?;
        let event = event(who, "registry.tag.delete", &repo, tag);
        let there = if dry_run {
            let reference = crate::names::Reference::Tag(parsed);
            self.0.state.read(move |view| repos::get_manifest(view, &repo, &reference)).await?.is_some()
        } else {
            self.0.write_told(event, move |tx, _| repos::delete_tag(tx, &repo, &parsed)).await?
        };
        if there { Ok(()) } else { Err(unknown()) }
    }

    /// Applies the retention rules of a repository now.
    ///
    /// # Errors
    /// [`RepositoryError::Unknown`].
    pub async fn apply_retention(
        &self,
        who: &Principal,
        name: &str,
    ) -> Result<RetentionSummary, RepositoryError> {
        let root = self.repository(name).await?.name;
        tracing::info!(repository = %root, by = %who.label(), "retention is applied on request");
        Ok(self.retention_of(&root).await?)
    }
}

fn unknown(name: &str) -> RepositoryError {
    RepositoryError::Unknown(name.chars().take(255).collect())
}

fn tag_unknown(image: &str, tag: &str) -> RepositoryError {
    RepositoryError::TagUnknown {
        image: image.chars().take(255).collect(),
        tag: tag.chars().take(128).collect(),
    }
}

/// The settings as the audit log tells them.
fn text(settings: &RepositorySettings) -> String {
    serde_json::to_string(settings).unwrap_or_default()
}
