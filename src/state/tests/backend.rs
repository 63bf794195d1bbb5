//! A storage that records what it is asked to do, so that a test can build what a crash would leave.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

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
    pub(super) fail_syncs: Arc<AtomicBool>,
}

impl Recorded {
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        Self { bytes: Arc::new(Mutex::new(bytes)), ..Self::default() }
    }
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
        let bytes = self.bytes.lock().unwrap();
        let source =
            bytes.get(index(offset)..index(offset) + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(source);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let step = Step::SetLen(index(len));
        replay(&mut self.bytes.lock().unwrap(), &step);
        self.steps.lock().unwrap().push(step);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.fail_syncs.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is on fire"));
        }
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        self.steps.lock().unwrap().push(Step::Sync { acknowledged });
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let step = Step::Write { offset: index(offset), data: data.to_vec() };
        replay(&mut self.bytes.lock().unwrap(), &step);
        self.steps.lock().unwrap().push(step);
        Ok(())
    }
}
