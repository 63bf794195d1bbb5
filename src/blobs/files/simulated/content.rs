//! What a disk in memory holds: bytes and names, as a reader sees them and as a loss of power leaves them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// How much of a write is kept or lost at once.
const PAGE_BYTES: usize = 4_096;

/// The bytes of a file: as a reader sees them, and as the disk has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) seen: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// The names in a folder: as a reader sees them, and as the disk has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    pub(super) seen: BTreeMap<OsString, Node>,
    pub(super) durable: BTreeMap<OsString, Node>,
    pub(super) unsynced: Vec<(OsString, Option<Node>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    File(u64),
    Folder,
}

/// A small generator of coin tosses.
#[derive(Clone, Debug)]
pub(super) struct Coin(pub(super) u64);

impl Coin {
    pub(super) fn toss(&mut self) -> bool {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 63 == 1
    }
}

impl Change {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let end = at + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(data);
            }
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }
}

impl Content {
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Makes some part of what was not synced durable, and forgets that the rest ever has to be.
    pub(super) fn sync_partly(&mut self, coin: &mut Coin) {
        // Often all or nothing arrived, as when the power goes long after or just after the last write.
        let (all, none) = (coin.toss() && coin.toss(), coin.toss() && coin.toss());
        for change in self.unsynced.drain(..) {
            match change {
                Change::Write(at, data) => {
                    let first = PAGE_BYTES - at % PAGE_BYTES;
                    let (head, tail) = data.split_at(first.min(data.len()));
                    let mut offset = at;
                    for page in std::iter::once(head).chain(tail.chunks(PAGE_BYTES)) {
                        if all || (!none && coin.toss()) {
                            Change::Write(offset, page.to_vec()).apply(&mut self.durable);
                        }
                        offset += page.len();
                    }
                }
                length @ Change::Length(_) => length.apply(&mut self.durable),
            }
        }
    }
}

impl Folder {
    pub(super) fn change(&mut self, name: &OsStr, node: Option<Node>) {
        match node {
            Some(node) => self.seen.insert(name.to_owned(), node),
            None => self.seen.remove(name),
        };
        self.unsynced.push((name.to_owned(), node));
    }

    pub(super) fn keep(&mut self, mut kept: impl FnMut() -> bool) {
        for (name, node) in self.unsynced.drain(..) {
            if !kept() {
                continue;
            }
            match node {
                Some(node) => self.durable.insert(name, node),
                None => self.durable.remove(&name),
            };
        }
    }
}
