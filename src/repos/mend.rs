//! What of the rows does not fit together, who is affected by a damaged blob, and whether an owner still names one.

use super::catalogue;
use super::tables::{
    BLOBS, CATALOGUE, CatalogueRecord, HOLDERS, KEEPS, MANIFESTS, REPOSITORIES, TAGS, TAGS_OF, TOTALS,
    WANTED, WANTS,
};
use super::{holdings, manifests, recount, removal, wanted};
use crate::blobs::{self, Flaw, Mended, Owner, Stored};
use crate::names::{Digest, RepoName, Tag};
use crate::state::{MAX_SCAN_ROWS, Read, Scan, StateError, Tx};

/// Rows of one transaction: each of them asks some more.
const PAGE: usize = 100;
/// An image with more rows is not counted: it would keep every writer waiting.
const COUNTED: usize = 20_000;
/// Tags of an affected manifest that are told.
const TAGS_TOLD: usize = 20;

/// The phases of a run, in order.
const PHASES: [&str; 10] =
    ["manifests", "keeps", "wants", "wanted", "blobs", "holders", "tags", "tags-of", "catalogue", "totals"];

/// A manifest that needs a damaged blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affected {
    /// Its repository.
    pub repo: RepoName,
    /// As it is named.
    pub digest: Digest,
    /// Its first tags.
    pub tags: Vec<Tag>,
}

fn parse_key(key: &str) -> Option<(RepoName, Digest)> {
    let (repo, name) = key.rsplit_once('@')?;
    Some((RepoName::parse(repo).ok()?, Digest::parse(name).ok()?))
}

/// The manifests that need these bytes, the first `limit` (≤ 1,000).
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn affected(view: &impl Read, stored: &Digest, limit: usize) -> Result<Vec<Affected>, StateError> {
    let keys = blobs::owner_keys(view, stored, "manifest", "", limit)?;
    keys.iter()
        .filter_map(|key| parse_key(key))
        .map(|(repo, digest)| {
            let rows = view.scan(&TAGS_OF, &Scan::prefix(&(repo.clone(), digest.clone())), TAGS_TOLD)?;
            let tags = rows.into_iter().map(|((_, _, tag), ())| tag).collect();
            Ok(Affected { repo, digest, tags })
        })
        .collect()
}

/// Names by other algorithms under which repositories know these bytes, without repetition.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn names_of(view: &impl Read, stored: &Digest) -> Result<Vec<Digest>, StateError> {
    let mut names = Vec::new();
    for kind in ["manifest", "repository"] {
        for key in blobs::owner_keys(view, stored, kind, "", MAX_SCAN_ROWS)? {
            let Some((repo, name)) = parse_key(&key) else { continue };
            // A manifest refers to what it keeps too, which is not its own name.
            let own = match kind {
                "manifest" => view
                    .get(&MANIFESTS, &(repo, name.clone()))?
                    .is_some_and(|record| record.stored == *stored),
                _ => true,
            };
            if own && name != *stored && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// Whether the manifest of this key names the digest: as its own bytes, or as bytes that it keeps.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn manifest_stands(tx: &Tx<'_>, key: &str, digest: &Digest) -> Result<bool, StateError> {
    let Some((repo, name)) = parse_key(key) else { return Ok(false) };
    let Some(record) = tx.get(&MANIFESTS, &(repo.clone(), name.clone()))? else {
        // Its removal goes on.
        let going = removal::is_unfinished(tx, &repo, &name)?;
        return Ok(going && tx.get(&KEEPS, &(repo, name, digest.clone()))?.is_some());
    };
    Ok(record.stored == *digest || tx.get(&KEEPS, &(repo, name, digest.clone()))?.is_some())
}

/// Whether a repository holds the digest under this key.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn repository_stands(tx: &Tx<'_>, key: &str, digest: &Digest) -> Result<bool, StateError> {
    let Some(key) = parse_key(key) else { return Ok(false) };
    Ok(tx.get(&BLOBS, &key)?.is_some_and(|record| record.stored == *digest))
}

/// Looks at the next rows, and mends when `act`: references that are missing, reverse rows without their row, tags
/// without their manifest, wrong counts.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn mend(tx: &mut Tx<'_>, after: Option<&str>, act: bool) -> Result<Mended, StateError> {
    let (phase, at) = after.unwrap_or(PHASES[0]).split_once(' ').unwrap_or((after.unwrap_or(PHASES[0]), ""));
    let mut flaws = Vec::new();
    let (seen, next) = match phase {
        "keeps" => mend_keeps(tx, at, act, &mut flaws)?,
        "wants" => mend_wants(tx, at, act, &mut flaws)?,
        "wanted" => mend_wanted(tx, at, act, &mut flaws)?,
        "blobs" => mend_blobs(tx, at, act, &mut flaws)?,
        "holders" => mend_holders(tx, at, act, &mut flaws)?,
        "tags" => mend_tags(tx, at, act, &mut flaws)?,
        "tags-of" => mend_tags_of(tx, at, act, &mut flaws)?,
        "catalogue" => mend_catalogue(tx, at, act, &mut flaws)?,
        "totals" => mend_totals(tx, at, act, &mut flaws)?,
        _ => mend_manifests(tx, at, act, &mut flaws)?,
    };
    let next = if let Some(at) = next {
        Some(format!("{phase} {at}"))
    } else {
        let place = PHASES.iter().position(|known| *known == phase).unwrap_or_default();
        PHASES.get(place + 1).map(|next| (*next).to_owned())
    };
    Ok(Mended { next, seen, flaws })
}

type Stepped = Result<(u64, Option<String>), StateError>;

/// How many rows there were, and from where to go on.
fn stepped<K, V>(page: &[(K, V)], show: impl Fn(&K) -> String) -> (u64, Option<String>) {
    let next = page.last().filter(|_| page.len() == PAGE).map(|(key, _)| show(key));
    (page.len() as u64, next)
}

fn pair(at: &str) -> Option<(RepoName, Digest)> {
    let (repo, digest) = at.split_once(' ')?;
    Some((RepoName::parse(repo).ok()?, Digest::parse(digest).ok()?))
}

/// Refers to the bytes when the owner does not yet.
fn refer(
    tx: &mut Tx<'_>,
    digest: &Digest,
    kind: &'static str,
    owner: &Owner,
    key: &str,
    (size, act): (u64, bool),
    flaws: &mut Vec<Flaw>,
) -> Result<(), StateError> {
    if blobs::refers(tx, digest, owner)? {
        return Ok(());
    }
    let remedy = "the reference is written";
    flaws.push(Flaw::new("reference_missing", format!("{digest} for {kind} {key}"), remedy));
    if act {
        blobs::link(tx, &Stored::known(digest.clone(), size), owner)?;
    }
    Ok(())
}

fn mend_manifests(tx: &mut Tx<'_>, at: &str, act: bool, flaws: &mut Vec<Flaw>) -> Stepped {
    let scan = pair(at).map_or_else(Scan::all, |key| Scan::all().after(&key));
    let page = tx.scan(&MANIFESTS, &scan, PAGE)?;
    for ((repo, name), record) in &page {
        let (owner, key) = (manifests::owner(repo, name), format!("{repo}@{name}"));
        refer(tx, &record.stored, "manifest", &owner, &key, (record.size, act), flaws)?;
    }
    for image in images(&page, at) {
        mend_listing(tx, image, act, flaws)?;
    }
    Ok(stepped(&page, |(repo, name)| format!("{repo} {name}")))
}

/// The images of a page, without that of the page before.
fn images<'a, K, V>(page: &'a [((RepoName, K), V)], at: &str) -> Vec<&'a RepoName> {
    let mut images: Vec<&RepoName> = page.iter().map(|((image, _), _)| image).collect();
    images.dedup();
    let before = at.split_once(' ').map(|(image, _)| image);
    images.retain(|image| Some(image.as_str()) != before);
    images
}

/// An image that holds something is in the catalogue.
fn mend_listing(
    tx: &mut Tx<'_>,
    image: &RepoName,
    act: bool,
    flaws: &mut Vec<Flaw>,
) -> Result<(), StateError> {
    if catalogue::exists(tx, image)? {
        return Ok(());
    }
    flaws.push(Flaw::new("image_not_listed", image, "it is counted and listed"));
    if act {
        // One that is too large to be counted is listed all the same.
        let least = CatalogueRecord { manifests: 1, ..CatalogueRecord::default() };
        let counted = recount::counted(tx, image, COUNTED)?.unwrap_or(least);
        catalogue::count(tx, image, |held| *held = counted)?;
    }
    Ok(())
}

fn triple(at: &str) -> Option<(RepoName, Digest, Digest)> {
    let (pair_at, last) = at.rsplit_once(' ')?;
    let (repo, first) = pair(pair_at)?;
    Some((repo, first, Digest::parse(last).ok()?))
}

/// What manifests keep, however much one of them keeps.
fn mend_keeps(tx: &mut Tx<'_>, at: &str, act: bool, flaws: &mut Vec<Flaw>) -> Stepped {
    let scan = triple(at).map_or_else(Scan::all, |key| Scan::all().after(&key));
    let page = tx.scan(&KEEPS, &scan, PAGE)?;
    for ((repo, name, digest), ()) in &page {
        // Those of a manifest that is gone keep nothing.
        if tx.get(&MANIFESTS, &(repo.clone(), name.clone()))?.is_some() {
            let (owner, key) = (manifests::owner(repo, name), format!("{repo}@{name}"));
            refer(tx, digest, "manifest", &owner, &key, (0, act), flaws)?;
        }
    }
    Ok(stepped(&page, |(repo, name, digest)| format!("{repo} {name} {digest}")))
}

/// What manifests lack, manifest by manifest.
fn mend_wants(tx: &mut Tx<'_>, at: &str, act: bool, flaws: &mut Vec<Flaw>) -> Stepped {
    let scan = triple(at).map_or_else(Scan::all, |key| Scan::all().after(&key));
    let page = tx.scan(&WANTS, &scan, PAGE)?;
    for ((repo, manifest, name), ()) in &page {
        let subject = format!("{name} for {repo}@{manifest}");
        let wanted = (repo.clone(), name.clone(), manifest.clone());
        if tx.get(&MANIFESTS, &(repo.clone(), manifest.clone()))?.is_none() {
            flaws.push(Flaw::new("want_dangling", subject, "its manifest is gone: it is removed"));
            if act {
                wanted::got(tx, repo.clone(), manifest.clone(), name.clone())?;
            }
        } else if tx.get(&WANTED, &wanted)?.is_none() {
            flaws.push(Flaw::new("want_not_listed", subject, "the row is written"));
            if act {
                tx.put(&WANTED, &wanted, &())?;
            }
        }
    }
    Ok(stepped(&page, |(repo, manifest, name)| format!("{repo} {manifest} {name}")))
}

/// The same, name by name: whether it is there after all.
fn mend_wanted(tx: &mut Tx<'_>, at: &str, act: bool, flaws: &mut Vec<Flaw>) -> Stepped {
    let scan = triple(at).map_or_else(Scan::all, |key| Scan::all().after(&key));
    let page = tx.scan(&WANTED, &scan, PAGE)?;
    for ((repo, name, manifest), ()) in &page {
        let subject = format!("{name} for {repo}@{manifest}");
        if tx.get(&WANTS, &(repo.clone(), manifest.clone(), name.clone()))?.is_none() {
            flaws.push(Flaw::new("want_listed_wrongly", subject, "the row is removed"));
            if act {
                tx.delete(&WANTED, &(repo.clone(), name.clone(), manifest.clone()))?;
            }
        } else if let Some(stored) = manifests::resolve(tx, repo, name)? {
            flaws.push(Flaw::new("want_is_here", subject, "the manifest keeps it"));
            if act {
                wanted::keep(tx, repo.clone(), manifest.clone(), name.clone(), &stored)?;
            }
        }
    }
    Ok(stepped(&page, |(repo, name, manifest)| format!("{repo} {name} {manifest}")))
}

fn mend_blobs(tx: &mut Tx<'_>, at: &str, act: bool, flaws: &mut Vec<Flaw>) -> Stepped {
    let scan = pair(at).map_or_else(Scan::all, |key| Scan::all().after(&key));
    let page = tx.scan(&BLOBS, &scan, PAGE)?;
    for ((repo, name), record) in &page {
        let (owner, key) = (holdings::owner(repo, name), format!("{repo}@{name}"));
        refer(tx, &record.stored, "repository", &owner, &key, (record.size, act), flaws)?;
        let holder = (name.clone(), repo.clone());
        if tx.get(&HOLDERS, &holder)?.is_none() {
            flaws.push(Flaw::new("holder_missing", format!("{name} in {repo}"), "the row is written"));
            if act {
                tx.put(&HOLDERS, &holder, &())?;
            }
        }
    }
    for image in images(&page, at) {
        // One that holds manifests was looked at with these.
        if tx.scan(&MANIFESTS, &Scan::prefix(image), 1)?.is_empty() {
            mend_listing(tx, image, act, flaws)?;
        }
    }
    Ok(stepped(&page, |(repo, name)| format!("{repo} {name}")))
}

fn mend_holders(tx: &mut Tx<'_>, at: &str, act: bool, flaws: &mut Vec<Flaw>) -> Stepped {
    let scan = pair(at).map_or_else(Scan::all, |(repo, name)| Scan::all().after(&(name, repo)));
    let page = tx.scan(&HOLDERS, &scan, PAGE)?;
    for ((name, repo), ()) in &page {
        if tx.get(&BLOBS, &(repo.clone(), name.clone()))?.is_none() {
            flaws.push(Flaw::new("holder_dangling", format!("{name} in {repo}"), "the row is removed"));
            if act {
                tx.delete(&HOLDERS, &(name.clone(), repo.clone()))?;
            }
        }
    }
    Ok(stepped(&page, |(name, repo)| format!("{repo} {name}")))
}

fn mend_tags(tx: &mut Tx<'_>, at: &str, act: bool, flaws: &mut Vec<Flaw>) -> Stepped {
    let from =
        at.split_once(' ').and_then(|(repo, tag)| Some((RepoName::parse(repo).ok()?, Tag::parse(tag).ok()?)));
    let scan = from.map_or_else(Scan::all, |key| Scan::all().after(&key));
    let page = tx.scan(&TAGS, &scan, PAGE)?;
    for ((repo, tag), record) in &page {
        let reverse = (repo.clone(), record.digest.clone(), tag.clone());
        if tx.get(&MANIFESTS, &(repo.clone(), record.digest.clone()))?.is_none() {
            if removal::is_unfinished(tx, repo, &record.digest)? {
                continue;
            }
            flaws.push(Flaw::new(
                "tag_dangling",
                format!("{repo}:{tag}"),
                "its manifest is gone: it is removed",
            ));
            if act {
                tx.delete(&TAGS, &(repo.clone(), tag.clone()))?;
                tx.delete(&TAGS_OF, &reverse)?;
            }
        } else if tx.get(&TAGS_OF, &reverse)?.is_none() {
            flaws.push(Flaw::new("tag_not_listed", format!("{repo}:{tag}"), "the row is written"));
            if act {
                tx.put(&TAGS_OF, &reverse, &())?;
            }
        }
    }
    Ok(stepped(&page, |(repo, tag)| format!("{repo} {tag}")))
}

fn mend_tags_of(tx: &mut Tx<'_>, at: &str, act: bool, flaws: &mut Vec<Flaw>) -> Stepped {
    let mut parts = at.split(' ');
    let from = (|| {
        let repo = RepoName::parse(parts.next()?).ok()?;
        Some((repo, Digest::parse(parts.next()?).ok()?, Tag::parse(parts.next()?).ok()?))
    })();
    let scan = from.map_or_else(Scan::all, |key| Scan::all().after(&key));
    let page = tx.scan(&TAGS_OF, &scan, PAGE)?;
    for ((repo, digest, tag), ()) in &page {
        let points = tx.get(&TAGS, &(repo.clone(), tag.clone()))?;
        if points.is_none_or(|record| record.digest != *digest) {
            let subject = format!("{repo}:{tag} at {digest}");
            flaws.push(Flaw::new("tag_listed_wrongly", subject, "the row is removed"));
            if act {
                tx.delete(&TAGS_OF, &(repo.clone(), digest.clone(), tag.clone()))?;
            }
        }
    }
    Ok(stepped(&page, |(repo, digest, tag)| format!("{repo} {digest} {tag}")))
}

/// One image a call: its rows are counted in one transaction.
fn mend_catalogue(tx: &mut Tx<'_>, at: &str, act: bool, flaws: &mut Vec<Flaw>) -> Stepped {
    let from = RepoName::parse(at).ok();
    let scan = from.map_or_else(Scan::all, |repo| Scan::all().after(&repo));
    let Some((repo, record)) = tx.scan(&CATALOGUE, &scan, 1)?.into_iter().next() else {
        return Ok((0, None));
    };
    let next = Some(repo.to_string());
    let Some(counted) = recount::counted(tx, &repo, COUNTED)? else { return Ok((1, next)) };
    if record != counted {
        flaws.push(Flaw::new("count_wrong", &repo, "it is counted anew"));
        if act {
            catalogue::count(tx, &repo, |held| *held = counted)?;
        }
    }
    Ok((1, next))
}

/// One repository a call: what its images hold is added up in one transaction.
fn mend_totals(tx: &mut Tx<'_>, at: &str, act: bool, flaws: &mut Vec<Flaw>) -> Stepped {
    let scan = if at.is_empty() { Scan::all() } else { Scan::all().after(&at.to_owned()) };
    let Some((root, _)) = tx.scan(&REPOSITORIES, &scan, 1)?.into_iter().next() else { return Ok((0, None)) };
    let (record, next) = (catalogue::totals(tx, &root)?, Some(root.clone()));
    let Some(counted) = catalogue::added_up(tx, &root, COUNTED)? else { return Ok((1, next)) };
    if record != counted {
        flaws.push(Flaw::new("total_wrong", &root, "it is added up anew"));
        if act {
            tx.put(&TOTALS, &root, &counted)?;
        }
    }
    Ok((1, next))
}
