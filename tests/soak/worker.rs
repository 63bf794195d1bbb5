//! One client at work: it picks an act, does it until it is acknowledged, and compares every answer with its model.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{bail, ensure};
use reqwest::Method;

use super::model::{Blob, Manifest, Recipe, Repository, digest_of};
use super::random::Dice;
use super::server::Server;
use super::uploading;
use super::wire::{Answer, Ask, Wire};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// A repository is pruned from this many manifests on.
const FULL: usize = 25;
/// Repositories of a worker.
const REPOSITORIES: usize = 3;
/// Contents that all workers push again and again, each to its own repositories.
const POOL: u64 = 40;
/// Below, at, and above what the state file takes in; the last are files.
const SIZES: [usize; 10] = [0, 1, 700, 20_000, 32_767, 32_768, 32_769, 70_000, 300_000, 1_000_000];

/// What the workers know of each other: blobs that one of them held a moment ago.
pub type Offers = Mutex<Vec<(String, String, Recipe)>>;

/// A client with repositories of its own.
pub struct Worker<'s> {
    pub wire: Wire<'s>,
    pub repositories: Vec<Repository>,
    /// How often each kind of act was done.
    pub counts: BTreeMap<&'static str, u64>,
    dice: Dice,
    pool: u64,
    offers: &'s Offers,
    grace: Duration,
    made: u64,
}

impl<'s> Worker<'s> {
    pub fn new(
        server: &'s Server,
        number: usize,
        dice: Dice,
        pool: u64,
        offers: &'s Offers,
        grace: Duration,
    ) -> anyhow::Result<Self> {
        let repositories = (0..REPOSITORIES)
            .map(|part| Repository { name: format!("local/soak/w{number}/r{part}"), ..Repository::default() })
            .collect();
        let wire = Wire::new(server)?;
        Ok(Self { wire, repositories, counts: BTreeMap::new(), dice, pool, offers, grace, made: 0 })
    }

    /// Does one act to its end.
    pub fn act(&mut self) -> anyhow::Result<()> {
        let at = self.dice.place(self.repositories.len()).unwrap_or_default();
        let full = self.repositories[at].manifests.len() >= FULL;
        let act = match self.dice.below(100) {
            0..25 if full => "delete manifest",
            0..25 => "push image",
            25..35 => "pull image",
            35..45 => "push blob",
            45..60 => "head, then reference",
            60..70 => "mount",
            70..76 => "move tag",
            76..82 => "delete tag",
            82..90 => "delete manifest",
            90..97 => "delete blob",
            _ => "list tags",
        };
        let done = match act {
            "push image" => self.push_image(at)?,
            "pull image" => self.pull_image(at)?,
            "push blob" => {
                let recipe = self.recipe();
                self.push_blob(at, recipe)?;
                true
            }
            "head, then reference" => self.head_then_reference(at)?,
            "mount" => self.mount(at)?,
            "move tag" => self.move_tag(at)?,
            "delete tag" => self.delete_tag(at)?,
            "delete manifest" => self.delete_manifest(at)?,
            "delete blob" => self.delete_blob(at)?,
            _ => self.list_tags(at)?,
        };
        if done {
            *self.counts.entry(act).or_default() += 1;
        }
        Ok(())
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Something new, or something of the pool that others push too.
    fn recipe(&mut self) -> Recipe {
        let seed = if self.dice.one_in(2) { self.pool + self.dice.below(POOL) } else { self.dice.next() };
        let size = SIZES[Dice::new(seed ^ 1).place(SIZES.len()).unwrap_or_default()];
        Recipe { seed, size }
    }

    /// Uploads until it is acknowledged; gives its digest.
    fn push_blob(&mut self, at: usize, recipe: Recipe) -> anyhow::Result<String> {
        let bytes = recipe.bytes();
        let digest = digest_of(&bytes);
        let name = self.repositories[at].name.clone();
        let asked = uploading::upload(&mut self.wire, &mut self.dice, &name, &bytes, &digest)?;
        let blobs = &mut self.repositories[at].blobs;
        blobs.entry(digest.clone()).or_insert(Blob { recipe, since: asked });
        self.repositories[at].renew(&digest, asked);
        self.offer(&name, &digest, recipe);
        Ok(digest)
    }

    fn offer(&self, name: &str, digest: &str, recipe: Recipe) {
        let mut offers = self.offers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        offers.push((name.to_owned(), digest.to_owned(), recipe));
        if offers.len() > 200 {
            offers.drain(..100);
        }
    }

    fn push_image(&mut self, at: usize) -> anyhow::Result<bool> {
        let layers = 1 + self.dice.below(3);
        let mut keeps = Vec::new();
        for _ in 0..=layers {
            let recipe = self.recipe();
            let digest = self.push_blob(at, recipe)?;
            if !keeps.contains(&digest) {
                keeps.push(digest);
            }
        }
        self.put_new_manifest(at, keeps)?;
        Ok(true)
    }

    /// Puts a manifest that never was, under a tag, which may be one that is taken.
    fn put_new_manifest(&mut self, at: usize, keeps: Vec<String>) -> anyhow::Result<String> {
        self.made += 1;
        let repository = &self.repositories[at];
        let descriptor = |digest: &String| {
            let size = repository.blobs[digest].recipe.size;
            serde_json::json!({ "mediaType": "application/octet-stream", "digest": digest, "size": size })
        };
        let layers: Vec<_> = keeps[1..].iter().map(descriptor).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(&keeps[0]), "layers": layers,
            "annotations": { "made": format!("{} {} {}", repository.name, self.made, self.dice.next()) },
        });
        let manifest = Manifest { bytes: serde_json::to_vec(&manifest)?.into(), keeps };
        let digest = digest_of(&manifest.bytes);
        let tag = format!("t{}", self.dice.below(40));
        self.put_manifest(at, &digest, manifest, &tag)?;
        Ok(digest)
    }

    /// Puts it until it is acknowledged. What it needs may be refused as unknown only after its grace has ended, and
    /// is uploaded again then.
    fn put_manifest(&mut self, at: usize, digest: &str, manifest: Manifest, tag: &str) -> anyhow::Result<()> {
        let name = self.repositories[at].name.clone();
        let ask = Ask::new(Method::PUT, format!("/v2/{name}/manifests/{tag}"))
            .header("content-type", MANIFEST)
            .body(manifest.bytes.clone());
        loop {
            let answer = self.wire.until_answered(&ask)?.expect(&[201, 400, 404], "PUT of a manifest")?;
            if answer.status == 201 {
                ensure!(
                    answer.header("docker-content-digest") == Some(digest),
                    "the server names another digest"
                );
                break;
            }
            for missing in missing(&answer)? {
                let repository = &self.repositories[at];
                ensure!(
                    !repository.must_hold(&missing, answer.answered, self.grace),
                    "{name} was said to hold {missing}, but a manifest that names it was refused: {}",
                    String::from_utf8_lossy(&answer.body)
                );
                let recipe = repository.blobs[&missing].recipe;
                self.repositories[at].blobs.remove(&missing);
                self.count("blobs that ran out in between");
                self.push_blob(at, recipe)?;
            }
        }
        let repository = &mut self.repositories[at];
        repository.gone.retain(|gone| gone != digest && gone != tag);
        repository.tags.insert(tag.to_owned(), digest.to_owned());
        repository.manifests.insert(digest.to_owned(), manifest);
        Ok(())
    }

    fn pull_image(&mut self, at: usize) -> anyhow::Result<bool> {
        let repository = &self.repositories[at];
        let Some(place) = self.dice.place(repository.manifests.len()) else { return Ok(false) };
        let Some((digest, manifest)) = repository.manifests.iter().nth(place) else { return Ok(false) };
        let tag = repository.tags.iter().find(|(_, target)| *target == digest).map(|(tag, _)| tag);
        let reference = tag.unwrap_or(digest).clone();
        pull(&mut self.wire, repository, &reference, digest, manifest)?;
        Ok(true)
    }

    /// Finds an old blob that no manifest keeps, and names it in one: "it exists" must not have been a lie.
    fn head_then_reference(&mut self, at: usize) -> anyhow::Result<bool> {
        let loose = self.repositories[at].loose();
        let Some(digest) = loose.first().cloned() else { return Ok(false) };
        let recipe = self.recipe();
        let config = self.push_blob(at, recipe)?;
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
        self.put_new_manifest(at, vec![config, digest])?;
        Ok(true)
    }

    /// HEAD of a blob; `false` when it is gone, which only the end of its grace allows.
    fn head(&mut self, at: usize, digest: &str) -> anyhow::Result<bool> {
        let name = &self.repositories[at].name;
        let ask = Ask::new(Method::HEAD, format!("/v2/{name}/blobs/{digest}"));
        let answer = self.wire.until_answered(&ask)?.expect(&[200, 404], "HEAD of a blob")?;
        if answer.status == 200 {
            self.repositories[at].renew(digest, answer.asked);
            return Ok(true);
        }
        ensure!(
            !self.repositories[at].must_hold(digest, answer.answered, self.grace),
            "{digest} of {} is gone before its grace has ended",
            self.repositories[at].name
        );
        self.repositories[at].blobs.remove(digest);
        self.count("blobs that ran out");
        Ok(false)
    }

    fn mount(&mut self, at: usize) -> anyhow::Result<bool> {
        let own = self.dice.one_in(2);
        let (from, digest, recipe) = if own {
            let other = self.dice.place(self.repositories.len()).unwrap_or_default();
            let source = &self.repositories[other];
            let Some(place) = self.dice.place(source.blobs.len()) else { return Ok(false) };
            let Some((digest, blob)) = source.blobs.iter().nth(place) else { return Ok(false) };
            (source.name.clone(), digest.clone(), blob.recipe)
        } else {
            let offers = self.offers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let Some(place) = self.dice.place(offers.len()) else { return Ok(false) };
            offers[place].clone()
        };
        let name = self.repositories[at].name.clone();
        let path = format!("/v2/{name}/blobs/uploads/?mount={digest}&from={from}");
        let answer = self.wire.until_answered(&Ask::new(Method::POST, path))?.expect(&[201, 202], "mount")?;
        if answer.status == 201 {
            self.repositories[at].blobs.entry(digest.clone()).or_insert(Blob { recipe, since: answer.asked });
            // Whoever it was mounted from is not asked to keep it for longer.
            self.repositories[at].renew(&digest, answer.asked);
            return Ok(true);
        }
        if let Some(source) = self.repositories.iter().find(|repository| repository.name == from) {
            ensure!(
                !source.must_hold(&digest, answer.answered, self.grace),
                "{digest} was not mounted from {from}, which holds it"
            );
        }
        self.count("mounts refused");
        uploading::cancel(&mut self.wire, answer.header("location").unwrap_or_default())?;
        Ok(false)
    }

    fn move_tag(&mut self, at: usize) -> anyhow::Result<bool> {
        let repository = &mut self.repositories[at];
        let Some(place) = self.dice.place(repository.manifests.len()) else { return Ok(false) };
        let Some(digest) = repository.manifests.keys().nth(place).cloned() else { return Ok(false) };
        let Some(manifest) = repository.manifests.get(&digest) else { return Ok(false) };
        let again = Manifest { bytes: manifest.bytes.clone(), keeps: manifest.keeps.clone() };
        let tag = format!("t{}", self.dice.below(40));
        self.put_manifest(at, &digest, again, &tag)?;
        Ok(true)
    }

    fn delete_tag(&mut self, at: usize) -> anyhow::Result<bool> {
        let repository = &self.repositories[at];
        let Some(place) = self.dice.place(repository.tags.len()) else { return Ok(false) };
        let Some(tag) = repository.tags.keys().nth(place).cloned() else { return Ok(false) };
        self.delete(&format!("/v2/{}/manifests/{tag}", repository.name))?;
        let repository = &mut self.repositories[at];
        repository.tags.remove(&tag);
        repository.gone.push(tag);
        Ok(true)
    }

    fn delete_manifest(&mut self, at: usize) -> anyhow::Result<bool> {
        let repository = &self.repositories[at];
        let Some(place) = self.dice.place(repository.manifests.len()) else { return Ok(false) };
        let Some(digest) = repository.manifests.keys().nth(place).cloned() else { return Ok(false) };
        let asked = std::time::Instant::now();
        self.delete(&format!("/v2/{}/manifests/{digest}", repository.name))?;
        self.repositories[at].forget_manifest(&digest, asked);
        Ok(true)
    }

    fn delete_blob(&mut self, at: usize) -> anyhow::Result<bool> {
        let loose = self.repositories[at].loose();
        let Some(place) = self.dice.place(loose.len()) else { return Ok(false) };
        let digest = &loose[place];
        let path = format!("/v2/{}/blobs/{digest}", self.repositories[at].name);
        let asked = Ask::new(Method::DELETE, &path);
        let lost = self.wire.lost;
        let answer = self.wire.until_answered(&asked)?.expect(&[202, 404], "DELETE of a blob")?;
        if answer.status == 404 && lost == self.wire.lost {
            ensure!(
                !self.repositories[at].must_hold(digest, answer.answered, self.grace),
                "{digest} is not there to be deleted, though its grace has not ended"
            );
        }
        self.wire.until_answered(&Ask::new(Method::HEAD, path))?.expect(&[404], "HEAD of a deleted blob")?;
        self.repositories[at].blobs.remove(digest);
        Ok(true)
    }

    /// Deletes a tag or manifest that is there.
    fn delete(&mut self, path: &str) -> anyhow::Result<()> {
        let lost = self.wire.lost;
        let answer = self.wire.until_answered(&Ask::new(Method::DELETE, path))?;
        // One that was lost may have been done.
        let allowed: &[u16] = if lost == self.wire.lost { &[202] } else { &[202, 404] };
        answer.expect(allowed, "DELETE")?;
        self.wire.until_answered(&Ask::new(Method::GET, path))?.expect(&[404], "GET of what was deleted")?;
        Ok(())
    }

    fn list_tags(&mut self, at: usize) -> anyhow::Result<bool> {
        list(&mut self.wire, &self.repositories[at])?;
        Ok(true)
    }
}

/// The digests that an answer says are missing.
fn missing(answer: &Answer) -> anyhow::Result<Vec<String>> {
    let document: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let error = &document["errors"][0];
    ensure!(error["code"] == "MANIFEST_BLOB_UNKNOWN", "PUT of a manifest was refused: {document}");
    let digests = error["detail"].as_array().into_iter().flatten();
    let missing: Vec<String> = digests.filter_map(|one| Some(one["digest"].as_str()?.to_owned())).collect();
    if missing.is_empty() {
        bail!("the refusal does not say what is missing: {document}");
    }
    Ok(missing)
}

/// Pulls a manifest and all that it keeps, and compares every byte.
pub fn pull(
    wire: &mut Wire<'_>,
    repository: &Repository,
    reference: &str,
    digest: &str,
    manifest: &Manifest,
) -> anyhow::Result<()> {
    let name = &repository.name;
    let ask = Ask::new(Method::GET, format!("/v2/{name}/manifests/{reference}")).header("accept", MANIFEST);
    let answer =
        wire.until_answered(&ask)?.expect(&[200], &format!("GET of {name}:{reference}, {digest}"))?;
    ensure!(answer.body == manifest.bytes, "{name}:{reference} is not what was put");
    ensure!(answer.header("docker-content-digest") == Some(digest), "{name}:{reference} has another digest");
    for kept in &manifest.keeps {
        let ask = Ask::new(Method::GET, format!("/v2/{name}/blobs/{kept}"));
        let answer =
            wire.until_answered(&ask)?.expect(&[200], &format!("GET of {kept} of {name}@{digest}"))?;
        ensure!(digest_of(&answer.body) == *kept, "the bytes of {kept} are others");
    }
    Ok(())
}

/// Compares the list of tags with the model.
pub fn list(wire: &mut Wire<'_>, repository: &Repository) -> anyhow::Result<()> {
    let answer = wire.until_answered(&Ask::new(Method::GET, format!("/v2/{}/tags/list", repository.name)))?;
    let known: Vec<&String> = repository.tags.keys().collect();
    // Without anything in it the repository may be unknown.
    let allowed: &[u16] = if repository.manifests.is_empty() { &[200, 404] } else { &[200] };
    let answer = answer.expect(allowed, "the list of tags")?;
    if answer.status == 200 {
        let document: serde_json::Value = serde_json::from_slice(&answer.body)?;
        ensure!(
            document["tags"] == serde_json::json!(known),
            "{}: {document} instead of {known:?}",
            repository.name
        );
    }
    Ok(())
}
