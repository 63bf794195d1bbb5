//! What a client does with manifests: images, indexes, and manifests about others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::model::{Document, digest_of, long_digest_of};
use super::reading::{self, IMAGE, INDEX, pull};
use super::wire::{Answer, Ask};
use super::worker::Worker;

const TYPES: [&str; 2] = ["application/vnd.soak.one", "application/vnd.soak.other"];

impl Worker<'_> {
    pub fn push_image(&mut self, at: usize) -> anyhow::Result<bool> {
        let blobs = self.some_blobs(at, 3)?;
        let digest = self.make(at, IMAGE, blobs, Vec::new(), None)?;
        let tag = self.tag();
        self.put_manifest(at, &digest, Some(&tag))?;
        Ok(true)
    }

    /// Names of blobs for a new image; to a sparse repository not all of them come now.
    fn some_blobs(&mut self, at: usize, most: u64) -> anyhow::Result<Vec<String>> {
        let mut named = Vec::new();
        for _ in 0..=self.dice.below(most) {
            let content = self.content();
            let digest = self.name(&content);
            if self.repositories[at].rules.sparse && self.dice.one_in(3) {
                self.count("manifests before their blobs");
            } else {
                self.push_blob(at, &digest, &content)?;
            }
            if !named.contains(&digest) {
                named.push(digest);
            }
        }
        Ok(named)
    }

    /// An index over manifests that are there, and perhaps one that was deleted.
    pub fn push_index(&mut self, at: usize) -> anyhow::Result<bool> {
        let mut children: Vec<String> = Vec::new();
        let repository = &self.repositories[at];
        for _ in 0..=self.dice.below(3) {
            let Some(place) = self.dice.place(repository.manifests.len()) else { break };
            children.extend(repository.manifests.keys().nth(place).cloned());
        }
        if self.dice.one_in(4) {
            children.extend(self.deleted_manifest(at));
        }
        children.sort();
        children.dedup();
        if children.is_empty() {
            return Ok(false);
        }
        let absent = children.iter().any(|child| !self.repositories[at].manifests.contains_key(child));
        let digest = self.make(at, INDEX, Vec::new(), children, None)?;
        let tag = self.tag();
        self.put_manifest(at, &digest, Some(&tag))?;
        if absent {
            self.count("indexes over children that were deleted");
        }
        Ok(true)
    }

    /// A manifest about another, which is there, was deleted, or never was.
    pub fn push_referrer(&mut self, at: usize) -> anyhow::Result<bool> {
        let repository = &self.repositories[at];
        let there = self.dice.place(repository.manifests.len());
        let there = there.and_then(|place| repository.manifests.keys().nth(place).cloned());
        let subject = match self.dice.below(4) {
            0 => self.deleted_manifest(at),
            1 if self.dice.one_in(4) => Some(digest_of(&self.dice.bytes(8))),
            _ => there,
        };
        let Some(subject) = subject else { return Ok(false) };
        let absent = !self.repositories[at].manifests.contains_key(&subject);
        let blobs = self.some_blobs(at, 1)?;
        let digest = self.make(at, IMAGE, blobs, Vec::new(), Some(subject.clone()))?;
        let tag = self.dice.one_in(3).then(|| self.tag());
        self.put_manifest(at, &digest, tag.as_deref())?;
        if absent {
            self.count("manifests about what is not there");
        }
        reading::referrers(&mut self.wire, &self.repositories[at], &subject, None)?;
        Ok(true)
    }

    pub fn ask_for_referrers(&mut self, at: usize) -> anyhow::Result<bool> {
        let repository = &self.repositories[at];
        let Some(place) = self.dice.place(repository.subjects.len()) else { return Ok(false) };
        let Some(subject) = repository.subjects.iter().nth(place) else { return Ok(false) };
        let of_type = self.dice.one_in(2).then(|| TYPES[self.dice.place(TYPES.len()).unwrap_or_default()]);
        reading::referrers(&mut self.wire, repository, subject, of_type)?;
        Ok(true)
    }

    /// A manifest of this worker that the repository no longer has.
    fn deleted_manifest(&mut self, at: usize) -> Option<String> {
        let gone = &self.repositories[at].gone;
        let gone: Vec<&String> = gone.iter().filter(|gone| self.documents.contains_key(*gone)).collect();
        let place = self.dice.place(gone.len())?;
        Some(gone[place].clone())
    }

    fn tag(&mut self) -> String {
        format!("t{}", self.dice.below(40))
    }

    /// Makes a manifest that never was; gives the digest that it will be put by.
    fn make(
        &mut self,
        at: usize,
        media_type: &'static str,
        blobs: Vec<String>,
        children: Vec<String>,
        subject: Option<String>,
    ) -> anyhow::Result<String> {
        self.made += 1;
        let blob = |digest: &String| {
            let size = self.contents.get(digest).map(|content| content.size);
            json!({ "mediaType": "application/octet-stream", "digest": digest, "size": size })
        };
        let other = |digest: &String| {
            let known = self.documents.get(digest);
            let (kind, size) = known.map_or((IMAGE, 2), |known| (known.media_type, known.bytes.len()));
            json!({ "mediaType": kind, "digest": digest, "size": size })
        };
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": media_type,
            "annotations": { "made": format!("{} {}", self.repositories[at].name, self.made) },
        });
        if media_type == INDEX {
            manifest["manifests"] = children.iter().map(other).collect();
        } else {
            manifest["config"] = blobs.first().map(blob).context("an image has a configuration")?;
            manifest["layers"] = blobs[1..].iter().map(blob).collect();
        }
        let mut artifact_type = None;
        if let Some(subject) = &subject {
            manifest["subject"] = other(subject);
            artifact_type = self.dice.place(TYPES.len()).map(|place| TYPES[place]);
            manifest["artifactType"] = artifact_type.into();
        }
        let bytes = bytes::Bytes::from(serde_json::to_vec(&manifest)?);
        let digest = if self.dice.one_in(4) { long_digest_of(&bytes) } else { digest_of(&bytes) };
        self.wire.history.note(&format!("{digest} is {manifest}"))?;
        let document = Document { bytes, media_type, blobs, children, subject, artifact_type };
        self.documents.insert(digest.clone(), Arc::new(document));
        Ok(digest)
    }

    /// Puts it until it is acknowledged. What it needs may be refused as unknown only when it was deleted, or its grace
    /// has ended; it is brought again then.
    fn put_manifest(&mut self, at: usize, digest: &str, tag: Option<&str>) -> anyhow::Result<()> {
        let name = self.repositories[at].name.clone();
        let document = Arc::clone(&self.documents[digest]);
        // By a tag alone the server chooses the name itself.
        let path = match tag {
            Some(tag) if digest.starts_with("sha256:") && !self.dice.one_in(4) => tag.to_owned(),
            Some(tag) => format!("{digest}?tag={tag}"),
            None => digest.to_owned(),
        };
        let ask = Ask::new(Method::PUT, format!("/v2/{name}/manifests/{path}"))
            .header("content-type", document.media_type)
            .body(document.bytes.clone());
        let tagged = tag.map(|tag| format!(" as {tag}")).unwrap_or_default();
        let (asked, answer) = loop {
            self.wire.history.note(&format!("puts {digest}{tagged} to {name}"))?;
            let asked = Instant::now();
            let answer = self.wire.until_answered(&ask)?;
            let answer = answer.expect(&[201, 400], &format!("PUT of {digest} to {name}"))?;
            if answer.status == 201 {
                break (asked, answer);
            }
            let missing = missing(&answer)?;
            for digest in &missing {
                self.check_that_it_was_missing(at, digest, &answer)?;
            }
            for digest in &missing {
                self.bring(at, digest)?;
            }
        };
        ensure!(answer.header("docker-content-digest") == Some(digest), "{digest} was named otherwise");
        ensure!(
            answer.header("oci-subject") == document.subject.as_deref(),
            "{digest} was taken with another subject than {:?}",
            document.subject
        );
        for named in &document.blobs {
            let repository = &mut self.repositories[at];
            if !repository.rules.sparse {
                // It was not refused, so this is there, and kept from now on.
                repository.arrive(named, &self.contents[named], asked);
            } else if repository.blobs.contains_key(named)
                && !repository.must_hold(named, answer.answered, self.grace)
            {
                // It ran out just before, or the manifest keeps it.
                self.head(at, named)?;
            }
        }
        self.repositories[at].accept(digest, &document, tag, asked);
        if tag.is_some() && self.repositories[at].rules.keep_last.is_some() {
            // Tags that were set in the same millisecond are told apart by their names, not by their order.
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// A manifest was refused since this is missing, which must be true.
    fn check_that_it_was_missing(&mut self, at: usize, digest: &str, answer: &Answer) -> anyhow::Result<()> {
        let repository = &self.repositories[at];
        let (name, said) = (&repository.name, String::from_utf8_lossy(&answer.body));
        ensure!(!repository.rules.sparse, "{name} is sparse, and a manifest was refused: {said}");
        ensure!(
            !repository.manifests.contains_key(digest)
                && !repository.must_hold(digest, answer.answered, self.grace),
            "{name} was said to hold {digest}, but a manifest that names it was refused: {said}"
        );
        self.count("refused for what was missing");
        Ok(())
    }

    /// Brings what was missing, unless it came with something else that was: an index and what it lists in turn.
    fn bring(&mut self, at: usize, digest: &str) -> anyhow::Result<()> {
        if self.documents.contains_key(digest) {
            if self.repositories[at].manifests.contains_key(digest) {
                return Ok(());
            }
            return self.put_manifest(at, digest, None);
        }
        let content =
            self.contents.get(digest).cloned().context("nobody named what is said to be missing")?;
        self.repositories[at].blobs.remove(digest);
        self.push_blob(at, digest, &content)
    }

    pub fn pull_image(&mut self, at: usize) -> anyhow::Result<bool> {
        let repository = &self.repositories[at];
        let Some(place) = self.dice.place(repository.manifests.len()) else { return Ok(false) };
        let Some((digest, held)) = repository.manifests.iter().nth(place) else { return Ok(false) };
        let tag = repository.tags.iter().find(|(_, target)| *target == digest).map(|(tag, _)| tag);
        let reference = tag.unwrap_or(digest);
        pull(&mut self.wire, repository, reference, digest, held)?;
        Ok(true)
    }

    /// Finds an old blob that no manifest keeps, and names it in one: "it exists" must not have been a lie.
    pub fn head_then_reference(&mut self, at: usize) -> anyhow::Result<bool> {
        let loose = self.repositories[at].loose();
        let Some(digest) = loose.first().cloned() else { return Ok(false) };
        let content = self.content();
        let config = self.name(&content);
        self.push_blob(at, &config, &content)?;
        if config == digest {
            return Ok(false);
        }
        if !self.head(at, &digest)? {
            return Ok(false);
        }
        // Some clients take their time, until just before the end of the grace.
        if self.dice.one_in(8) {
            let part = self.grace.mul_f64(0.8) * u32::try_from(self.dice.below(4)).unwrap_or_default() / 3;
            std::thread::sleep(part.min(Duration::from_secs(3)));
        }
        let manifest = self.make(at, IMAGE, vec![config, digest], Vec::new(), None)?;
        let tag = self.tag();
        self.put_manifest(at, &manifest, Some(&tag))?;
        Ok(true)
    }

    pub fn move_tag(&mut self, at: usize) -> anyhow::Result<bool> {
        let repository = &self.repositories[at];
        let Some(place) = self.dice.place(repository.manifests.len()) else { return Ok(false) };
        let Some(digest) = repository.manifests.keys().nth(place).cloned() else { return Ok(false) };
        let tag = self.tag();
        self.put_manifest(at, &digest, Some(&tag))?;
        Ok(true)
    }

    pub fn delete_tag(&mut self, at: usize) -> anyhow::Result<bool> {
        let repository = &self.repositories[at];
        let Some(place) = self.dice.place(repository.tags.len()) else { return Ok(false) };
        let Some((tag, digest)) = repository.tags.iter().nth(place) else { return Ok(false) };
        let (tag, digest) = (tag.clone(), digest.clone());
        self.wire.history.note(&format!("deletes the tag {tag} of {digest}"))?;
        let asked = Instant::now();
        self.delete(at, &tag)?;
        self.repositories[at].forget_tag(&tag, asked);
        Ok(true)
    }

    pub fn delete_manifest(&mut self, at: usize) -> anyhow::Result<bool> {
        let repository = &self.repositories[at];
        let Some(place) = self.dice.place(repository.manifests.len()) else { return Ok(false) };
        let Some(digest) = repository.manifests.keys().nth(place).cloned() else { return Ok(false) };
        let listed = repository.manifests.values().any(|held| held.document.children.contains(&digest));
        let asked = Instant::now();
        self.delete(at, &digest)?;
        self.repositories[at].forget_manifest(&digest, asked);
        if listed {
            self.count("children deleted before their index");
        }
        reading::referrers(&mut self.wire, &self.repositories[at], &digest, None)?;
        Ok(true)
    }

    /// Deletes a tag or manifest that is there.
    fn delete(&mut self, at: usize, reference: &str) -> anyhow::Result<()> {
        let name = &self.repositories[at].name;
        let lost = self.wire.lost;
        let ask = Ask::new(Method::DELETE, format!("/v2/{name}/manifests/{reference}"));
        let answer = self.wire.until_answered(&ask)?;
        // One that was lost may have been done.
        let allowed: &[u16] = if lost == self.wire.lost { &[202] } else { &[202, 404] };
        answer.expect(allowed, &format!("DELETE of {reference} of {name}"))?;
        let ask = reading::ask_for_manifest(name, reference);
        self.wire
            .until_answered(&ask)?
            .expect(&[404], &format!("GET of {reference} of {name}, which was deleted"))?;
        Ok(())
    }
}

/// The digests that an answer says are missing.
fn missing(answer: &Answer) -> anyhow::Result<Vec<String>> {
    let document: Value = serde_json::from_slice(&answer.body)?;
    let error = &document["errors"][0];
    ensure!(error["code"] == "MANIFEST_BLOB_UNKNOWN", "PUT of a manifest was refused: {document}");
    let digests = error["detail"]["about"].as_array().into_iter().flatten();
    let missing: Vec<String> = digests.filter_map(|one| Some(one["digest"].as_str()?.to_owned())).collect();
    if missing.is_empty() {
        bail!("the refusal does not say what is missing: {document}");
    }
    Ok(missing)
}
