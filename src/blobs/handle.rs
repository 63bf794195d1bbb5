//! The handle on all blobs.

use std::io::{IoSlice, Read as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::buffers::Buffers;
use super::files::{Access, Files, RealFiles};
use super::layout::Layout;
use super::pins::Pins;
use super::references::{INLINE_BYTES, Place, find};
use super::sink::{Active, Sink};
use super::verified::Verified;
use super::{BlobError, Reader, Stored, Writer, uploads};
use crate::names::{Algorithm, Clock, Digest, Faults, Random, UploadId};
use crate::state::State;

/// How many bytes a blocking stream is read at once.
const READ_BYTES: usize = 256 * 1_024;

/// All blobs; cheap to clone.
#[derive(Clone)]
pub struct Blobs(Arc<Inner>);

pub(super) struct Inner {
    pub(super) files: Arc<dyn Files>,
    pub(super) layout: Layout,
    pub(super) state: State,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) faults: Faults,
    pub(super) active: Active,
    pub(super) buffers: Arc<Buffers>,
    pub(super) pins: Arc<Pins>,
    pub(super) verified: Verified,
}

impl Blobs {
    /// Opens `<root>/blobs` and `<root>/uploads`: makes the 256 folders, sweeps uploads that no record names or whose
    /// record ran out.
    ///
    /// # Errors
    /// [`BlobError::Io`] when the folders cannot be made or swept, [`BlobError::State`] when the records fail.
    pub async fn open(
        root: &Path,
        state: State,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        faults: Faults,
    ) -> Result<Self, BlobError> {
        Self::open_on(Arc::new(RealFiles), root, state, clock, random, faults).await
    }

    /// As [`Blobs::open`], on these files.
    pub(crate) async fn open_on(
        files: Arc<dyn Files>,
        root: &Path,
        state: State,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        faults: Faults,
    ) -> Result<Self, BlobError> {
        let root = root.to_owned();
        blocking(move || {
            let layout = Layout::make(&*files, &root)?;
            let (active, buffers, pins) = (Active::default(), Arc::default(), Arc::default());
            let verified = Verified::default();
            let inner =
                Inner { files, layout, state, clock, random, faults, active, buffers, pins, verified };
            let expired = uploads::sweep_expired(&inner)?;
            let unnamed = uploads::sweep_unnamed(&inner)?;
            if expired + unnamed > 0 {
                tracing::info!(expired, unnamed, "swept unfinished uploads");
            }
            Ok(Self(Arc::new(inner)))
        })
        .await
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    fn sink(&self) -> (UploadId, Sink) {
        loop {
            let id = UploadId::new(&*self.0.clock, &*self.0.random);
            if let Some(sink) = Sink::new(&self.0, &id) {
                return (id, sink);
            }
        }
    }

    /// Begins a streamed write into `uploads/<id>`; its file is made with its first bytes.
    ///
    /// # Errors
    /// None at present; the first failure of the disk is told by [`Writer::write`].
    #[allow(clippy::unused_async)] // part of the interface: a quota will have to ask the state
    pub async fn begin(&self) -> Result<Writer, BlobError> {
        let (id, sink) = self.sink();
        Ok(Writer::new(&self.0, id, sink))
    }

    /// As [`Blobs::begin`], for a blob that will be named by this algorithm: it is hashed for that name while it comes.
    /// Another name is taken all the same, and costs a second look at the bytes.
    ///
    /// # Errors
    /// As [`Blobs::begin`].
    #[allow(clippy::unused_async)] // as above
    pub async fn begin_named(&self, algorithm: Algorithm) -> Result<Writer, BlobError> {
        let (id, mut sink) = self.sink();
        if algorithm == Algorithm::Sha512 {
            sink.hash_long_too();
        }
        Ok(Writer::new(&self.0, id, sink))
    }

    /// Goes on with a suspended upload; `None` when there is no such upload, or it ran out, or its file was lost.
    ///
    /// # Errors
    /// [`BlobError::UploadBusy`] while another request writes to it; else [`BlobError::Io`], [`BlobError::State`].
    pub async fn resume(&self, id: &UploadId) -> Result<Option<Writer>, BlobError> {
        let (store, id) = (Arc::clone(&self.0), id.clone());
        blocking(move || uploads::resume(&store, &id)).await
    }

    /// Removes suspended uploads that nobody went on with for 24 hours; gives how many.
    ///
    /// # Errors
    /// [`BlobError::Io`], [`BlobError::State`].
    pub async fn sweep_uploads(&self) -> Result<u64, BlobError> {
        let store = Arc::clone(&self.0);
        blocking(move || uploads::sweep_expired(&store)).await
    }

    /// Takes whole bytes at once (manifests, lockfiles, logs). Small ones stay in memory until [`super::link`] writes
    /// them into the state.
    ///
    /// # Errors
    /// [`BlobError::Io`] when a large one cannot be written.
    pub async fn put(&self, bytes: Bytes) -> Result<Stored, BlobError> {
        if bytes.len() <= INLINE_BYTES {
            return Ok(Stored::inline(Digest::of(&bytes), bytes));
        }
        let (_, mut sink) = self.sink();
        blocking(move || {
            sink.absorb(&[bytes])?;
            sink.close(None)
        })
        .await
    }

    /// Takes a whole stream, for threads that may block (layer builders): hashes while writing.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] when more than `cap` bytes come, [`BlobError::Io`] when reading or writing fails;
    /// nothing of it stays then.
    pub fn put_reader_blocking(&self, reader: &mut dyn std::io::Read, cap: u64) -> Result<Stored, BlobError> {
        let (_, mut sink) = self.sink();
        let (mut first, mut total) = (true, 0);
        loop {
            let mut piece = Vec::with_capacity(READ_BYTES);
            (&mut *reader)
                .take(READ_BYTES as u64)
                .read_to_end(&mut piece)
                .map_err(BlobError::io("read what is to be stored"))?;
            total += piece.len() as u64;
            if total > cap {
                return Err(BlobError::TooLarge { cap });
            }
            let last = piece.len() < READ_BYTES;
            let piece = Bytes::from(piece);
            if first && last && piece.len() <= INLINE_BYTES {
                return Ok(Stored::inline(Digest::of(&piece), piece));
            }
            sink.absorb(&[piece])?;
            if last {
                return sink.close(None);
            }
            first = false;
        }
    }

    /// Opens a known blob; `None` when no record names the digest.
    ///
    /// # Errors
    /// [`BlobError::Missing`] when its file is gone, [`BlobError::Damaged`] when it is not as long as it should be;
    /// [`BlobError::Io`], [`BlobError::State`].
    pub async fn open_blob(&self, digest: &Digest) -> Result<Option<Reader>, BlobError> {
        let (blobs, digest) = (self.clone(), digest.clone());
        blocking(move || blobs.open_blob_blocking(&digest)).await
    }

    /// As [`Blobs::open_blob`], for threads that may block.
    ///
    /// # Errors
    /// As [`Blobs::open_blob`].
    pub fn open_blob_blocking(&self, digest: &Digest) -> Result<Option<Reader>, BlobError> {
        if digest.algorithm() != Algorithm::Sha256 {
            return Ok(None);
        }
        let mut again = true;
        loop {
            let (size, path) = match self.0.state.read_blocking(|view| find(view, digest))? {
                None => return Ok(None),
                Some(Place::Inline(bytes)) => return Ok(Some(Reader::inline(bytes))),
                Some(Place::Lost) => return Err(BlobError::Missing(digest.clone())),
                Some(Place::SetAside) => return Err(BlobError::Damaged(digest.clone())),
                Some(Place::File { size }) => match self.0.layout.blob(digest) {
                    Some(path) => (size, path),
                    None => return Ok(None),
                },
            };
            let opened =
                self.0.files.open(&path, Access::Read).and_then(|file| Ok((file.status()?.length, file)));
            match opened {
                Ok((length, file)) if length == size => {
                    return Ok(Some(Reader::file(file, size, Arc::clone(&self.0.buffers))));
                }
                Ok((length, _)) => {
                    tracing::error!(%digest, size, length, "the file of a blob does not have its length");
                    return Err(BlobError::Damaged(digest.clone()));
                }
                // Its last reference went and it was collected since the record was read: the record is asked again.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && again => again = false,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(BlobError::Missing(digest.clone()));
                }
                Err(error) => return Err(BlobError::Io { step: "open a blob", source: error }),
            }
        }
    }

    /// As [`Blobs::hold_blocking`], for tests.
    #[cfg(test)]
    pub(super) async fn hold(&self, digest: &Digest) -> Result<Option<Stored>, BlobError> {
        let (blobs, digest) = (self.clone(), digest.clone());
        blocking(move || blobs.hold_blocking(&digest)).await
    }

    /// A known blob to be linked later, by its digest: it is not collected until the answer is dropped. `None` when it
    /// is not known, or its bytes are damaged. For threads that may block.
    ///
    /// # Errors
    /// [`BlobError::Missing`] when its bytes are gone; [`BlobError::Io`], [`BlobError::State`].
    pub fn hold_blocking(&self, digest: &Digest) -> Result<Option<Stored>, BlobError> {
        let Some(path) = self.0.layout.blob(digest) else { return Ok(None) };
        // First the pin, then the look: what is found after it cannot be collected any more.
        let pin = self.0.pins.pin(digest);
        match self.0.state.read_blocking(|view| find(view, digest))? {
            None | Some(Place::SetAside) => Ok(None),
            Some(Place::Lost) => Err(BlobError::Missing(digest.clone())),
            Some(Place::Inline(bytes)) => Ok(Some(Stored::inline(digest.clone(), bytes))),
            Some(Place::File { size }) => match self.0.files.open(&path, Access::Read) {
                Ok(_) => Ok(Some(Stored::file(digest.clone(), size, pin))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Err(BlobError::Missing(digest.clone()))
                }
                Err(error) => Err(BlobError::Io { step: "look for a blob", source: error }),
            },
        }
    }

    /// The whole of a small blob, verified.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] above `cap` bytes, [`BlobError::Unknown`] when it is not known,
    /// [`BlobError::Damaged`] when the bytes are not those of the digest; else as [`Blobs::open_blob`].
    pub async fn read_small(&self, digest: &Digest, cap: u64) -> Result<Bytes, BlobError> {
        let (blobs, digest) = (self.clone(), digest.clone());
        blocking(move || {
            let Some(reader) = blobs.open_blob_blocking(&digest)? else {
                return Err(BlobError::Unknown(digest));
            };
            if reader.size() > cap {
                return Err(BlobError::TooLarge { cap });
            }
            let size = reader.size();
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
            match reader.into_blocking().read_to_end(&mut bytes) {
                // It was cut off since it was opened.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    return Err(BlobError::Damaged(digest));
                }
                read => read.map_err(BlobError::io("read a blob"))?,
            };
            if digest.names(&bytes) { Ok(bytes.into()) } else { Err(BlobError::Damaged(digest)) }
        })
        .await
    }

    /// The size of a known blob, in bytes.
    #[cfg(test)]
    pub(crate) async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let digest = digest.clone();
        Ok(self.0.state.read(move |view| super::is_known(view, &digest)).await?)
    }

    /// Writes, syncs, reads and removes a file beside the uploads, for health.
    ///
    /// # Errors
    /// [`BlobError::Io`] when one of these steps fails.
    pub async fn check(&self) -> Result<(), BlobError> {
        let store = Arc::clone(&self.0);
        blocking(move || {
            let id = UploadId::new(&*store.clock, &*store.random);
            let path = store.layout.upload(&id);
            let checked = (|| {
                let bytes = id.as_str().as_bytes();
                let file = store.files.create(&path)?;
                let written = file.write_at(&[IoSlice::new(bytes)], 0)?;
                file.sync()?;
                let mut found = Vec::with_capacity(bytes.len());
                store.files.open(&path, Access::Read)?.read_at(&mut found, 0)?;
                if written == bytes.len() && found == bytes {
                    Ok(())
                } else {
                    Err(std::io::ErrorKind::InvalidData.into())
                }
            })();
            let removed = store.files.remove(&path);
            checked.and(removed).map_err(BlobError::io("write to the folder of uploads"))
        })
        .await
    }
}

/// Runs `act` off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    spawn_blocking(act).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => BlobError::Stopping,
    })?
}
