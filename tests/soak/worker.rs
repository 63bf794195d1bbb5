//! One client at work: it picks an act, does it until it is acknowledged, and compares every answer with its model.
//!
//! Each act draws from numbers of its own, which follow from the seed, the client and the number of the act alone: what
//! a death makes it do twice does not change what comes after.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::ensure;
use reqwest::Method;

use super::history::History;
use super::model::{Content, Document, Repository, Rules, long_digest_of};
use super::random::Dice;
use super::reading::list;
use super::server::Server;
use super::uploading;
use super::wire::{Ask, Wire};

/// A repository is pruned from this many manifests on.
const FULL: usize = 25;
/// Contents that all workers push again and again, each to its own repositories.
const POOL: u64 = 40;
/// Below, at, and above what the state file takes in; the last are files.
const SIZES: [usize; 10] = [0, 1, 700, 20_000, 32_767, 32_768, 32_769, 70_000, 300_000, 1_000_000];
/// So many tags are kept where retention is at work.
const KEEP_LAST: usize = 5;

/// What the workers know of each other: blobs that one of them held a moment ago.
pub type Offers = Mutex<Vec<(String, String, Content)>>;

/// What all clients share.
pub struct Common<'s> {
    pub server: &'s Server,
    pub offers: &'s Offers,
    /// The contents of all begin here.
    pub pool: u64,
    pub grace: Duration,
    pub began: Instant,
}

/// A client with repositories of its own.
pub struct Worker<'s> {
    pub wire: Wire<'s>,
    pub repositories: Vec<Repository>,
    /// How often each kind of act was done.
    pub counts: BTreeMap<&'static str, u64>,
    /// The repository of the act that is under way.
    pub at: usize,
    pub(super) dice: Dice,
    pub(super) grace: Duration,
    /// Every blob and manifest that was ever named, by name.
    pub(super) contents: BTreeMap<String, Content>,
    pub(super) documents: BTreeMap<String, Arc<Document>>,
    /// How many manifests.
    pub(super) made: u64,
    seed: u64,
    acts: u64,
    pool: u64,
    offers: &'s Offers,
}

impl<'s> Worker<'s> {
    pub fn new(common: &Common<'s>, number: usize, seed: u64) -> anyhow::Result<Self> {
        let root = |kind: &str| Some(format!("{kind}-w{number}"));
        let sparse = Rules { root: root("sparse"), sparse: true, keep_last: None };
        let lean = Rules { root: root("lean"), sparse: false, keep_last: Some(KEEP_LAST) };
        let repositories = vec![
            Repository::new(format!("local/soak/w{number}/r0"), Rules::default()),
            Repository::new(format!("local/soak/w{number}/r1"), Rules::default()),
            Repository::new(format!("sparse-w{number}/r2"), sparse),
            Repository::new(format!("lean-w{number}/r3"), lean),
        ];
        let history = History::new(&common.server.root, number, common.began)?;
        let mut worker = Self {
            wire: Wire::new(common.server, history)?,
            repositories,
            counts: BTreeMap::new(),
            at: 0,
            dice: Dice::new(seed),
            grace: common.grace,
            contents: BTreeMap::new(),
            documents: BTreeMap::new(),
            made: 0,
            seed,
            acts: 0,
            pool: common.pool,
            offers: common.offers,
        };
        for at in 0..worker.repositories.len() {
            worker.make_root(at, &[201])?;
        }
        Ok(worker)
    }

    /// Does one act to its end.
    pub fn act(&mut self) -> anyhow::Result<()> {
        self.acts += 1;
        self.dice = Dice::new(self.seed ^ self.acts.wrapping_mul(0xd134_2543_de82_ef95));
        let at = self.dice.place(self.repositories.len()).unwrap_or_default();
        self.at = at;
        let full = self.repositories[at].manifests.len() >= FULL;
        let act = match self.dice.below(100) {
            0..26 if full => "delete manifest",
            0..16 => "push image",
            16..21 => "push index",
            21..26 => "push referrer",
            26..34 => "pull image",
            34..42 => "push blob",
            42..54 => "head, then reference",
            54..63 => "mount",
            63..68 => "move tag",
            68..73 => "delete tag",
            73..81 => "delete manifest",
            81..88 => "delete blob",
            88..93 => "bring what is owed",
            93..95 => "list tags",
            95..97 => "ask for referrers",
            97..99 => "apply retention",
            _ => "remove repository",
        };
        self.wire.history.begin(self.acts, &format!("{act}: {}", self.repositories[at].name))?;
        let done = match act {
            "push image" => self.push_image(at)?,
            "push index" => self.push_index(at)?,
            "push referrer" => self.push_referrer(at)?,
            "pull image" => self.pull_image(at)?,
            "push blob" => self.push_some_blob(at)?,
            "head, then reference" => self.head_then_reference(at)?,
            "mount" => self.mount(at)?,
            "move tag" => self.move_tag(at)?,
            "delete tag" => self.delete_tag(at)?,
            "delete manifest" => self.delete_manifest(at)?,
            "delete blob" => self.delete_blob(at)?,
            "bring what is owed" => self.bring_what_is_owed(at)?,
            "ask for referrers" => self.ask_for_referrers(at)?,
            "apply retention" => self.apply_retention(at)?,
            "remove repository" => self.remove_repository(at)?,
            _ => !list(&mut self.wire, &self.repositories[at])?.is_empty(),
        };
        if done {
            self.count(act);
        }
        Ok(())
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Something new, or something of the pool that others push too.
    pub(super) fn content(&mut self) -> Content {
        let seed = if self.dice.one_in(2) { self.pool + self.dice.below(POOL) } else { self.dice.next() };
        let size = SIZES[Dice::new(seed ^ 1).place(SIZES.len()).unwrap_or_default()];
        Content::new(seed, size)
    }

    /// One of its two names.
    pub(super) fn name(&mut self, content: &Content) -> String {
        let digest = if self.dice.one_in(4) {
            self.count("named by sha512");
            long_digest_of(&content.bytes())
        } else {
            content.sha256.clone()
        };
        self.contents.insert(digest.clone(), content.clone());
        digest
    }

    fn push_some_blob(&mut self, at: usize) -> anyhow::Result<bool> {
        let content = self.content();
        let digest = self.name(&content);
        self.push_blob(at, &digest, &content)?;
        Ok(true)
    }

    /// Uploads until it is acknowledged.
    pub(super) fn push_blob(&mut self, at: usize, digest: &str, content: &Content) -> anyhow::Result<()> {
        let name = self.repositories[at].name.clone();
        self.wire.history.note(&format!("uploads {digest}, {} bytes", content.size))?;
        let asked = uploading::upload(&mut self.wire, &mut self.dice, &name, &content.bytes(), digest)?;
        self.repositories[at].arrive(digest, content, asked);
        let mut offers = self.offers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        offers.push((name, digest.to_owned(), content.clone()));
        if offers.len() > 200 {
            offers.drain(..100);
        }
        Ok(())
    }

    /// Uploads a blob that a manifest names and the repository does not hold.
    fn bring_what_is_owed(&mut self, at: usize) -> anyhow::Result<bool> {
        let owed = self.repositories[at].owed();
        let Some(place) = self.dice.place(owed.len()) else { return Ok(false) };
        let Some(digest) = owed.iter().nth(place) else { return Ok(false) };
        let content = self.contents[digest].clone();
        self.push_blob(at, digest, &content)?;
        Ok(true)
    }

    /// HEAD of a blob; `false` when it is gone, which only the end of its grace allows.
    pub(super) fn head(&mut self, at: usize, digest: &str) -> anyhow::Result<bool> {
        let name = &self.repositories[at].name;
        let ask = Ask::new(Method::HEAD, format!("/v2/{name}/blobs/{digest}"));
        let answer = self.wire.until_answered(&ask)?.expect(&[200, 404], "HEAD of a blob")?;
        if answer.status == 200 {
            self.repositories[at].arrive(digest, &self.contents[digest], answer.asked);
            return Ok(true);
        }
        ensure!(
            !self.repositories[at].must_hold(digest, answer.answered, self.grace),
            "{digest} of {name} is gone before its grace has ended"
        );
        self.repositories[at].blobs.remove(digest);
        self.count("blobs that ran out");
        Ok(false)
    }

    fn mount(&mut self, at: usize) -> anyhow::Result<bool> {
        let own = self.dice.one_in(2);
        let (from, digest, content) = if own {
            let other = self.dice.place(self.repositories.len()).unwrap_or_default();
            let source = &self.repositories[other];
            let Some(place) = self.dice.place(source.blobs.len()) else { return Ok(false) };
            let Some((digest, blob)) = source.blobs.iter().nth(place) else { return Ok(false) };
            (source.name.clone(), digest.clone(), blob.content.clone())
        } else {
            let offers = self.offers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let Some(place) = self.dice.place(offers.len()) else { return Ok(false) };
            offers[place].clone()
        };
        self.contents.insert(digest.clone(), content.clone());
        self.wire.history.note(&format!("mounts {digest} from {from}"))?;
        let name = self.repositories[at].name.clone();
        let path = format!("/v2/{name}/blobs/uploads/?mount={digest}&from={from}");
        let lost = self.wire.lost;
        let answer = self.wire.until_answered(&Ask::new(Method::POST, path))?.expect(&[201, 202], "mount")?;
        if answer.status == 201 {
            // Whoever it was mounted from is not asked to keep it for longer.
            self.repositories[at].arrive(&digest, &content, answer.asked);
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
        if lost != self.wire.lost {
            // One that was lost may have been done before the source let go.
            self.head(at, &digest)?;
        }
        Ok(false)
    }

    /// Deletes a blob that no manifest keeps, or one that some do: they keep the bytes, and the repository does not.
    fn delete_blob(&mut self, at: usize) -> anyhow::Result<bool> {
        let repository = &self.repositories[at];
        let kept = self.dice.one_in(4);
        let some: Vec<String> =
            if kept { repository.blobs.keys().cloned().collect() } else { repository.loose() };
        let Some(place) = self.dice.place(some.len()) else { return Ok(false) };
        let digest = &some[place];
        let path = format!("/v2/{}/blobs/{digest}", repository.name);
        let asked = Ask::new(Method::DELETE, &path);
        let lost = self.wire.lost;
        let answer = self.wire.until_answered(&asked)?.expect(&[202, 404], "DELETE of a blob")?;
        if answer.status == 404 && lost == self.wire.lost {
            ensure!(
                !repository.must_hold(digest, answer.answered, self.grace),
                "{digest} of {} is not there to be deleted, though it must be",
                repository.name
            );
        }
        self.wire
            .until_answered(&Ask::new(Method::HEAD, path))?
            .expect(&[404], &format!("HEAD of {digest} of {}, which was deleted", repository.name))?;
        self.repositories[at].blobs.remove(digest);
        Ok(true)
    }
}
