//! What happens before anything can be seen: holding the bytes, checking them, unpacking.

use std::io::Read as _;

use crate::blobs;
use crate::changes::{TaskContext, TaskFailure};
use crate::names::{Digest, Sha256Stream};
use crate::packs::{self, Pack};
use crate::state::Read as _;

use super::super::error::InstallError;
use super::super::installer::Inner;
use super::super::record::COMMANDS;
use super::{InstallData, blocking, check_identity, hold};

/// What this program runs on, in the words of OCI.
pub(in crate::install) fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{architecture}", std::env::consts::OS)
}

async fn pack(inner: &Inner, data: &InstallData) -> Result<Pack, InstallError> {
    let pack = packs::load(&inner.parts.blobs, &data.digest).await?;
    check_identity(&pack, &data.id, &data.version)?;
    Ok(pack)
}

/// Refers to every blob of the pack, so that none is collected while we work.
pub(super) async fn acquire(inner: &Inner, ctx: &TaskContext) -> Result<(), TaskFailure> {
    let data: InstallData = ctx.data()?;
    let pack = pack(inner, &data).await?;
    let digests = pack.blobs();
    ctx.save(&digests).await?;
    let owner = hold(ctx.change());
    let missing = inner
        .parts
        .state
        .write(move |tx| {
            for digest in &digests {
                if blobs::is_known(tx, digest)?.is_none() {
                    return Ok(Some(digest.clone()));
                }
            }
            for digest in &digests {
                blobs::link_known(tx, digest, &owner)?;
            }
            Ok(None)
        })
        .await?;
    if let Some(digest) = missing {
        return Err(InstallError::BlobMissing(digest).into());
    }
    ctx.log(&format!("{} {}: {} layers, {} bytes", data.id, data.version, pack.layers.len(), pack.size))
        .await;
    Ok(())
}

/// Lets go of what [`acquire`] holds.
pub(super) async fn release(inner: &Inner, ctx: &TaskContext) -> Result<(), TaskFailure> {
    let Some(digests) = ctx.saved_by::<Vec<Digest>>("install.acquire")? else { return Ok(()) };
    let (owner, now) = (hold(ctx.change()), inner.parts.clock.now());
    inner
        .parts
        .state
        .write(move |tx| digests.iter().try_for_each(|digest| blobs::unlink(tx, digest, &owner, now)))
        .await?;
    Ok(())
}

/// Reads every byte of the pack again, and what it says of itself.
pub(super) async fn verify(inner: &Inner, ctx: &TaskContext) -> Result<(), TaskFailure> {
    let data: InstallData = ctx.data()?;
    let pack = pack(inner, &data).await?;
    let ours = platform();
    if pack.info.platform != ours {
        return Err(InstallError::Platform { id: data.id, found: pack.info.platform, ours }.into());
    }
    if let Some(capability) = pack.info.capabilities.first() {
        return Err(InstallError::Capability { id: data.id, capability: capability.clone() }.into());
    }
    let digests = pack.blobs();
    let total = digests.len() as u64;
    for (done, digest) in (0_u64..).zip(digests) {
        ctx.progress(done, total, "blobs");
        let blobs = inner.parts.blobs.clone();
        blocking(move || verify_blob(&blobs, &digest)).await?;
    }
    ctx.progress(total, total, "blobs");
    ctx.log(&format!("{total} blobs have their digests")).await;
    Ok(())
}

fn verify_blob(blobs: &blobs::Blobs, digest: &Digest) -> Result<(), InstallError> {
    let reader =
        blobs.open_blob_blocking(digest)?.ok_or_else(|| InstallError::BlobMissing(digest.clone()))?;
    let mut reader = reader.into_blocking();
    let mut hash = Sha256Stream::default();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    let found = hash.finish();
    if found == *digest { Ok(()) } else { Err(InstallError::BlobDamaged { expected: digest.clone(), found }) }
}

/// Refuses a command that another pack, or a file that is no wrapper, already has.
pub(super) async fn conflicts(inner: &Inner, ctx: &TaskContext) -> Result<(), TaskFailure> {
    let data: InstallData = ctx.data()?;
    let pack = pack(inner, &data).await?;
    let commands: Vec<_> = pack.info.commands.iter().map(|command| command.name.clone()).collect();
    let (wanted, id) = (commands.clone(), data.id.clone());
    let taken = inner
        .parts
        .state
        .read(move |view| {
            for command in wanted {
                if let Some(owner) = view.get(&COMMANDS, &command)?
                    && owner.pack != id
                {
                    return Ok(Some((command, owner.pack)));
                }
            }
            Ok(None)
        })
        .await?;
    if let Some((command, owner)) = taken {
        return Err(InstallError::CommandConflict { command, owner }.into());
    }
    let folder = inner.folder.clone();
    blocking(move || folder.check_free(&commands)).await?;
    Ok(())
}

/// Makes the trees of the pack's layers.
pub(super) async fn unpack(inner: &Inner, ctx: &TaskContext) -> Result<(), TaskFailure> {
    let data: InstallData = ctx.data()?;
    let pack = pack(inner, &data).await?;
    let total = pack.layers.len() as u64;
    ctx.progress(0, total, "layers");
    let trees = inner.parts.trees.clone();
    blocking(move || Ok(trees.ensure(&pack.layers)?)).await?;
    ctx.progress(total, total, "layers");
    Ok(())
}

/// Says that there is nothing to do.
pub(super) async fn present(_: &Inner, ctx: &TaskContext) -> Result<(), TaskFailure> {
    let data: InstallData = ctx.data()?;
    ctx.log(&format!("{} {} is already installed at {}: nothing to do", data.id, data.version, data.digest))
        .await;
    Ok(())
}
