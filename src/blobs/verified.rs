//! Opening what is checked before it is read: for content whose reader trusts us with the digest.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::files::Status;
use super::handle::blocking;
use super::{BlobError, Blobs, Reader};
use crate::names::{Digest, Millis};

/// A file that was hashed is taken for the same for so long, as long as nobody wrote to it. Bytes that rot in between
/// are found the next time.
const TRUSTED: Duration = Duration::from_mins(1);
/// So many files are remembered.
const REMEMBERED: usize = 1_024;

/// Files that were hashed a short while ago, and were what their digests say.
#[derive(Debug, Default)]
pub(super) struct Verified(Mutex<HashMap<Digest, (Status, Millis)>>);

impl Verified {
    fn knows(&self, digest: &Digest, status: Status, now: Millis) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).is_some_and(|(seen, at)| *seen == status && now.since(*at) < TRUSTED)
    }

    fn remember(&self, digest: &Digest, status: Status, now: Millis) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, (_, at)| now.since(*at) < TRUSTED);
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(digest.clone(), (status, now));
    }
}

impl Blobs {
    /// Opens a known blob whose bytes are those of its digest: they are hashed before this returns, unless that very
    /// file was within the last minute.
    ///
    /// # Errors
    /// [`BlobError::Unknown`] when it is not known, [`BlobError::Damaged`] when the bytes are others; else as
    /// [`Blobs::open_blob`].
    pub async fn open_verified(&self, digest: &Digest) -> Result<Reader, BlobError> {
        let (blobs, digest) = (self.clone(), digest.clone());
        blocking(move || {
            let reader =
                blobs.open_blob_blocking(&digest)?.ok_or_else(|| BlobError::Unknown(digest.clone()))?;
            let (verified, now) = (&blobs.inner().verified, blobs.inner().clock.now());
            let Some(status) = reader.status().map_err(BlobError::io("look at a blob"))? else {
                return Ok(reader);
            };
            if !verified.knows(&digest, status, now) {
                if !reader.is(&digest).map_err(BlobError::io("read a blob"))? {
                    return Err(BlobError::Damaged(digest));
                }
                verified.remember(&digest, status, now);
            }
            Ok(reader)
        })
        .await
    }
}
