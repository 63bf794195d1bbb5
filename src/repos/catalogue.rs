//! The list of repositories that hold something.

use super::tables::{CATALOGUE, CatalogueRecord};
use crate::names::RepoName;
use crate::state::{Read, Scan, StateError, Tx};

/// No repository name or tag has more characters.
const CURSOR_CHARACTERS: usize = 256;

/// The repositories after `after` (exclusive) in byte order, `limit` (≤ 1,000) at most.
///
/// # Errors
/// [`StateError`] when the state cannot be read.
pub fn catalogue(view: &impl Read, after: Option<&str>, limit: usize) -> Result<Vec<RepoName>, StateError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let mut scan = Scan::all();
    if let Some(after) = after {
        scan = scan.after(&cursor(after));
    }
    let rows = view.scan(&CATALOGUE, &scan, limit)?;
    Ok(rows.into_iter().map(|(name, _)| name).collect())
}

/// The text as the key of a cursor: longer ones are cut where no name reaches, which keeps their place in the order.
pub(super) fn cursor(text: &str) -> String {
    text.chars().take(CURSOR_CHARACTERS).collect()
}

/// Tells whether the repository holds something.
pub(super) fn exists(view: &impl Read, repo: &RepoName) -> Result<bool, StateError> {
    Ok(view.get(&CATALOGUE, repo)?.is_some())
}

/// Counts what came and went; the row goes with the last of it.
pub(super) fn count(
    tx: &mut Tx<'_>,
    repo: &RepoName,
    change: impl FnOnce(&mut CatalogueRecord),
) -> Result<(), StateError> {
    let mut record = tx.get(&CATALOGUE, repo)?.unwrap_or_default();
    change(&mut record);
    if record.manifests == 0 && record.blobs == 0 {
        tx.delete(&CATALOGUE, repo)
    } else {
        tx.put(&CATALOGUE, repo, &record)
    }
}
