//! A storage that records what it is asked to do, so that a test can build what a crash would leave.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::names::Random;

/// What reached the storage, in order.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Write {
        offset: usize,
        data: Vec<u8>,
    },
    SetLen(usize),
    /// A sync, and how many writes had been acknowledged when it was asked for.
    Sync {
        acknowledged: u64,
    },
}

/// Bytes in memory with a log of the steps that led there.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorded {
    bytes: Arc<Mutex<Vec<u8>>>,
    pub(super) steps: Arc<Mutex<Vec<Step>>>,
    pub(super) acknowledged: Arc<AtomicU64>,
    /// How many calls that change or sync are let through before the disk is full.
    pub(super) room: Arc<AtomicU64>,
    /// How many of them are then refused.
    pub(super) refusals: Arc<AtomicU64>,
    /// How many reads fail.
    pub(super) failing_reads: Arc<AtomicU64>,
}

impl Recorded {
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        Self { bytes: Arc::new(Mutex::new(bytes)), ..Self::default() }
    }

    pub(super) fn fill_up(&self, room: u64, refusals: u64) {
        self.room.store(room, Ordering::SeqCst);
        self.refusals.store(refusals, Ordering::SeqCst);
    }

    /// Forgets, by the toss of a coin each, what was written since the last sync, as a disk may after a failed one.
    pub(super) fn lose_unsynced(&self, random: &impl Random) {
        let mut steps = self.steps.lock().unwrap();
        let synced = steps.iter().rposition(|step| matches!(step, Step::Sync { .. })).map_or(0, |at| at + 1);
        let mut kept = steps.split_off(synced);
        kept.retain(|step| {
            let mut coin = [0];
            random.fill(&mut coin);
            coin[0] & 1 == 0 || matches!(step, Step::SetLen(_))
        });
        steps.extend(kept);
        let mut image = Vec::new();
        for step in &*steps {
            replay(&mut image, step);
        }
        *self.bytes.lock().unwrap() = image;
    }

    fn refuse_when_full(&self) -> io::Result<()> {
        if self.refusals.load(Ordering::SeqCst) == 0 || take_one(&self.room) || !take_one(&self.refusals) {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(28))
    }
}

fn take_one(count: &AtomicU64) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

/// Does one step on an image.
pub(super) fn replay(image: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write { offset, data } => {
            let end = offset + data.len();
            if image.len() < end {
                image.resize(end, 0);
            }
            image[*offset..end].copy_from_slice(data);
        }
        Step::SetLen(len) => image.resize(*len, 0),
        Step::Sync { .. } => {}
    }
}

fn index(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

impl redb::StorageBackend for Recorded {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if take_one(&self.failing_reads) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let bytes = self.bytes.lock().unwrap();
        let source =
            bytes.get(index(offset)..index(offset) + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(source);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.refuse_when_full()?;
        let step = Step::SetLen(index(len));
        replay(&mut self.bytes.lock().unwrap(), &step);
        self.steps.lock().unwrap().push(step);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.refuse_when_full()?;
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        self.steps.lock().unwrap().push(Step::Sync { acknowledged });
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.refuse_when_full()?;
        let step = Step::Write { offset: index(offset), data: data.to_vec() };
        replay(&mut self.bytes.lock().unwrap(), &step);
        self.steps.lock().unwrap().push(step);
        Ok(())
    }
}
