//! Copies of whole images, a few blobs at a time.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use sha2::Digest as _;

use super::content::{Descriptor, type_of};
use super::destination::Destination;
use super::graph::{Graph, Reads};
use super::patience::{Moved, Unread};
use super::progress::Progress;
use super::registry::{Place, Registry, mismatch};
use super::source::{self, Source, missing};
use crate::cli::failure::Failure;
use crate::names::{Algorithm, Digest};

/// So many blobs are under way at once.
const AT_ONCE: usize = 3;
/// A transfer that breaks off is taken up this often without a byte of progress.
const PATIENCE: u32 = 5;

/// What became of the blobs.
#[derive(Debug, Default, Serialize)]
pub(in crate::cli) struct Tally {
    /// Went over the network.
    pub(in crate::cli) transferred: usize,
    /// Were there already.
    pub(in crate::cli) present: usize,
    /// Were taken over from another repository of the registry.
    pub(in crate::cli) mounted: usize,
    /// Are kept elsewhere by their makers.
    pub(in crate::cli) foreign: usize,
    /// How many bytes went over the network.
    pub(in crate::cli) bytes: u64,
}

enum Outcome {
    Transferred,
    Present,
    Mounted,
    Foreign,
}

impl Tally {
    fn add(&mut self, blob: &Descriptor, outcome: &Outcome) {
        match outcome {
            Outcome::Transferred => {
                self.transferred += 1;
                self.bytes += blob.size;
            }
            Outcome::Present => self.present += 1,
            Outcome::Mounted => self.mounted += 1,
            Outcome::Foreign => self.foreign += 1,
        }
    }
}

impl Reads for Registry {
    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        let (bytes, _) = self.manifest(&descriptor.digest.to_string()).await?;
        Ok(bytes)
    }
}

/// Sends an image; `reference` names its root, `origin` the repository there that it once came from.
pub(in crate::cli) async fn copy_out(
    source: &Source,
    graph: &Graph,
    registry: &Registry,
    reference: &str,
    origin: Option<&str>,
    progress: &Progress<'_>,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let mut sent =
        stream::iter(graph.blobs.values())
            .map(|blob| async move {
                Ok::<_, Failure>((blob, send(source, blob, registry, origin, progress).await?))
            })
            .buffer_unordered(AT_ONCE);
    while let Some((blob, outcome)) = sent.try_next().await? {
        tally.add(blob, &outcome);
    }
    let (root, _) = graph.root();
    for (descriptor, bytes) in &graph.documents {
        let digest = descriptor.digest.to_string();
        let name = if descriptor.digest == root.digest { reference } else { &digest };
        registry.put_manifest(name, &type_of(descriptor, bytes), bytes).await?;
    }
    Ok(tally)
}

async fn send(
    source: &Source,
    blob: &Descriptor,
    registry: &Registry,
    origin: Option<&str>,
    progress: &Progress<'_>,
) -> Result<Outcome, Failure> {
    let bar = progress.begin(blob);
    let Some(piece) = source.blob(&blob.digest)? else {
        if blob.is_foreign() {
            bar.end("is kept elsewhere by its maker");
            return Ok(Outcome::Foreign);
        }
        return Err(missing(&blob.digest));
    };
    if piece.size != blob.size {
        let detail = format!("{} should have {} bytes and has {}", blob.digest, blob.size, piece.size);
        return Err(Failure::rejected("source_not_valid", detail));
    }
    if registry.has_blob(&blob.digest).await? {
        bar.end("already there");
        return Ok(Outcome::Present);
    }
    let mut failures = 0;
    loop {
        let place = match registry.place(&blob.digest, origin).await? {
            Place::Mounted => {
                bar.end("mounted");
                return Ok(Outcome::Mounted);
            }
            Place::Upload(place) => place,
        };
        let body = async |moved: Moved| {
            bar.at(0);
            let count = bar.counter();
            let bytes = source::stream(piece.clone()).inspect_ok(move |bytes| {
                moved.note(bytes.len());
                count(bytes.len() as u64);
            });
            Ok(reqwest::Body::wrap_stream(bytes))
        };
        match registry.upload(&place, blob.size, body).await {
            Ok(()) => {
                bar.end("sent");
                return Ok(Outcome::Transferred);
            }
            Err(failure) if failure.may_pass() && failures < 2 => {
                failures += 1;
                tokio::time::sleep(Duration::from_millis(500 * failures)).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Fetches an image's blobs and documents.
pub(in crate::cli) async fn copy_in(
    registry: &Registry,
    graph: &Graph,
    destination: &Destination,
    progress: &Progress<'_>,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let mut fetched =
        stream::iter(graph.blobs.values())
            .map(|blob| async move {
                Ok::<_, Failure>((blob, fetch(registry, blob, destination, progress).await?))
            })
            .buffer_unordered(AT_ONCE);
    while let Some((blob, outcome)) = fetched.try_next().await? {
        tally.add(blob, &outcome);
    }
    for (descriptor, bytes) in &graph.documents {
        destination.document(&descriptor.digest, bytes).await?;
    }
    Ok(tally)
}

async fn fetch(
    registry: &Registry,
    blob: &Descriptor,
    destination: &Destination,
    progress: &Progress<'_>,
) -> Result<Outcome, Failure> {
    if blob.is_foreign() && !registry.has_blob(&blob.digest).await? {
        progress.begin(blob).end("is kept elsewhere by its maker");
        return Ok(Outcome::Foreign);
    }
    let mut writer = destination.blob(&blob.digest, blob.size).await?;
    let bar = progress.begin(blob);
    let mut hash = Hash::new(blob.digest.algorithm());
    let (mut got, mut failures) = (0, 0);
    loop {
        let (mut response, resumed) = match registry.blob(&blob.digest, got).await {
            Ok(answer) => answer,
            Err(failure) if failure.may_pass() && failures < PATIENCE && got > 0 => {
                failures += 1;
                tokio::time::sleep(Duration::from_millis(300 * u64::from(failures))).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        // A registry that knows no ranges begins anew: what is here already is read past.
        let mut skip = if resumed { 0 } else { got };
        let broken = loop {
            match registry.patience().piece(&mut response).await {
                Ok(Some(bytes)) => {
                    let past = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
                    skip -= past as u64;
                    let bytes = &bytes[past..];
                    got += bytes.len() as u64;
                    if got > blob.size {
                        return Err(mismatch(&blob.digest));
                    }
                    if !bytes.is_empty() {
                        hash.update(bytes);
                        writer.write(bytes).await?;
                        bar.at(got);
                        failures = 0;
                    }
                }
                Ok(None) => break None,
                Err(unread) => break Some(unread),
            }
        };
        if got == blob.size {
            break;
        }
        // A connection that fell silent may be a dead one, which another tells: it is tried once.
        let is_silent = matches!(broken, Some(Unread::Silent { .. }));
        failures += if is_silent { PATIENCE.div_ceil(2) + 1 } else { 1 };
        if failures > PATIENCE {
            let unread = broken.unwrap_or_else(|| Unread::Broken("the answer is too short".to_owned()));
            return Err(unread.of(registry.host(), |unread| {
                let detail = format!("blob {} {unread} (at {got} of {} bytes)", blob.digest, blob.size);
                Failure::registry_unreachable(detail, "run the command again")
            }));
        }
        tokio::time::sleep(Duration::from_millis(200 * u64::from(failures))).await;
    }
    if hash.finish() != blob.digest {
        return Err(mismatch(&blob.digest));
    }
    writer.finish().await?;
    bar.end("fetched");
    Ok(Outcome::Transferred)
}

/// A running hash of either kind.
enum Hash {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hash {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::from_sha256(hash.finalize().into()),
            Self::Sha512(hash) => Digest::from_sha512(hash.finalize().into()),
        }
    }
}
