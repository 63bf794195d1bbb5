//! The list of the images that hold something, and the counters kept with it.

use super::tables::{CATALOGUE, CatalogueRecord, TOTALS, TotalsRecord};
use crate::names::RepoName;
use crate::state::{MAX_SCAN_ROWS, Read, Scan, StateError, Tx};

/// No repository name or tag has more characters.
const CURSOR_CHARACTERS: usize = 256;

/// An image of a repository: a name below it that holds something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageView {
    /// Its whole name.
    pub name: RepoName,
    /// How many manifests it holds.
    pub manifests: u64,
    /// How many tags it has.
    pub tags: u64,
    /// The bytes of its manifests and blobs.
    pub bytes: u64,
}

/// Tells of the first segment of a name whether what lies below it is seen: what is being removed is not.
pub type Seen<'a> = &'a dyn Fn(&str) -> bool;

/// The repositories after `after` (exclusive) in byte order, `limit` (≤ 1,000) at most, of those that are `seen`.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn catalogue(
    view: &impl Read,
    seen: Seen<'_>,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<RepoName>, StateError> {
    let mut found = Vec::new();
    let mut from = after.map(cursor);
    while found.len() < limit {
        let want = limit - found.len();
        let scan = from.as_ref().map_or_else(Scan::all, |from| Scan::all().after(from));
        let page = view.scan(&CATALOGUE, &scan, want)?;
        let ended = page.len() < want;
        let mut hidden = None;
        for (name, _) in page {
            from = Some(name.to_string());
            if seen(name.root()) {
                found.push(name);
            } else {
                hidden = Some(name);
                break;
            }
        }
        match hidden {
            // What lies below it stands together in the order, and none of it is looked at.
            Some(name) if name.as_str() != name.root() => from = Some(format!("{}/~", name.root())),
            None if ended => break,
            Some(_) | None => {}
        }
    }
    Ok(found)
}

/// The images of the repository `root` after `after` (exclusive) in byte order, `limit` (≤ 1,000) at most.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn images(
    view: &impl Read,
    root: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<ImageView>, StateError> {
    let tell = |name, record: CatalogueRecord| ImageView {
        name,
        manifests: record.manifests,
        tags: record.tags,
        bytes: record.bytes,
    };
    let mut found = Vec::new();
    // Content may lie under the bare name; in order, names of other repositories stand between it and what is below.
    if after.is_none_or(|after| after < root)
        && limit > 0
        && let Ok(bare) = RepoName::parse(root)
        && let Some(record) = view.get(&CATALOGUE, &bare)?
    {
        found.push(tell(bare, record));
    }
    let below = format!("{root}/");
    let from = after.filter(|after| *after > below.as_str()).map_or(below, cursor);
    let rows = view.scan(&CATALOGUE, &Scan::all().after(&from), limit - found.len())?;
    found.extend(
        rows.into_iter().take_while(|(name, _)| name.root() == root).map(|(name, record)| tell(name, record)),
    );
    Ok(found)
}

/// Rows that are read first of a range; most ranges of somebody with many are small.
const FIRST_ROWS: usize = 16;

/// The repositories of these names and below them, after `after`, as [`catalogue`]. The names are in order and none is
/// below another. Costs a few rows a name and those that are listed, however many repositories there are.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn catalogue_below(
    view: &impl Read,
    seen: Seen<'_>,
    names: &[RepoName],
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<RepoName>, StateError> {
    // In the order of names `a-b` stands between `a` and `a/b`: so each name makes two ranges, itself and what is below.
    let mut ranges: Vec<(String, Option<RepoName>)> = Vec::with_capacity(2 * names.len());
    for name in names.iter().filter(|name| seen(name.root())) {
        ranges.push((name.to_string(), Some(name.clone())));
        ranges.push((format!("{name}/"), None));
    }
    ranges.sort_unstable();
    let mut found: Vec<RepoName> = Vec::new();
    let after = after.map(cursor);
    for (range, alone) in ranges {
        if found.len() >= limit {
            break;
        }
        match alone {
            Some(name) => {
                if after.as_deref().is_none_or(|after| after < name.as_str()) && exists(view, &name)? {
                    found.push(name);
                }
            }
            None => below(view, &range, after.as_deref(), limit, &mut found)?,
        }
    }
    Ok(found)
}

/// The repositories whose names begin with `prefix`, up to `limit` in `found`.
fn below(
    view: &impl Read,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
    found: &mut Vec<RepoName>,
) -> Result<(), StateError> {
    let mut from = prefix.to_owned();
    if let Some(after) = after
        && after > prefix
    {
        if !after.starts_with(prefix) {
            return Ok(());
        }
        after.clone_into(&mut from);
    }
    let mut rows = FIRST_ROWS;
    loop {
        let want = rows.min(limit - found.len());
        if want == 0 {
            return Ok(());
        }
        let page = view.scan(&CATALOGUE, &Scan::all().after(&from), want)?;
        let whole = page.len() == want;
        for (name, _) in page {
            if !name.as_str().starts_with(prefix) {
                return Ok(());
            }
            name.as_str().clone_into(&mut from);
            found.push(name);
        }
        if !whole {
            return Ok(());
        }
        rows = limit;
    }
}

/// The text as the key of a cursor: longer ones are cut where no name reaches, which keeps their place in the order.
pub(super) fn cursor(text: &str) -> String {
    text.chars().take(CURSOR_CHARACTERS).collect()
}

/// Tells whether the repository holds something.
pub(super) fn exists(view: &impl Read, repo: &RepoName) -> Result<bool, StateError> {
    Ok(view.get(&CATALOGUE, repo)?.is_some())
}

/// What the images of a repository hold together.
pub(super) fn totals(view: &impl Read, root: &str) -> Result<TotalsRecord, StateError> {
    Ok(view.get(&TOTALS, &root.to_owned())?.unwrap_or_default())
}

/// The same, added up image by image; `None` when these are more than `cap`.
pub(super) fn added_up(view: &impl Read, root: &str, cap: usize) -> Result<Option<TotalsRecord>, StateError> {
    let mut sum = TotalsRecord::default();
    let mut add = |record: CatalogueRecord| {
        sum.images += 1;
        sum.manifests += record.manifests;
        sum.tags += record.tags;
        sum.blobs += record.blobs;
        sum.bytes = sum.bytes.saturating_add(record.bytes);
    };
    if let Ok(bare) = RepoName::parse(root)
        && let Some(record) = view.get(&CATALOGUE, &bare)?
    {
        add(record);
    }
    let (mut from, mut left) = (format!("{root}/"), cap);
    loop {
        let page = view.scan(&CATALOGUE, &Scan::all().after(&from), MAX_SCAN_ROWS)?;
        for (name, record) in &page {
            if name.root() != root {
                return Ok(Some(sum));
            }
            if left == 0 {
                return Ok(None);
            }
            left -= 1;
            add(*record);
        }
        match page.last() {
            Some((last, _)) => from = last.to_string(),
            None => return Ok(Some(sum)),
        }
    }
}

/// Counts what came and went, for the image and for its repository; the image's row goes with the last of it.
pub(super) fn count(
    tx: &mut Tx<'_>,
    repo: &RepoName,
    change: impl FnOnce(&mut CatalogueRecord),
) -> Result<(), StateError> {
    let before = tx.get(&CATALOGUE, repo)?;
    let mut record = before.unwrap_or_default();
    change(&mut record);
    // Tags alone are those of a manifest that has just gone: they are counted until they are gone too.
    let kept = record.manifests > 0 || record.blobs > 0 || record.tags > 0;
    if kept {
        tx.put(&CATALOGUE, repo, &record)?;
    } else {
        record = CatalogueRecord::default();
        tx.delete(&CATALOGUE, repo)?;
    }
    let was = before.unwrap_or_default();
    let mut totals = totals(tx, repo.root())?;
    let moved = |total: &mut u64, was: u64, is: u64| *total = total.saturating_add(is).saturating_sub(was);
    moved(&mut totals.images, before.is_some().into(), kept.into());
    moved(&mut totals.manifests, was.manifests, record.manifests);
    moved(&mut totals.tags, was.tags, record.tags);
    moved(&mut totals.blobs, was.blobs, record.blobs);
    moved(&mut totals.bytes, was.bytes, record.bytes);
    tx.put(&TOTALS, &repo.root().to_owned(), &totals)
}
