//! Typed tables, ranges of them, and what reads them.

use std::marker::PhantomData;
use std::ops::Bound;

use redb::ReadableTable;

use super::damage::Source;
use super::keys::{key_bytes, whole_key};
use super::{Key, StateError, Value};

/// The most rows that one scan gives.
pub const MAX_SCAN_ROWS: usize = 1_000;

/// A typed table: `pub(crate) const TAGS: Table<(RepoName, Tag), TagRecord> = Table::new("tags");`
pub struct Table<K, V> {
    name: &'static str,
    marker: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Table<K, V> {
    /// The table of this name; it comes into being with its first row.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, marker: PhantomData }
    }

    /// The name under which it is stored.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// Which rows: those whose key begins with a prefix, after a key (exclusive).
#[derive(Clone, Debug, Default)]
pub struct Scan {
    prefix: Vec<u8>,
    after: Option<Vec<u8>>,
}

impl Scan {
    /// Every row.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The rows whose key begins with these members, each of them whole.
    #[must_use]
    pub fn prefix<P: Key>(prefix: &P) -> Self {
        let mut bytes = Vec::new();
        prefix.encode(&mut bytes);
        Self { prefix: bytes, after: None }
    }

    /// Only the rows after this key: give the last key of the page before, to go on from there.
    #[must_use]
    pub fn after<K: Key>(self, key: &K) -> Self {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        Self { after: Some(bytes), ..self }
    }

    /// The bounds as bytes; `None` when no key can lie between them.
    pub(super) fn bounds(&self) -> Option<Bounds> {
        let lower = match &self.after {
            Some(after) if after.as_slice() >= self.prefix.as_slice() => Bound::Excluded(after.clone()),
            _ => Bound::Included(self.prefix.clone()),
        };
        let upper = successor(&self.prefix).map_or(Bound::Unbounded, Bound::Excluded);
        match (&lower, &upper) {
            (Bound::Included(low) | Bound::Excluded(low), Bound::Excluded(high)) if low >= high => None,
            _ => Some((lower, upper)),
        }
    }
}

/// A range of key bytes.
pub(super) type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The first bytes after all those that begin with `prefix`; `None` when there are none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

/// What can be read, inside a write (own writes are seen) or on a snapshot. Parts write `fn x(view: &impl Read, …)`.
pub trait Read {
    /// The value under a key.
    ///
    /// # Errors
    /// [`StateError`] when the storage fails or the stored row does not fit its types.
    fn get<K: Key, V: Value>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>, StateError>;

    /// At most `limit` (≤ [`MAX_SCAN_ROWS`]) rows in key order.
    ///
    /// # Errors
    /// [`StateError::ScanLimit`] for a greater limit; else as [`Read::get`].
    fn scan<K: Key, V: Value>(
        &self,
        table: &Table<K, V>,
        scan: &Scan,
        limit: usize,
    ) -> Result<Vec<(K, V)>, StateError>;
}

pub(super) type RawTable = redb::TableDefinition<'static, &'static [u8], &'static [u8]>;

type OpenSnapshot = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

/// Takes one row; `false` ends the scan.
pub(super) type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> bool + 'v;

/// Rows as bytes, where [`View`] and [`super::Tx`] read from.
pub(super) trait Rows {
    fn row(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;
    fn rows(&self, table: &'static str, bounds: &Bounds, visit: &mut Visit<'_>) -> Result<(), StateError>;
}

impl<R: Rows> Read for R {
    fn get<K: Key, V: Value>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>, StateError> {
        let name = table.name();
        let key = key_bytes(key).map_err(|error| error.in_table(name))?;
        match self.row(name, &key)? {
            Some(value) => V::from_bytes(&value).map(Some).map_err(|error| error.in_table(name)),
            None => Ok(None),
        }
    }

    fn scan<K: Key, V: Value>(
        &self,
        table: &Table<K, V>,
        scan: &Scan,
        limit: usize,
    ) -> Result<Vec<(K, V)>, StateError> {
        let name = table.name();
        if limit > MAX_SCAN_ROWS {
            return Err(StateError::ScanLimit { limit, max: MAX_SCAN_ROWS }.in_table(name));
        }
        let Some(bounds) = scan.bounds().filter(|_| limit > 0) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let mut failed = None;
        self.rows(name, &bounds, &mut |key, value| {
            match whole_key(key).and_then(|key| Ok((key, V::from_bytes(value)?))) {
                Ok(row) => found.push(row),
                Err(error) => failed = Some(error.in_table(name)),
            }
            failed.is_none() && found.len() < limit
        })?;
        failed.map_or(Ok(found), Err)
    }
}

/// Visits the rows of one redb table.
pub(super) fn visit_range(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    bounds: &Bounds,
    visit: &mut Visit<'_>,
) -> Result<(), StateError> {
    let bounds = (bounds.0.as_ref().map(Vec::as_slice), bounds.1.as_ref().map(Vec::as_slice));
    let failed = |error| StateError::storage("scan a table", error);
    for row in table.range::<&[u8]>(bounds).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        if !visit(key.value(), value.value()) {
            break;
        }
    }
    Ok(())
}

/// A snapshot: what was committed when the read began.
pub struct View<'a> {
    snapshot: &'a redb::ReadTransaction,
    source: &'a Source<'a>,
}

impl<'a> View<'a> {
    pub(super) fn new(snapshot: &'a redb::ReadTransaction, source: &'a Source<'a>) -> Self {
        Self { snapshot, source }
    }

    fn open(&self, table: &'static str) -> Result<Option<OpenSnapshot>, StateError> {
        match self.snapshot.open_table(RawTable::new(table)) {
            Ok(table) => Ok(Some(table)),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(StateError::storage("open a table", error).in_table(table)),
        }
    }
}

impl Rows for View<'_> {
    fn row(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.source.ask("read a row", || {
            let Some(open) = self.open(table)? else { return Ok(None) };
            let found =
                open.get(key).map_err(|error| StateError::storage("read a row", error).in_table(table))?;
            Ok(found.map(|value| value.value().to_vec()))
        })
    }

    fn rows(&self, table: &'static str, bounds: &Bounds, visit: &mut Visit<'_>) -> Result<(), StateError> {
        self.source.ask_rows(visit, |visit| {
            let Some(open) = self.open(table)? else { return Ok(()) };
            visit_range(&open, bounds, visit).map_err(|error| error.in_table(table))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_bytes_that_do_not_begin_with_it() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(&[1, 0xff, 0xff]), Some(vec![2]));
        assert_eq!(successor(&[0xff]), None);
        assert_eq!(successor(b""), None);
    }

    #[test]
    fn a_start_beyond_the_prefix_gives_no_range_instead_of_a_panic() {
        let prefix = Scan::prefix(&"b".to_owned());
        assert!(prefix.clone().after(&"c".to_owned()).bounds().is_none());
        assert!(prefix.clone().after(&"a".to_owned()).bounds().is_some());
        assert!(prefix.after(&("b".to_owned(), u64::MAX)).bounds().is_some());
    }
}
