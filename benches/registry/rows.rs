//! What is measured: each row is one kind of work at one concurrency, done by each subject in turn.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::connection::Connection;
use crate::content::Block;
use crate::heads;
use crate::latency::Latencies;
use crate::process::{memory, processor_time};
use crate::raw;
use crate::requests::{self, Image, Stored};
use crate::target::Target;

/// Size of a small layer.
pub const SMALL: usize = 1024 * 1024;
/// Size of a large one.
pub const LARGE: usize = 100 * 1024 * 1024;
/// Size of a chunk of a large one.
const CHUNK: usize = 10 * 1024 * 1024;

/// So many small images a server of files gives.
const FILES: usize = 100;

/// What takes part.
pub struct Subject {
    pub name: String,
    pub kind: Kind,
    images: Vec<Image>,
    blobs: Vec<Stored>,
}

/// A registry, a server of files, or the bare disk.
pub enum Kind {
    /// A registry; with the process id when we started it.
    Registry { target: Target, id: Option<u32> },
    /// A server that gives the files of this folder: the ceiling of pulls.
    Files { target: Target, folder: PathBuf },
    /// Writes the same bytes to files in this folder and syncs each.
    Disk { folder: PathBuf },
}

/// Kinds of work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Work {
    PushImages,
    PullImages,
    HeadManifests,
    PushBlobs,
    PushChunks,
    PullBlobs,
}

impl Work {
    fn pushes(self) -> bool {
        matches!(self, Self::PushImages | Self::PushBlobs | Self::PushChunks)
    }
}

/// One row.
#[derive(Clone, Copy)]
pub struct Row {
    pub work: Work,
    pub title: &'static str,
    pub connections: usize,
    /// So many acts in a round; 0 where a round lasts a time instead.
    pub acts: usize,
    /// So many rounds at most.
    pub rounds: usize,
}

impl Row {
    /// Bytes that a subject writes in a round.
    pub fn bytes_written(&self) -> usize {
        match self.work {
            Work::PushImages => self.acts * SMALL,
            Work::PushBlobs | Work::PushChunks => self.acts * LARGE,
            Work::PullImages | Work::HeadManifests | Work::PullBlobs => 0,
        }
    }
}

/// Time and content of rounds.
pub struct Bounds {
    pub span: Duration,
    pub small: Block,
    pub large: Block,
    pub round: usize,
}

/// Figures of one subject in one row, over all rounds.
#[derive(Clone, Default)]
pub struct Measured {
    pub latencies: Latencies,
    pub elapsed: Duration,
    pub bytes: u64,
    pub processor: Option<Duration>,
    pub memory_before: Option<f64>,
    pub memory_after: Option<f64>,
}

impl Measured {
    /// Acts a second.
    pub fn rate(&self) -> f64 {
        self.latencies.count() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Adds another round.
    pub fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.elapsed += other.elapsed;
        self.bytes += other.bytes;
        self.processor = self.processor.map_or(other.processor, |sum| other.processor.map(|more| sum + more));
        self.memory_before = self.memory_before.or(other.memory_before);
        self.memory_after = other.memory_after;
    }
}

impl Subject {
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self { name: name.into(), kind, images: Vec::new(), blobs: Vec::new() }
    }

    /// Its process, where we know it.
    pub fn id(&self) -> Option<u32> {
        match self.kind {
            Kind::Registry { id, .. } => id,
            // Its work is done by processes that it started.
            Kind::Files { .. } | Kind::Disk { .. } => None,
        }
    }

    fn target(&self) -> Option<&Target> {
        match &self.kind {
            Kind::Registry { target, .. } | Kind::Files { target, .. } => Some(target),
            Kind::Disk { .. } => None,
        }
    }

    /// Gives a server of files what there is to pull.
    pub fn lay_out(&mut self, bounds: &Bounds) -> anyhow::Result<()> {
        let Kind::Files { folder, .. } = &self.kind else { return Ok(()) };
        for number in 0..FILES {
            let layer = bounds.small.blob()?;
            self.images.push(requests::lay_out(folder, "local/bench", &format!("t{number}"), &layer)?);
        }
        self.blobs.push(requests::lay_out_blob(folder, "local/bench", &bounds.large.blob()?)?);
        Ok(())
    }

    /// One round of a row; `None` where the subject has no part in it.
    pub fn round(&mut self, row: Row, bounds: &Bounds) -> anyhow::Result<Option<Measured>> {
        match &self.kind {
            Kind::Disk { .. } if !row.work.pushes() || row.work == Work::PushChunks => return Ok(None),
            Kind::Files { .. } if row.work.pushes() => return Ok(None),
            _ => {}
        }
        if row.work.pushes() {
            // What the one before left to be written must not be charged to this one.
            nix::unistd::sync();
        }
        let id = self.id();
        let resident = || id.and_then(memory).map(|memory| memory.resident);
        let (memory_before, processor_before) = (resident(), id.and_then(processor_time));
        let mut measured = match row.work {
            Work::HeadManifests => self.heads(row, bounds)?,
            _ => self.acts(row, bounds)?,
        };
        measured.memory_before = memory_before;
        measured.memory_after = resident();
        let processor_after = id.and_then(processor_time);
        measured.processor =
            processor_after.zip(processor_before).map(|(after, before)| after.saturating_sub(before));
        Ok(Some(measured))
    }

    fn heads(&self, row: Row, bounds: &Bounds) -> anyhow::Result<Measured> {
        let Some(target) = self.target() else { return Ok(Measured::default()) };
        let image = self.images.first().context("no image was pushed before")?;
        let began = Instant::now();
        let latencies = heads::ask(target, &image.manifest("HEAD"), row.connections, bounds.span)?;
        Ok(Measured { latencies, elapsed: began.elapsed(), ..Measured::default() })
    }

    /// Threads that each do one act after another until the count or the time is reached.
    fn acts(&mut self, row: Row, bounds: &Bounds) -> anyhow::Result<Measured> {
        self.check(row)?;
        let taken = AtomicUsize::new(0);
        let results = Mutex::new((Latencies::default(), 0_u64, Vec::new(), Vec::new()));
        let mut workers = Vec::new();
        for worker in 0..row.connections {
            workers.push(Worker::open(self, row, bounds, worker)?);
        }
        let began = Instant::now();
        std::thread::scope(|scope| {
            let handles: Vec<_> = workers
                .into_iter()
                .map(|mut worker| {
                    let (taken, results) = (&taken, &results);
                    scope.spawn(move || -> anyhow::Result<()> {
                        let mut latencies = Latencies::default();
                        let mut bytes = 0;
                        loop {
                            let turn = taken.fetch_add(1, Ordering::Relaxed);
                            let over =
                                if row.acts > 0 { turn >= row.acts } else { began.elapsed() >= bounds.span };
                            if over {
                                break;
                            }
                            let asked = Instant::now();
                            bytes += worker.act(turn)?;
                            latencies.push(asked.elapsed());
                        }
                        let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        results.0.extend(latencies);
                        results.1 += bytes;
                        results.2.append(&mut worker.images);
                        results.3.append(&mut worker.blobs);
                        Ok(())
                    })
                })
                .collect();
            handles.into_iter().try_for_each(|handle| match handle.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        let elapsed = began.elapsed();
        let (latencies, bytes, mut images, mut blobs) =
            results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.images.append(&mut images);
        self.blobs.append(&mut blobs);
        self.check(row)?;
        if let Kind::Disk { folder } = &self.kind {
            raw::clear(folder)?;
        }
        Ok(Measured { latencies, elapsed, bytes, ..Measured::default() })
    }

    /// Off the clock: what was pushed last comes back byte for byte, and is in the page cache for everybody alike.
    fn check(&self, row: Row) -> anyhow::Result<()> {
        let Some(target) = self.target() else { return Ok(()) };
        let blob = match row.work {
            Work::PushImages | Work::PullImages | Work::HeadManifests => {
                self.images.last().map(requests::layer_of)
            }
            Work::PushBlobs | Work::PushChunks | Work::PullBlobs => self.blobs.last().cloned(),
        };
        blob.map_or(Ok(()), |blob| requests::check_blob(&mut Connection::open(target)?, &blob))
    }
}

/// One thread's share: its connection, and what it has pushed.
struct Worker<'round> {
    subject: &'round Subject,
    row: Row,
    bounds: &'round Bounds,
    connection: Option<Connection>,
    repository: String,
    images: Vec<Image>,
    blobs: Vec<Stored>,
}

impl<'round> Worker<'round> {
    fn open(
        subject: &'round Subject,
        row: Row,
        bounds: &'round Bounds,
        number: usize,
    ) -> anyhow::Result<Self> {
        let connection = subject.target().map(Connection::open).transpose()?;
        let repository = format!("local/bench-{}/worker-{number}", bounds.round);
        Ok(Self { subject, row, bounds, connection, repository, images: Vec::new(), blobs: Vec::new() })
    }

    fn act(&mut self, turn: usize) -> anyhow::Result<u64> {
        let block = if self.row.work == Work::PushImages { &self.bounds.small } else { &self.bounds.large };
        let Some(connection) = &mut self.connection else {
            let Kind::Disk { folder } = &self.subject.kind else { return Ok(0) };
            return raw::write(folder, &block.blob()?);
        };
        match self.row.work {
            Work::PushImages => {
                let layer = block.blob()?;
                let tag = format!("c{}-{turn}", self.row.connections);
                self.images.push(requests::push_image(connection, &self.repository, &tag, &layer)?);
                Ok(layer.size() as u64)
            }
            Work::PushBlobs => {
                let blob = block.blob()?;
                self.blobs.push(requests::push_blob(connection, &self.repository, &blob)?);
                Ok(blob.size() as u64)
            }
            Work::PushChunks => {
                let blob = block.blob()?;
                self.blobs.push(requests::push_chunks(connection, &self.repository, &blob, CHUNK)?);
                Ok(blob.size() as u64)
            }
            Work::PullImages => {
                let images = &self.subject.images;
                let image = images.get(turn % images.len().max(1)).context("no image was pushed before")?;
                requests::pull_image(connection, image)
            }
            Work::PullBlobs => {
                let blobs = &self.subject.blobs;
                let blob = blobs.get(turn % blobs.len().max(1)).context("no blob was pushed before")?;
                requests::pull_blob(connection, blob)
            }
            Work::HeadManifests => Ok(0),
        }
    }
}
