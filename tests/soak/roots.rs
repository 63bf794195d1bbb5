//! What an operator does with whole repositories: makes them, removes them with everything, applies their rules.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::ensure;
use reqwest::Method;
use serde_json::json;

use super::fates::ALWAYS;
use super::reading::{self, ask_for_manifest, list};
use super::wire::Ask;
use super::worker::Worker;

/// What a repository that is going held is gone this soon after a death.
const PATIENCE: Duration = Duration::from_secs(20);
/// After a removal so many names of what was there are asked for, of each kind.
const ASKED: usize = 3;

impl Worker<'_> {
    /// Makes the repository that holds this one alone; these are the statuses of an answer that is not a second one.
    pub(super) fn make_root(&mut self, at: usize, allowed: &[u16]) -> anyhow::Result<()> {
        let rules = self.repositories[at].rules.clone();
        let Some(root) = &rules.root else { return Ok(()) };
        let mut settings = json!({ "sparse": rules.sparse });
        if let Some(keep) = rules.keep_last {
            settings["retention"] = json!({ "keep_last": keep, "keep_tags": [ALWAYS] });
        }
        let body = json!({ "name": root, "settings": settings }).to_string();
        let ask = Ask::new(Method::POST, "/v1/repositories").body(body);
        let began = Instant::now();
        loop {
            let lost = self.wire.lost;
            let answer = self.wire.until_answered(&ask)?;
            // One that was lost may have been done.
            let allowed = if lost == self.wire.lost { allowed } else { &[201, 409] };
            let answer = answer.expect(allowed, &format!("the making of {root}"))?;
            let said = String::from_utf8_lossy(&answer.body);
            if answer.status == 201 || said.contains("repository_exists") {
                return Ok(());
            }
            ensure!(said.contains("repository_going"), "{root} can't be made: {said}");
            ensure!(began.elapsed() < PATIENCE, "{root} was removed, and what it held does not go: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Removes a repository with everything, and makes it again.
    pub(super) fn remove_repository(&mut self, at: usize) -> anyhow::Result<bool> {
        let repository = &self.repositories[at];
        let Some(root) = &repository.rules.root else { return Ok(false) };
        let name = &repository.name;
        let lost = self.wire.lost;
        let ask = Ask::new(Method::DELETE, format!("/v1/repositories/{root}?force=true"));
        let answer = self.wire.until_answered(&ask)?;
        let lost = lost != self.wire.lost;
        // One that was lost may have been done, or only begun.
        let allowed: &[u16] = if lost { &[200, 404] } else { &[200] };
        answer.expect(allowed, &format!("the removal of {root}"))?;
        let gone = |path: String| Ask::new(Method::GET, format!("/v2/{name}/{path}"));
        let mut asks = vec![gone("tags/list".to_owned())];
        asks.extend(repository.blobs.keys().take(ASKED).map(|digest| gone(format!("blobs/{digest}"))));
        let manifests = repository.tags.keys().take(ASKED).chain(repository.manifests.keys().take(ASKED));
        asks.extend(manifests.map(|reference| ask_for_manifest(name, reference)));
        asks.push(Ask::new(Method::POST, format!("/v2/{name}/blobs/uploads/")));
        for ask in asks {
            let what = format!("{} {} after the removal of {root}", ask.method, ask.path);
            self.wire.until_answered(&ask)?.expect(&[404], &what)?;
        }
        self.repositories[at].forget_all();
        self.make_root(at, if lost { &[201, 409] } else { &[201] })?;
        let repository = &self.repositories[at];
        let listed = list(&mut self.wire, repository)?;
        ensure!(listed.is_empty(), "{} is new and has tags", repository.name);
        for subject in repository.subjects.iter().take(ASKED) {
            reading::referrers(&mut self.wire, repository, subject, None)?;
        }
        Ok(true)
    }

    /// Applies the rules now: after the answer nothing is left that no rule keeps.
    pub(super) fn apply_retention(&mut self, at: usize) -> anyhow::Result<bool> {
        let rules = &self.repositories[at].rules;
        let (Some(root), Some(_)) = (&rules.root, rules.keep_last) else { return Ok(false) };
        let ask = Ask::new(Method::POST, format!("/v1/repositories/{root}/retention"));
        self.wire.until_answered(&ask)?.expect(&[200], &format!("retention of {root}"))?;
        self.await_retention(at, Duration::ZERO)?;
        Ok(true)
    }

    /// Waits until the rules have been applied, and finds out what became of everything that they may have taken.
    pub fn await_retention(&mut self, at: usize, patience: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let repository = &self.repositories[at];
            let listed = list(&mut self.wire, repository)?;
            let Some(tag) = repository.overdue(&listed) else { return self.settle(at, &listed) };
            let name = &repository.name;
            ensure!(began.elapsed() < patience, "retention of {name} has left the tag {tag}: {listed:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn settle(&mut self, at: usize, listed: &BTreeSet<String>) -> anyhow::Result<()> {
        let repository = &mut self.repositories[at];
        let fading = repository.fading.len();
        let kept = repository.settle_tags(listed);
        *self.counts.entry("tags that retention took").or_default() += (fading - kept.len()) as u64;
        let name = repository.name.clone();
        let doubtful: Vec<(String, bool)> =
            repository.doubtful.iter().map(|(digest, doubt)| (digest.clone(), doubt.certain)).collect();
        for (digest, certain) in doubtful {
            let allowed: &[u16] = match kept.values().any(|target| *target == digest) {
                true => &[200],
                false if certain => &[404],
                false => &[200, 404],
            };
            let answer = self.wire.until_answered(&ask_for_manifest(&name, &digest))?;
            let answer = answer.expect(allowed, &format!("GET of {digest} of {name} after retention"))?;
            self.repositories[at].settle(&digest, answer.status == 200);
        }
        Ok(())
    }
}
