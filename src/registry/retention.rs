//! Retention as a pass over the images, a page at a time, and its preview.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::Registry;
use super::pulls::Flush;
use crate::audit;
use crate::names::{Digest, Millis, RepoName, Tag};
use crate::repos::{
    self, Newest, NewestBuilder, Removal, Removed, RepositorySettings, Surveyed, SurveyedManifest, Verdict,
};
use crate::state::{StateError, View};

/// One call looks at this many images at most,
const IMAGES: usize = 200;
/// and begins no further one after so many tags and manifests.
const ROWS: u64 = 2_000;
/// One snapshot reads this many tags or manifests with their facts,
const PAGE: usize = 200;
/// and this many for their times alone.
const SURVEY_PAGE: usize = 1_000;
/// One transaction removes this many tags or manifests, with what lives with them.
const BATCH: usize = 25;
/// A part of a pass that only looks tells so many by name.
const LINES: usize = 100;
/// An image whose tags move all the time is left to the next pass after so many attempts.
const ATTEMPTS: usize = 3;
/// A page of the preview is answered after so many reads, full or not.
const PREVIEW_STEPS: usize = 100;

/// What a part of a pass found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct RetentionSummary {
    /// Images with rules that were looked at.
    pub images: u64,
    /// Their tags, and their manifests without a tag, that were judged.
    pub judged: u64,
    /// Tags that were removed.
    pub tags: u64,
    /// Manifests that were removed.
    pub manifests: u64,
}

impl RetentionSummary {
    fn removed(&mut self, removed: &Removed) {
        self.tags += removed.tags.len() as u64;
        self.manifests += removed.manifests;
    }
}

/// What would become of a tag, or of a manifest without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct RetentionEntry {
    /// The whole name of the image.
    pub image: String,
    /// The tag; absent for a manifest without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The manifest.
    pub digest: String,
    /// Whether it stays.
    pub keep: bool,
    /// Why: `no_rule`, `immutable`, `keep_last`, `keep_tags`, `used_lately`, `with_image`, `in_index`; or
    /// `no_rule_keeps_it`, `untagged`.
    pub reason: &'static str,
    /// When the tag was set, or the manifest put.
    pub set_at: String,
    /// When the manifest was asked for last, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulled_at: Option<String>,
}

/// What a pass does with what no rule keeps.
enum Doing<'a> {
    Remove,
    /// The first of it is told.
    Look(&'a mut Vec<String>),
}

/// Where a preview goes on.
enum Step {
    Image { after: Option<String> },
    Tags { image: RepoName, after: Option<Tag>, newest: Newest },
    Manifests { image: RepoName, after: Option<Digest> },
}

impl Step {
    /// *Shape*: `<image>`, `<image>,t,<tag>,<millis>,<tag>` or `<image>,m,<digest>`.
    fn cursor(&self) -> Option<String> {
        Some(match self {
            Self::Image { after } => after.clone()?,
            Self::Tags { image, after, newest } => {
                let after = after.as_ref().map_or("", Tag::as_str);
                let (at, tag) = newest
                    .threshold()
                    .map_or((String::new(), ""), |(at, tag)| (at.0.to_string(), tag.as_str()));
                format!("{image},t,{after},{at},{tag}")
            }
            Self::Manifests { image, after } => {
                format!("{image},m,{}", after.as_ref().map(ToString::to_string).unwrap_or_default())
            }
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(',').collect();
        Some(match parts.as_slice() {
            [image] => Self::Image { after: Some(RepoName::parse(image).ok()?.to_string()) },
            [image, "t", after, at, tag] => Self::Tags {
                image: RepoName::parse(image).ok()?,
                after: if after.is_empty() { None } else { Some(Tag::parse(after).ok()?) },
                newest: Newest::from_threshold(if at.is_empty() {
                    None
                } else {
                    Some((Millis(at.parse().ok()?), Tag::parse(tag).ok()?))
                }),
            },
            [image, "m", after] => Self::Manifests {
                image: RepoName::parse(image).ok()?,
                after: if after.is_empty() { None } else { Some(Digest::parse(after).ok()?) },
            },
            _ => return None,
        })
    }
}

impl Registry {
    /// Applies the retention rules of all repositories to the next images after `cursor`, and goes on with removals that
    /// are not finished; gives the cursor of the part after it, `None` at the end.
    ///
    /// Each transaction is bounded and judges again what it removes. Repeating a part is harmless.
    ///
    /// # Errors
    /// [`StateError`] when the state fails.
    pub async fn retention_page(
        &self,
        cursor: Option<String>,
    ) -> Result<(RetentionSummary, Option<String>), StateError> {
        if cursor.is_none() {
            self.resume_removals().await?;
        }
        self.part(cursor, &mut Doing::Remove).await
    }

    /// As [`Registry::retention_page`], only looking: what would be removed, and the first of it by name and why.
    /// What would go with an image is not counted.
    ///
    /// # Errors
    /// [`StateError`] when the state cannot be read.
    pub async fn retention_survey(
        &self,
        cursor: Option<String>,
    ) -> Result<(RetentionSummary, Vec<String>, Option<String>), StateError> {
        let mut lines = Vec::new();
        let (summary, next) = self.part(cursor, &mut Doing::Look(&mut lines)).await?;
        Ok((summary, lines, next))
    }

    async fn part(
        &self,
        cursor: Option<String>,
        doing: &mut Doing<'_>,
    ) -> Result<(RetentionSummary, Option<String>), StateError> {
        self.0.pulls.flush(&self.0.state, self.0.clock.now(), Flush::Now).await;
        let mut summary = RetentionSummary::default();
        let after = cursor.clone();
        let repositories = self.0.repositories.clone();
        let read = move |view: &View<'_>| {
            repos::catalogue(view, &|root| repositories.exists(root), after.as_deref(), IMAGES)
        };
        let images = self.0.state.read(read).await?;
        let mut ended = images.len() < IMAGES;
        let mut last = cursor;
        let mut rules: Option<(String, RepositorySettings)> = None;
        for image in images {
            let root = image.root().to_owned();
            if rules.as_ref().is_none_or(|(of, _)| *of != root) {
                let asked = root.clone();
                let read = self.0.state.read(move |view| repos::settings(view, &asked)).await?;
                rules = Some((root.clone(), read));
            }
            let Some((_, settings)) = &rules else { continue };
            if settings.retention.is_empty() || repos::is_reserved(&root) {
                // What lies below it stands together in the order, and none of it is touched.
                let beyond = format!("{root}/~");
                if image.as_str() != root {
                    last = Some(beyond);
                    ended = false;
                    break;
                }
                last = Some(image.to_string());
                continue;
            }
            self.retain(&image, settings, doing, &mut summary).await?;
            last = Some(image.to_string());
            if summary.judged >= ROWS {
                ended = false;
                break;
            }
        }
        Ok((summary, if ended { None } else { last }))
    }

    /// Applies the retention rules of one repository to all of its images.
    ///
    /// # Errors
    /// [`StateError`] when the state fails.
    pub async fn retention_of(&self, root: &str) -> Result<RetentionSummary, StateError> {
        self.0.pulls.flush(&self.0.state, self.0.clock.now(), Flush::Now).await;
        let mut summary = RetentionSummary::default();
        let asked = root.to_owned();
        let settings = self.0.state.read(move |view| repos::settings(view, &asked)).await?;
        if settings.retention.is_empty() || repos::is_reserved(root) {
            return Ok(summary);
        }
        let mut after: Option<String> = None;
        loop {
            let (of, from) = (root.to_owned(), after.clone());
            let images =
                self.0.state.read(move |view| repos::images(view, &of, from.as_deref(), IMAGES)).await?;
            let ended = images.len() < IMAGES;
            for image in images {
                after = Some(image.name.to_string());
                self.retain(&image.name, &settings, &mut Doing::Remove, &mut summary).await?;
            }
            if ended {
                return Ok(summary);
            }
        }
    }

    /// One image; one whose tags move while it is looked at is looked at again.
    async fn retain(
        &self,
        image: &RepoName,
        settings: &RepositorySettings,
        doing: &mut Doing<'_>,
        summary: &mut RetentionSummary,
    ) -> Result<(), StateError> {
        summary.images += 1;
        for _ in 0..ATTEMPTS {
            let stood = self.attempt(image, settings, doing, summary).await?;
            if matches!(doing, Doing::Remove) {
                self.finish_removals(Some(image)).await?;
            }
            if stood {
                return Ok(());
            }
        }
        tracing::debug!(repository = %image, "its tags move; retention leaves the rest to the next pass");
        Ok(())
    }

    /// `false` when the rules or the last tags changed meanwhile.
    async fn attempt(
        &self,
        image: &RepoName,
        settings: &RepositorySettings,
        doing: &mut Doing<'_>,
        summary: &mut RetentionSummary,
    ) -> Result<bool, StateError> {
        let newest = self.newest(image, settings).await?;
        let mut after: Option<Tag> = None;
        loop {
            let page = self.tags_of(image, &newest, after.take(), PAGE).await?;
            summary.judged += page.len() as u64;
            let full = page.len() == PAGE;
            after = page.last().map(|found| found.tag.clone());
            let now = self.0.clock.now();
            let doomed: Vec<Surveyed> = page
                .into_iter()
                .filter(|found| {
                    repos::judge_tag(settings, &found.tag, &found.facts, now) == Verdict::RemoveTag
                })
                .collect();
            if let Doing::Look(lines) = doing {
                summary.tags += doomed.len() as u64;
                let told = doomed.iter().map(|found| format!("{image}:{}: no rule keeps it", found.tag));
                lines.extend(told.take(LINES.saturating_sub(lines.len())));
                if !full {
                    break;
                }
                continue;
            }
            for batch in doomed.chunks(BATCH) {
                if !self.remove_tags(image, settings, &newest, batch, summary).await? {
                    return Ok(false);
                }
            }
            if !full {
                break;
            }
        }
        if settings.retention.untagged_after_seconds.is_none() {
            return Ok(true);
        }
        let mut after: Option<Digest> = None;
        loop {
            let (page, next) = self.manifests_of(image, after.take(), PAGE).await?;
            summary.judged += page.len() as u64;
            let now = self.0.clock.now();
            let doomed: Vec<SurveyedManifest> = page
                .into_iter()
                .filter(|found| repos::judge_untagged(settings, &found.facts, now) == Verdict::RemoveUntagged)
                .collect();
            if let Doing::Look(lines) = doing {
                summary.manifests += doomed.len() as u64;
                let told = doomed.iter().map(|found| format!("{image}@{}: no tag for long", found.digest));
                lines.extend(told.take(LINES.saturating_sub(lines.len())));
            } else {
                for batch in doomed.chunks(BATCH) {
                    if !self.remove_untagged(image, settings, batch, summary).await? {
                        return Ok(false);
                    }
                }
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(true),
            }
        }
    }

    async fn newest(&self, image: &RepoName, settings: &RepositorySettings) -> Result<Newest, StateError> {
        let Some(keep) = settings.retention.keep_last else { return Ok(Newest::default()) };
        let mut builder = NewestBuilder::new(keep as usize);
        let mut after: Option<Tag> = None;
        loop {
            let (repo, from) = (image.clone(), after.take());
            let read = move |view: &View<'_>| repos::survey_page(view, &repo, from.as_ref(), SURVEY_PAGE);
            let page = self.0.state.read(read).await?;
            let full = page.len() == SURVEY_PAGE;
            after = page.last().map(|(tag, _)| tag.clone());
            builder.take(page);
            if !full {
                return Ok(builder.finish());
            }
        }
    }

    async fn tags_of(
        &self,
        image: &RepoName,
        newest: &Newest,
        after: Option<Tag>,
        limit: usize,
    ) -> Result<Vec<Surveyed>, StateError> {
        let (repo, newest, pulls) = (image.clone(), newest.clone(), Arc::clone(&self.0.pulls));
        let read = move |view: &View<'_>| {
            let pending = |repo: &RepoName, digest: &Digest| pulls.last(repo, digest);
            repos::tags_page(view, &repo, &newest, &pending, after.as_ref(), limit)
        };
        self.0.state.read(read).await
    }

    async fn manifests_of(
        &self,
        image: &RepoName,
        after: Option<Digest>,
        limit: usize,
    ) -> Result<(Vec<SurveyedManifest>, Option<Digest>), StateError> {
        let (repo, pulls) = (image.clone(), Arc::clone(&self.0.pulls));
        let read = move |view: &View<'_>| {
            let pending = |repo: &RepoName, digest: &Digest| pulls.last(repo, digest);
            repos::manifests_page(view, &repo, &pending, after.as_ref(), limit)
        };
        self.0.state.read(read).await
    }

    async fn remove_tags(
        &self,
        image: &RepoName,
        settings: &RepositorySettings,
        newest: &Newest,
        judged: &[Surveyed],
        summary: &mut RetentionSummary,
    ) -> Result<bool, StateError> {
        loop {
            let (repo, settings, newest) = (image.clone(), settings.clone(), newest.clone());
            let (judged, pulls, now) = (judged.to_vec(), Arc::clone(&self.0.pulls), self.0.clock.now());
            self.0.faults.pass("registry.retention.before-remove");
            let removal = self
                .0
                .state
                .write(move |tx| {
                    let pending = |repo: &RepoName, digest: &Digest| pulls.last(repo, digest);
                    let removal = repos::remove_tags(tx, now, &repo, &settings, &newest, &pending, &judged)?;
                    entry(tx, now, &repo, &removal)?;
                    Ok(removal)
                })
                .await?;
            self.0.faults.pass("registry.retention.after-remove");
            if let Some(stood) = self.taken(&removal, summary) {
                return Ok(stood);
            }
        }
    }

    async fn remove_untagged(
        &self,
        image: &RepoName,
        settings: &RepositorySettings,
        judged: &[SurveyedManifest],
        summary: &mut RetentionSummary,
    ) -> Result<bool, StateError> {
        loop {
            let (repo, settings) = (image.clone(), settings.clone());
            let (judged, pulls, now) = (judged.to_vec(), Arc::clone(&self.0.pulls), self.0.clock.now());
            let removal = self
                .0
                .state
                .write(move |tx| {
                    let pending = |repo: &RepoName, digest: &Digest| pulls.last(repo, digest);
                    let removal = repos::remove_untagged(tx, now, &repo, &settings, &pending, &judged)?;
                    entry(tx, now, &repo, &removal)?;
                    Ok(removal)
                })
                .await?;
            if let Some(stood) = self.taken(&removal, summary) {
                return Ok(stood);
            }
        }
    }

    /// `false` when the survey was no longer true; `None` when more of the batch is to be removed.
    fn taken(&self, removal: &Removal, summary: &mut RetentionSummary) -> Option<bool> {
        let Removal::Done(removed) = removal else { return Some(false) };
        summary.removed(removed);
        self.0.retired_tags.fetch_add(removed.tags.len() as u64, Ordering::Relaxed);
        self.0.retired_manifests.fetch_add(removed.manifests, Ordering::Relaxed);
        (!removed.more).then_some(true)
    }

    /// What the rules of a repository would do now, and why: the entries after `after`, `limit` at most and perhaps
    /// fewer, and where to go on; the inner `None` when `after` is no cursor of this list.
    ///
    /// # Errors
    /// [`StateError`] when the state cannot be read.
    pub async fn retention_preview(
        &self,
        root: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Option<(Vec<RetentionEntry>, Option<String>)>, StateError> {
        let mut step = match after {
            None => Step::Image { after: None },
            Some(text) => match Step::parse(text) {
                Some(step) => step,
                None => return Ok(None),
            },
        };
        let asked = root.to_owned();
        let mut settings = self.0.state.read(move |view| repos::settings(view, &asked)).await?;
        if repos::is_reserved(root) {
            settings = RepositorySettings::default();
        }
        let now = self.0.clock.now();
        let mut entries = Vec::new();
        for _ in 0..PREVIEW_STEPS {
            let space = limit.saturating_sub(entries.len());
            if space == 0 {
                break;
            }
            step = match step {
                Step::Image { after } => {
                    let of = root.to_owned();
                    let found =
                        self.0.state.read(move |view| repos::images(view, &of, after.as_deref(), 1)).await?;
                    let Some(image) = found.into_iter().next() else { return Ok(Some((entries, None))) };
                    let newest = self.newest(&image.name, &settings).await?;
                    Step::Tags { image: image.name, after: None, newest }
                }
                Step::Tags { image, after, newest } if image.root() == root => {
                    let page = self.tags_of(&image, &newest, after, space).await?;
                    let last = page.last().map(|found| found.tag.clone());
                    let full = page.len() == space;
                    for found in page {
                        let verdict = repos::judge_tag(&settings, &found.tag, &found.facts, now);
                        let at = (found.set_at, found.pulled_at);
                        entries.push(told(&image, Some(&found.tag), &found.digest, verdict, at));
                    }
                    if full {
                        Step::Tags {
                            image,
                            after: last,
                            newest: Newest::from_threshold(newest.threshold().cloned()),
                        }
                    } else {
                        Step::Manifests { image, after: None }
                    }
                }
                Step::Manifests { image, after } if image.root() == root => {
                    let (page, next) = self.manifests_of(&image, after, space).await?;
                    for found in page {
                        let verdict = repos::judge_untagged(&settings, &found.facts, now);
                        let at = (found.pushed_at, found.pulled_at);
                        entries.push(told(&image, None, &found.digest, verdict, at));
                    }
                    match next {
                        Some(next) => Step::Manifests { image, after: Some(next) },
                        None => Step::Image { after: Some(image.to_string()) },
                    }
                }
                Step::Tags { .. } | Step::Manifests { .. } => return Ok(None),
            };
        }
        Ok(Some((entries, step.cursor())))
    }
}

fn told(
    image: &RepoName,
    tag: Option<&Tag>,
    digest: &Digest,
    verdict: Verdict,
    (set_at, pulled_at): (Millis, Option<Millis>),
) -> RetentionEntry {
    RetentionEntry {
        image: image.to_string(),
        tag: tag.map(ToString::to_string),
        digest: digest.to_string(),
        keep: verdict.keeps(),
        reason: verdict.reason(),
        set_at: set_at.rfc3339(),
        pulled_at: pulled_at.map(Millis::rfc3339),
    }
}

/// The audit line of a transaction that removed something.
pub(super) fn entry(
    tx: &mut crate::state::Tx<'_>,
    now: Millis,
    repo: &RepoName,
    removal: &Removal,
) -> Result<(), StateError> {
    let Removal::Done(removed) = removal else { return Ok(()) };
    if removed.tags.is_empty() && removed.manifests == 0 {
        return Ok(());
    }
    // Their number is bounded by the batch; with each image at most some tags go that are named after it.
    let tags: Vec<&str> =
        removed.tags.iter().filter_map(|tag| tag.rsplit(':').next()).take(4 * BATCH).collect();
    let event = audit::Event {
        who: "pantry".to_owned(),
        action: "registry.retention".to_owned(),
        subject: repo.to_string(),
        outcome: "done".to_owned(),
        why: format!("manifests: {}, tags: {}", removed.manifests, tags.join(" ")),
    };
    audit::append(tx, now, &event)
}
