//! Which repositories there are, who may write to them, and how they come and go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::catalogue::{images, totals};
use super::settings::RepositorySettings;
use super::tables::{REPOSITORIES, RepositoryRecord, TotalsRecord};
use crate::names::{Millis, RepoName};
use crate::state::{Read, Scan, State, StateError, Tx};

/// A registry has this many repositories at most: all of their names are in memory, and one read gets them.
const REPOSITORIES_CAP: usize = 1_000;

/// The records are asked again after so long, where they could not be read.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// On whose behalf something is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A client of the registry, whoever it is.
    Client,
    /// Pantry itself: publishing, and its own images.
    Pantry,
}

/// The repository of a fresh root that clients write to.
const LOCAL: &str = "local";
/// Written by Pantry alone; they can be neither made nor removed, and retention leaves them alone.
const RESERVED: [&str; 2] = ["packages", "pantry"];

/// Whether only Pantry itself writes there.
#[must_use]
pub fn is_reserved(root: &str) -> bool {
    RESERVED.contains(&root)
}

/// The name of a repository: the first segment of what clients ask for.
///
/// *Limits*: `^[a-z0-9][a-z0-9._-]{0,62}$`, and a segment of a name as the OCI distribution specification takes it
/// (letters and digits at both ends, separators alone).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootName(String);

impl RootName {
    /// Parses a name.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let segment = !text.contains('/') && RepoName::parse(text).is_ok();
        if segment && text.len() <= 63 {
            Ok(Self(text.to_owned()))
        } else {
            Err("it must be 1 to 63 lowercase letters and digits, joined by `.`, `_`, `__` or `-`")
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How often clients used a repository since the start.
#[derive(Debug, Default)]
pub struct Traffic {
    pulls: AtomicU64,
    pushes: AtomicU64,
}

#[derive(Clone)]
struct Known {
    clients: bool,
    traffic: Arc<Traffic>,
}

/// The names of the repositories in memory, so that a request costs no read; clones share them.
#[derive(Clone)]
pub struct Repositories(Arc<Shared>);

struct Shared {
    state: State,
    known: RwLock<BTreeMap<String, Known>>,
    /// Loads happen one after another, so that none puts back what an older one saw.
    loading: tokio::sync::Mutex<()>,
}

impl Repositories {
    /// Those of a fresh root, until [`Repositories::load`] has read which there are.
    #[must_use]
    pub fn new(state: State) -> Self {
        let known = std::iter::once(LOCAL)
            .chain(RESERVED)
            .map(|name| (name.to_owned(), Known { clients: !is_reserved(name), traffic: Arc::default() }))
            .collect();
        Self(Arc::new(Shared { state, known: RwLock::new(known), loading: tokio::sync::Mutex::default() }))
    }

    /// Records those of a fresh root when there are none, and reads which there are: one short read, whatever they hold.
    /// What an older Pantry left without counters is counted then, once.
    ///
    /// # Errors
    /// [`StateError`] when the state fails.
    pub async fn load(&self, now: Millis) -> Result<(), StateError> {
        let _one = self.0.loading.lock().await;
        let seeded = self.0.state.read(|view| is_seeded(view)).await?;
        if !seeded {
            super::recount::recount(&self.0.state).await?;
            self.0.state.write(move |tx| seed(tx, now)).await?;
        }
        self.read().await
    }

    /// Reads anew which there are, after one came or went.
    ///
    /// # Errors
    /// [`StateError`] when the state cannot be read.
    pub async fn reload(&self) -> Result<(), StateError> {
        let _one = self.0.loading.lock().await;
        self.read().await
    }

    /// Whether this one came or went nobody knows, as a commit failed: it counts as not there until the records tell,
    /// which are asked until they answer.
    pub fn doubt(&self, root: &str) {
        self.0.known.write().unwrap_or_else(PoisonError::into_inner).remove(root);
        let this = self.clone();
        tokio::spawn(async move {
            while let Err(error) = this.reload_for_certain().await {
                if matches!(error, StateError::Closed) {
                    return;
                }
                tokio::time::sleep(ASKED_AGAIN_AFTER).await;
            }
        });
    }

    /// As [`Repositories::reload`], behind the writer: a read alone may still see what was before a commit that failed
    /// and took place, until the file was opened again.
    async fn reload_for_certain(&self) -> Result<(), StateError> {
        self.0.state.write(|tx| is_seeded(tx)).await?;
        self.reload().await
    }

    async fn read(&self) -> Result<(), StateError> {
        let rows = self.0.state.read(|view| view.scan(&REPOSITORIES, &Scan::all(), REPOSITORIES_CAP)).await?;
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = BTreeMap::new();
        for (name, record) in rows {
            if record.removed_at.is_none() {
                let traffic = known.get(&name).map(|known| Arc::clone(&known.traffic)).unwrap_or_default();
                next.insert(name.clone(), Known { clients: !is_reserved(&name), traffic });
            }
        }
        *known = next;
        Ok(())
    }

    fn with<T>(&self, root: &str, tell: impl FnOnce(&Known) -> T) -> Option<T> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).get(root).map(tell)
    }

    /// Tells whether there is a repository of this name, which is the first segment of what a client asks for.
    #[must_use]
    pub fn exists(&self, root: &str) -> bool {
        self.with(root, |_| ()).is_some()
    }

    /// Tells whether `who` may write below the first segment of `repo`; never for a repository that does not exist.
    #[must_use]
    pub fn writable(&self, repo: &RepoName, who: Writer) -> bool {
        self.with(repo.root(), |known| known.clients || who == Writer::Pantry).unwrap_or(false)
    }

    /// Counts a manifest that a client asked for and got.
    pub fn pulled(&self, repo: &RepoName) {
        self.with(repo.root(), |known| known.traffic.pulls.fetch_add(1, Ordering::Relaxed));
    }

    /// Counts a manifest that a client put.
    pub fn pushed(&self, repo: &RepoName) {
        self.with(repo.root(), |known| known.traffic.pushes.fetch_add(1, Ordering::Relaxed));
    }

    /// Each repository with its pulls and pushes since the start, by name.
    #[must_use]
    pub fn traffic(&self) -> Vec<(String, u64, u64)> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        known
            .iter()
            .map(|(name, known)| (name.clone(), count(&known.traffic.pulls), count(&known.traffic.pushes)))
            .collect()
    }
}

/// What is known of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryView {
    /// The first segment of the names below it.
    pub name: String,
    /// Only Pantry itself writes there.
    pub reserved: bool,
    /// When it was made.
    pub created_at: Millis,
    /// What the operator set.
    pub settings: RepositorySettings,
    /// What it holds, counted as it came and went.
    pub totals: Totals,
}

/// How much a repository holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Names below it that hold something.
    pub images: u64,
    /// Manifests of all images.
    pub manifests: u64,
    /// Tags of all images.
    pub tags: u64,
    /// Blobs, those that several images hold as often.
    pub blobs: u64,
    /// Bytes of these manifests and blobs; on disk what is shared lies once.
    pub bytes: u64,
}

impl From<TotalsRecord> for Totals {
    fn from(record: TotalsRecord) -> Self {
        let TotalsRecord { images, manifests, tags, blobs, bytes } = record;
        Self { images, manifests, tags, blobs, bytes }
    }
}

fn is_seeded(view: &impl Read) -> Result<bool, StateError> {
    Ok(view.get(&REPOSITORIES, &RESERVED[0].to_owned())?.is_some())
}

/// The reserved ones are never removed, so that their rows tell that this was done.
fn seed(tx: &mut Tx<'_>, now: Millis) -> Result<(), StateError> {
    if is_seeded(tx)? {
        return Ok(());
    }
    for name in std::iter::once(LOCAL).chain(RESERVED) {
        tx.put(&REPOSITORIES, &name.to_owned(), &new_record(now, RepositorySettings::default()))?;
    }
    Ok(())
}

fn new_record(now: Millis, settings: RepositorySettings) -> RepositoryRecord {
    RepositoryRecord { settings, created_at: now, removed_at: None }
}

fn view_of(view: &impl Read, name: String, record: RepositoryRecord) -> Result<RepositoryView, StateError> {
    let totals = totals(view, &name)?.into();
    let reserved = is_reserved(&name);
    Ok(RepositoryView { name, reserved, created_at: record.created_at, settings: record.settings, totals })
}

/// The repositories after `after` (exclusive) by name, `limit` (≤ 1,000) at most; a row and its counters each.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn repositories(
    view: &impl Read,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<RepositoryView>, StateError> {
    let mut found = Vec::new();
    let mut last = after.map(super::catalogue::cursor);
    while found.len() < limit {
        let mut scan = Scan::all();
        if let Some(last) = &last {
            scan = scan.after(last);
        }
        let rows = view.scan(&REPOSITORIES, &scan, limit)?;
        let ended = rows.len() < limit;
        for (name, record) in rows {
            last = Some(name.clone());
            if record.removed_at.is_none() && found.len() < limit {
                found.push(view_of(view, name, record)?);
            }
        }
        if ended {
            break;
        }
    }
    Ok(found)
}

/// One repository; `None` when there is none, or it is going.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn repository(view: &impl Read, name: &str) -> Result<Option<RepositoryView>, StateError> {
    match view.get(&REPOSITORIES, &name.to_owned())? {
        Some(record) if record.removed_at.is_none() => view_of(view, name.to_owned(), record).map(Some),
        _ => Ok(None),
    }
}

/// How making a repository ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is there now.
    Made,
    /// There is one of this name.
    Exists,
    /// One of this name is going, and what it held is not gone yet.
    Going,
    /// There are as many as there may be.
    TooMany,
}

/// Makes a local repository.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn add_repository(
    tx: &mut Tx<'_>,
    now: Millis,
    name: &RootName,
    settings: &RepositorySettings,
) -> Result<Added, StateError> {
    let key = name.as_str().to_owned();
    match tx.get(&REPOSITORIES, &key)? {
        Some(record) if record.removed_at.is_none() => return Ok(Added::Exists),
        Some(_) if !is_empty(tx, &key)? => return Ok(Added::Going),
        _ => {}
    }
    if tx.scan(&REPOSITORIES, &Scan::all(), REPOSITORIES_CAP)?.len() >= REPOSITORIES_CAP {
        return Ok(Added::TooMany);
    }
    tx.put(&REPOSITORIES, &key, &new_record(now, settings.clone()))?;
    Ok(Added::Made)
}

/// Replaces the settings; `false` when there is no such repository.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn set_repository(
    tx: &mut Tx<'_>,
    name: &str,
    settings: &RepositorySettings,
) -> Result<bool, StateError> {
    let key = name.to_owned();
    match tx.get(&REPOSITORIES, &key)? {
        Some(record) if record.removed_at.is_none() => {
            tx.put(&REPOSITORIES, &key, &RepositoryRecord { settings: settings.clone(), ..record })?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// How the removal of a repository began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removing {
    /// It is not seen any more; [`drain`](super::drain) takes away what it holds.
    Begun,
    /// There is none of this name.
    Unknown,
    /// It is one of Pantry's own.
    Reserved,
    /// It holds something, and `force` was not given.
    NotEmpty(Totals),
}

/// Begins the removal of a repository.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn begin_removal(tx: &mut Tx<'_>, now: Millis, name: &str, force: bool) -> Result<Removing, StateError> {
    let answer = may_remove(tx, name, force)?;
    if answer == Removing::Begun {
        let key = name.to_owned();
        if let Some(record) = tx.get(&REPOSITORIES, &key)? {
            tx.put(&REPOSITORIES, &key, &RepositoryRecord { removed_at: Some(now), ..record })?;
        }
    }
    Ok(answer)
}

/// How [`begin_removal`] would end; writes nothing.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn may_remove(view: &impl Read, name: &str, force: bool) -> Result<Removing, StateError> {
    if is_reserved(name) {
        return Ok(Removing::Reserved);
    }
    let Some(found) = repository(view, name)? else { return Ok(Removing::Unknown) };
    if !force && !is_empty(view, name)? {
        return Ok(Removing::NotEmpty(found.totals));
    }
    Ok(Removing::Begun)
}

fn is_empty(view: &impl Read, root: &str) -> Result<bool, StateError> {
    Ok(images(view, root, None, 1)?.is_empty())
}

/// The repositories that are going.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn going(view: &impl Read) -> Result<Vec<String>, StateError> {
    let rows = view.scan(&REPOSITORIES, &Scan::all(), REPOSITORIES_CAP)?;
    Ok(rows.into_iter().filter(|(_, record)| record.removed_at.is_some()).map(|(name, _)| name).collect())
}
