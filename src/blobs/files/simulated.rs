//! A disk in memory that fails when told to, and forgets what was not synced when its power goes.
//!
//! The weakest promises that a disk may make: of what was not synced, any part survives a loss of power, in any
//! combination. A write is kept or lost page by page. Each name that came or went is kept or lost by itself, also
//! the two halves of a rename. A sync of a file says nothing of its name. After a sync that failed, what it was to
//! write counts as written, though it is not: a second sync that succeeds does not bring it back.
#![allow(clippy::unwrap_used)]

mod content;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, IoSlice};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use content::{Change, Coin, Content, Folder, Node};

use super::{Access, Files, Kind, Listed, OpenFile, Status};
use crate::state::simulated::Storage;

/// What the system says when a device does not answer.
const EIO: i32 = 5;

/// A kind of call that can be told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Create,
    Open,
    Write,
    Read,
    Cut,
    Sync,
    Rename,
    Remove,
    SyncFolder,
    /// Anything that changes or syncs the state file.
    State,
}

/// The disk; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Disk(Arc<Mutex<Platter>>);

#[derive(Clone, Debug)]
struct Platter {
    contents: HashMap<u64, Content>,
    folders: BTreeMap<PathBuf, Folder>,
    next: u64,
    coin: Coin,
    off: bool,
    /// How many calls changed or synced something.
    changes: u64,
    /// The power goes before the call of this number.
    cut_at: Option<u64>,
    fault: Option<Fault>,
    /// This kind of sync says that it did, and did not.
    lie: Option<Call>,
    /// How many syncs of each kind there were.
    syncs: BTreeMap<Call, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    call: Call,
    /// How many such calls go well before.
    after: u64,
    errno: i32,
    /// Whether every one after that fails too.
    lasting: bool,
}

impl Platter {
    /// Counts a call and says how it fails, when it does.
    fn call(&mut self, call: Call) -> io::Result<()> {
        let changes = !matches!(call, Call::Open | Call::Read);
        if changes && self.cut_at == Some(self.changes) {
            self.off = true;
        }
        if self.off {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.changes += u64::from(changes);
        match &mut self.fault {
            Some(fault) if fault.call == call && fault.after > 0 => fault.after -= 1,
            Some(fault) if fault.call == call => {
                let errno = fault.errno;
                if !fault.lasting {
                    self.fault = None;
                }
                return Err(io::Error::from_raw_os_error(errno));
            }
            _ => {}
        }
        Ok(())
    }

    fn folder(&mut self, path: &Path) -> io::Result<&mut Folder> {
        self.folders.get_mut(path).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn holder<'a>(&mut self, path: &'a Path) -> io::Result<(&mut Folder, &'a OsStr)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        Ok((self.folder(parent)?, name))
    }

    fn file(&mut self, path: &Path) -> io::Result<Option<u64>> {
        let (folder, name) = self.holder(path)?;
        match folder.seen.get(name) {
            Some(Node::File(file)) => Ok(Some(*file)),
            Some(Node::Folder) => Err(ErrorKind::IsADirectory.into()),
            None => Ok(None),
        }
    }

    fn make(&mut self, content: Content) -> u64 {
        self.next += 1;
        self.contents.insert(self.next, content);
        self.next
    }

    fn content(&mut self, file: u64) -> &mut Content {
        self.contents.entry(file).or_default()
    }
}

impl Disk {
    /// An empty disk with one folder.
    pub(crate) fn new(root: &Path) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            contents: HashMap::new(),
            folders: BTreeMap::from([(root.to_owned(), Folder::default())]),
            next: 0,
            coin: Coin(0),
            off: false,
            changes: 0,
            cut_at: None,
            fault: None,
            lie: None,
            syncs: BTreeMap::new(),
        })))
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    /// What is on the disk after its power went and came back: `seed` chooses what survives of what was not synced.
    /// The old disk stays without power.
    pub(crate) fn after_power_loss(&self, seed: u64) -> Self {
        let mut old = self.platter();
        old.off = true;
        let mut new = old.clone();
        drop(old);
        let mut coin = Coin(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for content in new.contents.values_mut() {
            content.sync_partly(&mut coin);
            content.seen = content.durable.clone();
        }
        for folder in new.folders.values_mut() {
            folder.keep(|| coin.toss());
            folder.seen = folder.durable.clone();
        }
        let named = |path: &Path, folders: &BTreeMap<PathBuf, Folder>| {
            path.ancestors().collect::<Vec<_>>().windows(2).all(|pair| {
                let Some(above) = folders.get(pair[1]) else { return true };
                pair[0].file_name().is_some_and(|name| above.seen.get(name) == Some(&Node::Folder))
            })
        };
        let lost: Vec<_> = new.folders.keys().filter(|path| !named(path, &new.folders)).cloned().collect();
        for path in lost {
            new.folders.remove(&path);
        }
        (new.coin, new.off, new.changes, new.cut_at, new.fault) = (coin, false, 0, None, None);
        new.lie = None;
        Self(Arc::new(Mutex::new(new)))
    }

    /// What is on the disk after the process that used it ended at this instant: everything that was written, synced or
    /// not. What that process still does, it does to a disk without power.
    pub(crate) fn after_the_process_ended(&self) -> Self {
        let mut old = self.platter();
        old.off = true;
        let mut new = old.clone();
        drop(old);
        (new.off, new.changes, new.cut_at, new.fault, new.lie) = (false, 0, None, None, None);
        Self(Arc::new(Mutex::new(new)))
    }

    /// A second disk with the same on it.
    pub(crate) fn copied(&self) -> Self {
        Self(Arc::new(Mutex::new(self.platter().clone())))
    }

    /// Takes the power away: nothing is read or written from now on.
    pub(crate) fn cut_power(&self) {
        self.platter().off = true;
    }

    /// Takes the power away before the call of this number that changes or syncs something, counted from the start.
    pub(crate) fn cut_power_at(&self, change: u64) {
        self.platter().cut_at = Some(change);
    }

    pub(crate) fn has_power(&self) -> bool {
        !self.platter().off
    }

    /// How many calls changed or synced something.
    pub(crate) fn changes(&self) -> u64 {
        self.platter().changes
    }

    /// How many syncs of files, of folders, and of the state there were.
    pub(crate) fn syncs(&self) -> [u64; 3] {
        let platter = self.platter();
        [Call::Sync, Call::SyncFolder, Call::State].map(|call| platter.syncs.get(&call).copied().unwrap_or(0))
    }

    /// Lets `after` calls of the kind go well and the next one fail, once.
    pub(crate) fn fail(&self, call: Call, after: u64, errno: i32) {
        self.platter().fault = Some(Fault { call, after, errno, lasting: false });
    }

    /// Lets `after` calls of the kind go well and all further ones fail, until [`Disk::heal`].
    pub(crate) fn fail_for_good(&self, call: Call, after: u64, errno: i32) {
        self.platter().fault = Some(Fault { call, after, errno, lasting: true });
    }

    /// Lets this kind of sync succeed without doing anything, as disks with a volatile cache may.
    pub(crate) fn lie_about(&self, call: Call) {
        self.platter().lie = Some(call);
    }

    /// Lets no call fail any more.
    pub(crate) fn heal(&self) {
        self.platter().fault = None;
    }

    /// Whether the failure that was asked for has not come yet.
    pub(crate) fn is_to_fail(&self) -> bool {
        self.platter().fault.is_some()
    }

    /// The names of the files in a folder, as a reader sees them.
    pub(crate) fn names(&self, folder: &Path) -> BTreeSet<OsString> {
        let files = self.list(folder).unwrap().into_iter().filter(|found| found.kind == Kind::File);
        files.map(|found| found.name).collect()
    }

    /// The files below a folder.
    pub(crate) fn files_below(&self, folder: &Path) -> BTreeSet<PathBuf> {
        let platter = self.platter();
        let below = platter.folders.iter().filter(|(path, _)| path.starts_with(folder));
        below
            .flat_map(|(path, folder)| {
                let files = folder.seen.iter().filter(|(_, node)| matches!(node, Node::File(_)));
                files.map(|(name, _)| path.join(name))
            })
            .collect()
    }

    /// The bytes of a file, as a reader sees them.
    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        let mut platter = self.platter();
        let file = platter.file(path).unwrap().unwrap();
        platter.content(file).seen.clone()
    }

    /// Changes a file behind everybody's back, as a failing disk would.
    pub(crate) fn tamper(&self, path: &Path, act: impl FnOnce(&mut Vec<u8>)) {
        let mut platter = self.platter();
        let file = platter.file(path).unwrap().unwrap();
        let content = platter.content(file);
        content.sync();
        act(&mut content.durable);
        content.seen = content.durable.clone();
    }

    /// Removes a file behind everybody's back, for good.
    pub(crate) fn lose(&self, path: &Path) {
        let mut platter = self.platter();
        let (folder, name) = platter.holder(path).unwrap();
        folder.change(name, None);
        folder.keep(|| true);
    }

    /// The state file on this disk, for `State::open_on`. Its name is durable.
    pub(crate) fn state_file(&self, path: &Path) -> Arc<dyn Storage> {
        let mut platter = self.platter();
        let file = if let Some(file) = platter.file(path).unwrap() {
            file
        } else {
            let file = platter.make(Content::default());
            let (folder, name) = platter.holder(path).unwrap();
            folder.seen.insert(name.to_owned(), Node::File(file));
            folder.durable.insert(name.to_owned(), Node::File(file));
            file
        };
        drop(platter);
        Arc::new(SimulatedFile { disk: self.clone(), file })
    }
}

impl Files for Disk {
    fn make_folder(&self, path: &Path) -> io::Result<bool> {
        let mut platter = self.platter();
        platter.call(Call::Create)?;
        if platter.folders.contains_key(path) {
            return Ok(false);
        }
        let missing: Vec<&Path> =
            path.ancestors().take_while(|path| !platter.folders.contains_key(*path)).collect();
        for path in missing.into_iter().rev() {
            let (above, name) = platter.holder(path)?;
            above.change(name, Some(Node::Folder));
            platter.folders.insert(path.to_owned(), Folder::default());
        }
        Ok(true)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let mut platter = self.platter();
        platter.call(Call::Create)?;
        let file = if let Some(file) = platter.file(path)? {
            platter.content(file).change(Change::Length(0));
            file
        } else {
            let file = platter.make(Content::default());
            let (folder, name) = platter.holder(path)?;
            folder.change(name, Some(Node::File(file)));
            file
        };
        drop(platter);
        Ok(Box::new(SimulatedFile { disk: self.clone(), file }))
    }

    fn open(&self, path: &Path, _: Access) -> io::Result<Box<dyn OpenFile>> {
        let mut platter = self.platter();
        platter.call(Call::Open)?;
        let file = platter.file(path)?.ok_or(ErrorKind::NotFound)?;
        drop(platter);
        Ok(Box::new(SimulatedFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut platter = self.platter();
        platter.call(Call::Rename)?;
        let file = platter.file(from)?.ok_or(ErrorKind::NotFound)?;
        let (folder, name) = platter.holder(to)?;
        folder.change(name, Some(Node::File(file)));
        let (folder, name) = platter.holder(from)?;
        folder.change(name, None);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut platter = self.platter();
        platter.call(Call::Remove)?;
        platter.file(path)?.ok_or(ErrorKind::NotFound)?;
        let (folder, name) = platter.holder(path)?;
        folder.change(name, None);
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut platter = self.platter();
        *platter.syncs.entry(Call::SyncFolder).or_default() += 1;
        let called = platter.call(Call::SyncFolder);
        if called.is_err() && !platter.off {
            let mut coin = platter.coin.clone();
            platter.folder(path)?.keep(|| coin.toss());
            platter.coin = coin;
        }
        called?;
        if platter.lie != Some(Call::SyncFolder) {
            platter.folder(path)?.keep(|| true);
        }
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>> {
        let mut platter = self.platter();
        platter.call(Call::Open)?;
        let seen = platter.folder(folder)?.seen.clone();
        let listed = seen.into_iter().map(|(name, node)| match node {
            Node::File(file) => {
                let length = platter.content(file).seen.len() as u64;
                Listed { name, kind: Kind::File, length, modified: SystemTime::UNIX_EPOCH }
            }
            Node::Folder => Listed { name, kind: Kind::Folder, length: 0, modified: SystemTime::UNIX_EPOCH },
        });
        Ok(listed.collect())
    }
}

/// An open file; the state file too.
#[derive(Debug)]
struct SimulatedFile {
    disk: Disk,
    file: u64,
}

impl SimulatedFile {
    fn sync_as(&self, call: Call) -> io::Result<()> {
        let mut platter = self.disk.platter();
        *platter.syncs.entry(call).or_default() += 1;
        let called = platter.call(call);
        if called.is_err() && !platter.off {
            let mut coin = platter.coin.clone();
            platter.content(self.file).sync_partly(&mut coin);
            platter.coin = coin;
        }
        called?;
        if platter.lie != Some(call) {
            platter.content(self.file).sync();
        }
        Ok(())
    }
}

impl OpenFile for SimulatedFile {
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut platter = self.disk.platter();
        platter.call(Call::Write)?;
        // Not all at once, as the system may.
        let data: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(100_000).collect();
        let count = data.len();
        platter.content(self.file).change(Change::Write(usize::try_from(offset).unwrap(), data));
        Ok(count)
    }

    fn read_at(&self, buffer: &mut Vec<u8>, offset: u64) -> io::Result<usize> {
        let mut platter = self.disk.platter();
        platter.call(Call::Read)?;
        let seen = &platter.content(self.file).seen;
        let start = usize::try_from(offset).unwrap().min(seen.len());
        let end = seen.len().min(start + buffer.capacity() - buffer.len());
        buffer.extend_from_slice(&seen[start..end]);
        Ok(end - start)
    }

    fn read_into(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut platter = self.disk.platter();
        platter.call(Call::Read)?;
        let seen = &platter.content(self.file).seen;
        let start = usize::try_from(offset).unwrap().min(seen.len());
        let count = out.len().min(seen.len() - start);
        out[..count].copy_from_slice(&seen[start..start + count]);
        Ok(count)
    }

    /// Keeps nothing in memory, so that each read asks the disk.
    fn read_cached(&self, _: &mut [u8], _: u64) -> usize {
        0
    }

    fn status(&self) -> io::Result<Status> {
        let mut platter = self.disk.platter();
        platter.call(Call::Open)?;
        let node = Node::File(self.file);
        let names = platter.folders.values().flat_map(|folder| folder.seen.values());
        let names = names.filter(|found| **found == node).count() as u64;
        let length = platter.content(self.file).seen.len() as u64;
        // Its files have no times; who compares sees each as the same for as long as its length is.
        Ok(Status { length, names, number: self.file, modified: std::time::SystemTime::UNIX_EPOCH })
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        let mut platter = self.disk.platter();
        platter.call(Call::Cut)?;
        platter.content(self.file).change(Change::Length(usize::try_from(length).unwrap()));
        Ok(())
    }

    fn seal(&self) -> io::Result<()> {
        self.disk.platter().call(Call::Cut)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_as(Call::Sync)
    }

    fn read_anew(&self) {}

    fn push_out(&self, _: u64, _: NonZeroU64) {}
}

impl Storage for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        let mut platter = self.disk.platter();
        if platter.off {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(platter.content(self.file).seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut platter = self.disk.platter();
        if platter.off {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let start = usize::try_from(offset).unwrap();
        let seen = &platter.content(self.file).seen;
        out.copy_from_slice(seen.get(start..start + out.len()).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut platter = self.disk.platter();
        platter.call(Call::State)?;
        platter.content(self.file).change(Change::Length(usize::try_from(length).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync_as(Call::State)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.disk.platter();
        platter.call(Call::State)?;
        platter.content(self.file).change(Change::Write(usize::try_from(offset).unwrap(), data.to_vec()));
        Ok(())
    }
}
