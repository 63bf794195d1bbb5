//! Counting anew: a file of before there were counters, and what repair looks at.

use std::collections::BTreeMap;

use super::tables::{BLOBS, CATALOGUE, CatalogueRecord, MANIFESTS, TAGS, TOTALS, TotalsRecord};
use crate::names::RepoName;
use crate::state::{Key, MAX_SCAN_ROWS, Read, Scan, State, StateError, Table, Value};

/// Counts what every image holds, and what those of a repository hold together, a bounded read at a time. Nobody may
/// write meanwhile.
pub(super) async fn recount(state: &State) -> Result<(), StateError> {
    let mut totals: BTreeMap<String, TotalsRecord> = BTreeMap::new();
    let mut after: Option<RepoName> = None;
    loop {
        let scan = after.take().map_or_else(Scan::all, |after| Scan::all().after(&after));
        let rows = state.read(move |view| view.scan(&CATALOGUE, &scan, MAX_SCAN_ROWS)).await?;
        let full = rows.len() == MAX_SCAN_ROWS;
        after = rows.last().map(|(name, _)| name.clone());
        for (image, before) in rows {
            let asked = image.clone();
            let record = state.read(move |view| counted(view, &asked, usize::MAX)).await?.unwrap_or(before);
            let total = totals.entry(image.root().to_owned()).or_default();
            total.images += 1;
            total.manifests += record.manifests;
            total.tags += record.tags;
            total.blobs += record.blobs;
            total.bytes = total.bytes.saturating_add(record.bytes);
            if record != before {
                state.write(move |tx| tx.put(&CATALOGUE, &image, &record)).await?;
            }
        }
        if !full {
            break;
        }
    }
    state
        .write(move |tx| {
            for (root, total) in &totals {
                tx.put(&TOTALS, root, total)?;
            }
            Ok(())
        })
        .await
}

/// Counts what an image holds; `None` when these are more than `cap` rows.
pub(super) fn counted(
    view: &impl Read,
    image: &RepoName,
    cap: usize,
) -> Result<Option<CatalogueRecord>, StateError> {
    let (mut left, mut bytes) = (cap, 0_u64);
    let blobs = rows(view, &BLOBS, image, &mut left, |blob| bytes = bytes.saturating_add(blob.size))?;
    let manifests =
        rows(view, &MANIFESTS, image, &mut left, |manifest| bytes = bytes.saturating_add(manifest.size))?;
    let tags = rows(view, &TAGS, image, &mut left, |_| ())?;
    let (Some(blobs), Some(manifests), Some(tags)) = (blobs, manifests, tags) else { return Ok(None) };
    Ok(Some(CatalogueRecord { manifests, blobs, tags, bytes }))
}

/// How many rows an image has in the table, as far as `left` goes.
fn rows<K: Key, V: Value>(
    view: &impl Read,
    table: &Table<(RepoName, K), V>,
    image: &RepoName,
    left: &mut usize,
    mut see: impl FnMut(&V),
) -> Result<Option<u64>, StateError> {
    let (mut scan, mut count) = (Scan::prefix(image), 0);
    loop {
        let page = view.scan(table, &scan, MAX_SCAN_ROWS)?;
        let Some((last, _)) = page.last() else { return Ok(Some(count)) };
        if page.len() > *left {
            return Ok(None);
        }
        *left -= page.len();
        scan = scan.after(last);
        count += page.len() as u64;
        for (_, row) in &page {
            see(row);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::names::{Digest, Faults, Millis, Tag};
    use crate::repos::Repositories;
    use crate::repos::tables::{ManifestRecord, TagRecord};
    use crate::repos::{Totals, repository};

    #[tokio::test]
    async fn a_file_of_before_there_were_counters_is_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state.redb"), Faults::none()).unwrap();
        let write = state.write(|tx| {
            for (image, tags) in [("local/a", 3), ("local/b", 0)] {
                let repo = RepoName::parse(image).unwrap();
                let digest = Digest::of(image.as_bytes());
                let manifest = ManifestRecord {
                    stored: digest.clone(),
                    media_type: String::new(),
                    size: 10,
                    subject: None,
                    pushed_at: Millis(1),
                };
                tx.put(&MANIFESTS, &(repo.clone(), digest.clone()), &manifest)?;
                for n in 0..tags {
                    let tag = Tag::parse(&format!("v{n}")).unwrap();
                    tx.put(
                        &TAGS,
                        &(repo.clone(), tag),
                        &TagRecord { digest: digest.clone(), set_at: Millis(1) },
                    )?;
                }
                let old = CatalogueRecord { manifests: 1, blobs: 0, tags: 0, bytes: 0 };
                tx.put(&CATALOGUE, &repo, &old)?;
            }
            Ok(())
        });
        write.await.unwrap();
        Repositories::new(state.clone()).load(Millis(2)).await.unwrap();
        let found = state.read(|view| repository(view, "local")).await.unwrap().unwrap();
        assert_eq!(found.totals, Totals { images: 2, manifests: 2, tags: 3, blobs: 0, bytes: 20 });
    }
}
