//! The overlay on which the closure of a write works, and the batch into which it is merged.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use redb::{ReadableTable, WriteTransaction};

use super::damage::Source;
use super::keys::key_bytes;
use super::table::{Bounds, RawTable, Rows, Visit, visit_range};
use super::{Key, StateError, Table, Value};

/// What a closure changed, a table and key each: the new value, or `None` for a row that goes.
type Changes = HashMap<&'static str, BTreeMap<Vec<u8>, Option<Vec<u8>>>>;

/// The transaction of one closure: reads its own writes and those of the batch, merged only when it returns `Ok`.
pub struct Tx<'a> {
    base: &'a dyn Rows,
    changes: Changes,
}

impl<'a> Tx<'a> {
    pub(super) fn new(base: &'a dyn Rows) -> Self {
        Self { base, changes: Changes::new() }
    }

    pub(super) fn into_changes(self) -> Changes {
        self.changes
    }

    /// Writes a row.
    ///
    /// # Errors
    /// [`StateError::ValueTooLarge`], [`StateError::KeyTooLarge`] or [`StateError::Record`]; nothing is written then.
    pub fn put<K: Key, V: Value>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), StateError> {
        let name = table.name();
        let bytes = value.to_bytes().map_err(|error| error.in_table(name))?;
        if bytes.len() > V::MAX_BYTES {
            return Err(StateError::ValueTooLarge { size: bytes.len(), cap: V::MAX_BYTES }.in_table(name));
        }
        self.change(name, key, Some(bytes))
    }

    /// Removes a row; nothing happens when there is none.
    ///
    /// # Errors
    /// [`StateError::KeyTooLarge`].
    pub fn delete<K: Key, V: Value>(&mut self, table: &Table<K, V>, key: &K) -> Result<(), StateError> {
        self.change(table.name(), key, None)
    }

    fn change(
        &mut self,
        table: &'static str,
        key: &impl Key,
        value: Option<Vec<u8>>,
    ) -> Result<(), StateError> {
        let key = key_bytes(key).map_err(|error| error.in_table(table))?;
        self.changes.entry(table).or_default().insert(key, value);
        Ok(())
    }
}

impl Rows for Tx<'_> {
    fn row(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        match self.changes.get(table).and_then(|rows| rows.get(key)) {
            Some(change) => Ok(change.clone()),
            None => self.base.row(table, key),
        }
    }

    fn rows(&self, table: &'static str, bounds: &Bounds, visit: &mut Visit<'_>) -> Result<(), StateError> {
        let Some(changed) = self.changes.get(table) else { return self.base.rows(table, bounds, visit) };
        let mut own = changed.range(bounds.clone()).peekable();
        let mut wanted = true;
        self.base.rows(table, bounds, &mut |key, value| {
            while let Some((own_key, own_value)) = own.next_if(|(own_key, _)| own_key.as_slice() < key) {
                if let Some(own_value) = own_value {
                    wanted = visit(own_key, own_value);
                    if !wanted {
                        return false;
                    }
                }
            }
            match own.next_if(|(own_key, _)| own_key.as_slice() == key) {
                Some((_, None)) => {}
                Some((_, Some(own_value))) => wanted = visit(key, own_value),
                None => wanted = visit(key, value),
            }
            wanted
        })?;
        for (key, value) in own {
            if !wanted {
                break;
            }
            if let Some(value) = value {
                wanted = visit(key, value);
            }
        }
        Ok(())
    }
}

type OpenTable<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// The write transaction that a batch of closures shares, with the tables it has opened.
pub(super) struct Batch<'t> {
    transaction: &'t WriteTransaction,
    source: Source<'t>,
    tables: RefCell<HashMap<&'static str, OpenTable<'t>>>,
    changed_bytes: usize,
    changed: bool,
}

impl<'t> Batch<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction, path: &'t Path) -> Self {
        let (source, tables) = (Source::new(path), RefCell::default());
        Self { transaction, source, tables, changed_bytes: 0, changed: false }
    }

    /// Whether the storage failed in a read of a closure, so that nothing may be committed.
    pub(super) fn failed(&self) -> bool {
        self.source.failed()
    }

    /// Whether there is anything to commit.
    pub(super) fn changed(&self) -> bool {
        self.changed
    }

    /// How many bytes of keys and values were merged.
    pub(super) fn changed_bytes(&self) -> usize {
        self.changed_bytes
    }

    /// Takes over what one closure changed.
    pub(super) fn merge(&mut self, changes: Changes) -> Result<(), StateError> {
        for (name, rows) in changes {
            for (key, value) in rows {
                self.changed = true;
                self.changed_bytes += key.len() + value.as_ref().map_or(0, Vec::len);
                self.with_table(name, |table| match &value {
                    Some(value) => table.insert(key.as_slice(), value.as_slice()).map(drop),
                    None => table.remove(key.as_slice()).map(drop),
                })?
                .map_err(|error| StateError::storage("write a row", error).in_table(name))?;
            }
        }
        Ok(())
    }

    fn with_table<R>(
        &self,
        name: &'static str,
        act: impl FnOnce(&mut OpenTable<'t>) -> R,
    ) -> Result<R, StateError> {
        let mut tables = self.tables.borrow_mut();
        if let Some(table) = tables.get_mut(name) {
            return Ok(act(table));
        }
        let table = self
            .transaction
            .open_table(RawTable::new(name))
            .map_err(|error| StateError::storage("open a table", error).in_table(name))?;
        Ok(act(tables.entry(name).or_insert(table)))
    }
}

impl Rows for Batch<'_> {
    fn row(&self, table: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.source.ask("read a row", || {
            self.with_table(table, |open| Ok(open.get(key)?.map(|value| value.value().to_vec())))?
                .map_err(|error: redb::StorageError| StateError::storage("read a row", error).in_table(table))
        })
    }

    fn rows(&self, table: &'static str, bounds: &Bounds, visit: &mut Visit<'_>) -> Result<(), StateError> {
        self.source.ask_rows(visit, |visit| {
            self.with_table(table, |open| visit_range(open, bounds, visit))?
                .map_err(|error| error.in_table(table))
        })
    }
}
