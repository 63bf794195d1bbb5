//! Blobs coming in: begin, append, close, status, cancel, mount.

use std::net::IpAddr;

use futures_util::StreamExt as _;

use super::naming::digest;
use super::sessions::{Held, Purpose, forget};
use super::{Body, Inner, Registry, RegistryError, parse_content_range};
use crate::access::{Principal, Right};
use crate::blobs::{BlobError, Writer};
use crate::names::{Algorithm, Digest, RepoName, UploadId};
use crate::repos;
use crate::state::{MAX_SCAN_ROWS, StateError};

/// An anonymous mount tries so many holders, as the first may lose the blob meanwhile.
const MOUNT_CANDIDATES: usize = 8;

/// What a request to begin an upload asks for, as it came.
#[derive(Clone, Copy, Debug, Default)]
pub struct BeginUpload<'a> {
    /// The digest of a body that comes along.
    pub digest: Option<&'a str>,
    /// The digest of a blob to be taken over from another repository.
    pub mount: Option<&'a str>,
    /// That other repository.
    pub from: Option<&'a str>,
    /// The algorithm that the closing request will name.
    pub algorithm: Option<&'a str>,
    /// The address of the other end, where there is one.
    pub address: Option<IpAddr>,
}

/// Bytes for the end of an upload.
pub struct Chunk<'a> {
    /// `Content-Range`, as it came; without it the bytes are appended.
    pub content_range: Option<&'a str>,
    /// `Content-Length`, where the client says it.
    pub content_length: Option<u64>,
    /// The bytes.
    pub body: Body,
}

/// An upload and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Where the blob will be.
    pub repo: RepoName,
    /// Its name.
    pub id: UploadId,
    /// How many bytes are in.
    pub received: u64,
}

/// A blob that a repository has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobCreated {
    /// Where it is.
    pub repo: RepoName,
    /// As the client named it.
    pub digest: Digest,
}

/// What came of the request to begin an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The bytes are to come.
    Upload(Upload),
    /// The blob is there already: it came along, or was mounted.
    Created(BlobCreated),
}

impl Registry {
    /// Tells whether a client may push to this repository, before its body is read.
    ///
    /// # Errors
    /// The [`RegistryError`] that the push would end with.
    pub fn check_push(&self, who: &Principal, name: &str) -> Result<(), RegistryError> {
        self.0.repository(who, Right::Push, name).map(drop)
    }

    /// Begins an upload, takes a whole blob, or mounts one.
    ///
    /// # Errors
    /// [`RegistryError`]; of a body that broke off, or is not what its digest says, nothing stays behind.
    pub async fn begin_upload(
        &self,
        who: &Principal,
        name: &str,
        asked: BeginUpload<'_>,
        body: Body,
    ) -> Result<Begun, RegistryError> {
        let repo = self.0.repository(who, Right::Push, name)?;
        let algorithm = match asked.algorithm {
            None | Some("sha256") => Algorithm::Sha256,
            Some("sha512") => Algorithm::Sha512,
            Some(_) => {
                return Err(RegistryError::UploadInvalid {
                    why: "`digest-algorithm` must be sha256 or sha512",
                });
            }
        };
        if let Some(mount) = asked.mount {
            let mount = digest(mount)?;
            if self.0.mount(who, &repo, &mount, asked.from).await? {
                return Ok(Begun::Created(BlobCreated { repo, digest: mount }));
            }
        } else if let Some(expected) = asked.digest {
            let expected = digest(expected)?;
            let writer = self.0.receive(body, expected.algorithm()).await?;
            self.0.complete(&repo, writer, &expected, None).await?;
            return Ok(Begun::Created(BlobCreated { repo, digest: expected }));
        }
        let id = self.0.sessions.begin(&repo, algorithm, &holder(who, asked.address)).await?;
        Ok(Begun::Upload(Upload { repo, id, received: 0 }))
    }

    /// Appends a chunk, or a stream of unknown length.
    ///
    /// # Errors
    /// [`RegistryError::OutOfOrder`] leaves the upload as it was; so does a body that broke off, up to the byte that came.
    pub async fn append_upload(
        &self,
        who: &Principal,
        name: &str,
        id: &str,
        chunk: Chunk<'_>,
    ) -> Result<Upload, RegistryError> {
        let (repo, id) = self.0.upload(who, name, id)?;
        let mut held = self.0.sessions.hold(&repo, &id, Purpose::Write).await?;
        let length = place(&repo, &id, &mut held, &chunk)?;
        if let Err(error) = append(&mut held, chunk.body, length).await {
            return Err(self.0.after_failure(&id, held, error).await);
        }
        // Who says where a chunk stands can go on after a crash, from the end of the last one that was answered.
        if length.is_some()
            && let Err(error) = self.0.sessions.checkpoint(&repo, &id, &mut held).await
        {
            return Err(self.0.after_failure(&id, held, error).await);
        }
        let received = held.writer()?.written();
        Ok(Upload { repo, id, received })
    }

    /// Closes an upload, with or without a last chunk: durable when this returns.
    ///
    /// # Errors
    /// [`RegistryError::OutOfOrder`] leaves the upload as it was; after a wrong digest it is gone, and nothing is visible.
    pub async fn close_upload(
        &self,
        who: &Principal,
        name: &str,
        id: &str,
        expected: Option<&str>,
        chunk: Chunk<'_>,
    ) -> Result<BlobCreated, RegistryError> {
        let (repo, id) = self.0.upload(who, name, id)?;
        let expected = digest(expected.ok_or(RegistryError::DigestMissing)?)?;
        let mut held = self.0.sessions.hold(&repo, &id, Purpose::Write).await?;
        let length = place(&repo, &id, &mut held, &chunk)?;
        if let Err(error) = append(&mut held, chunk.body, length).await {
            return Err(self.0.after_failure(&id, held, error).await);
        }
        let taken = self.0.sessions.take(&id, held)?;
        self.0.complete(&repo, taken.writer, &expected, taken.recorded.then_some(id)).await?;
        Ok(BlobCreated { repo, digest: expected })
    }

    /// Tells where an upload stands.
    ///
    /// # Errors
    /// [`RegistryError::UploadUnknown`] when there is none of this id in this repository.
    pub async fn upload_status(
        &self,
        who: &Principal,
        name: &str,
        id: &str,
    ) -> Result<Upload, RegistryError> {
        let (repo, id) = self.0.upload(who, name, id)?;
        let received = self.0.sessions.received(&repo, &id).await?;
        Ok(Upload { repo, id, received })
    }

    /// Ends an upload; its bytes are freed at once.
    ///
    /// # Errors
    /// [`RegistryError::UploadUnknown`] when there is none of this id in this repository.
    pub async fn cancel_upload(&self, who: &Principal, name: &str, id: &str) -> Result<(), RegistryError> {
        let (repo, id) = self.0.upload(who, name, id)?;
        let held = self.0.sessions.hold(&repo, &id, Purpose::End).await?;
        self.0.sessions.cancel(&id, held).await
    }
}

impl Inner {
    fn upload(&self, who: &Principal, name: &str, id: &str) -> Result<(RepoName, UploadId), RegistryError> {
        let repo = self.repository(who, Right::Push, name)?;
        let id = UploadId::parse(id).map_err(|_| RegistryError::UploadUnknown)?;
        Ok((repo, id))
    }

    /// After a failed write or sync nobody can vouch for the bytes: the upload ends. After what the client did wrong
    /// it goes on.
    async fn after_failure(&self, id: &UploadId, held: Held, error: RegistryError) -> RegistryError {
        if matches!(error, RegistryError::Blobs(_))
            && let Err(second) = self.sessions.cancel(id, held).await
        {
            tracing::warn!(upload.id = %id, error = %second, "an upload that failed could not be removed");
        }
        error
    }

    /// A whole body as a writer that belongs to no session.
    async fn receive(&self, mut body: Body, algorithm: Algorithm) -> Result<Writer, RegistryError> {
        let mut writer = self.blobs.begin_named(algorithm).await?;
        let failed = loop {
            match body.next().await {
                None => return Ok(writer),
                Some(Err(error)) => break RegistryError::BodyBroken(error),
                Some(Ok(piece)) => {
                    if let Err(error) = writer.write(piece).await {
                        break RegistryError::Blobs(error);
                    }
                }
            }
        };
        if let Err(second) = writer.discard().await {
            tracing::warn!(error = %second, "an upload that failed could not be removed");
        }
        Err(failed)
    }

    /// Makes the bytes durable, and then visible.
    async fn complete(
        &self,
        repo: &RepoName,
        writer: Writer,
        expected: &Digest,
        recorded: Option<UploadId>,
    ) -> Result<(), RegistryError> {
        let (stored, outcome) = match writer.finish(Some(expected)).await {
            Ok(stored) => (Some(stored), Ok(())),
            Err(BlobError::DigestMismatch { expected, found }) => {
                (None, Err(RegistryError::DigestMismatch { expected, found }))
            }
            Err(error) => (None, Err(RegistryError::Blobs(error))),
        };
        if stored.is_none() && recorded.is_none() {
            return outcome;
        }
        self.faults.pass("registry.upload.before-record");
        let (repo, name, now) = (repo.clone(), expected.clone(), self.clock.now());
        self.state
            .write(move |tx| {
                if let Some(id) = &recorded {
                    forget(tx, id)?;
                }
                match &stored {
                    Some(stored) => repos::add_blob_named(tx, now, &repo, &name, stored),
                    None => Ok::<(), StateError>(()),
                }
            })
            .await?;
        self.faults.pass("registry.upload.after-record");
        outcome
    }

    /// Makes `repo` hold a blob of another repository that the caller may read; `false` when there is none.
    async fn mount(
        &self,
        who: &Principal,
        repo: &RepoName,
        name: &Digest,
        from: Option<&str>,
    ) -> Result<bool, RegistryError> {
        // A source that is no name, unknown, or not the caller's to read makes an ordinary upload, as the specification
        // wants it; so nobody learns what others have.
        let readable = |source: &RepoName| who.could_in(Right::Pull, source);
        let candidates = if let Some(from) = from {
            self.resolve(from).ok().filter(readable).into_iter().collect()
        } else {
            let key = name.clone();
            let holders = self.state.read(move |view| repos::holders(view, &key, MAX_SCAN_ROWS)).await?;
            holders.into_iter().filter(readable).take(MOUNT_CANDIDATES).collect::<Vec<_>>()
        };
        if candidates.is_empty() {
            return Ok(false);
        }
        let (repo, name, now) = (repo.clone(), name.clone(), self.clock.now());
        self.faults.pass("registry.mount.before-record");
        let mounted = self
            .state
            .write(move |tx| {
                for source in &candidates {
                    if repos::mount_blob(tx, now, source, &repo, &name)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            })
            .await?;
        self.faults.pass("registry.mount.after-record");
        Ok(mounted)
    }
}

/// Whose share of the open uploads it is: that of a known principal, or else of an address; of an IPv6 one the /64.
fn holder(who: &Principal, address: Option<IpAddr>) -> String {
    if !who.is_anonymous() {
        return who.label();
    }
    match address.map(|address| address.to_canonical()) {
        None => "local".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}")
        }
    }
}

/// Checks that a chunk stands where the upload ends; the number of bytes that it must have, where that is said.
fn place(
    repo: &RepoName,
    id: &UploadId,
    held: &mut Held,
    chunk: &Chunk<'_>,
) -> Result<Option<u64>, RegistryError> {
    let Some(header) = chunk.content_range else { return Ok(None) };
    let range = parse_content_range(header)
        .ok_or(RegistryError::UploadInvalid { why: "`Content-Range` must be `<first>-<last>`" })?;
    let received = held.writer()?.written();
    if range.first != received {
        let at = Upload { repo: repo.clone(), id: id.clone(), received };
        return Err(RegistryError::OutOfOrder { at });
    }
    if chunk.content_length.is_some_and(|length| length != range.length) {
        return Err(RegistryError::SizeInvalid { why: "`Content-Length` and `Content-Range` differ" });
    }
    Ok(Some(range.length))
}

/// Writes a body to the end of an upload. With a `length` it must have exactly so many bytes.
async fn append(held: &mut Held, mut body: Body, length: Option<u64>) -> Result<(), RegistryError> {
    let mut left = length;
    loop {
        let piece = tokio::select! {
            // What has come is taken first.
            biased;
            piece = body.next() => piece,
            () = held.called_off() => return Err(RegistryError::Interrupted),
        };
        let Some(piece) = piece else { break };
        let piece = piece.map_err(RegistryError::BodyBroken)?;
        if let Some(left) = &mut left {
            *left = left
                .checked_sub(piece.len() as u64)
                .ok_or(RegistryError::SizeInvalid { why: "the body is longer than `Content-Range` says" })?;
        }
        held.write(piece).await?;
    }
    match left {
        None | Some(0) => Ok(()),
        Some(_) => Err(RegistryError::SizeInvalid { why: "the body is shorter than `Content-Range` says" }),
    }
}
