//! Making an installation visible: files first, then the record that is the truth.

use crate::audit::{self, Event};
use crate::blobs;
use crate::changes::{TaskContext, TaskFailure};
use crate::names::{ChangeId, CommandName, Millis};
use crate::packs;
use crate::state::{Read as _, StateError, Tx};

use super::super::error::InstallError;
use super::super::installer::Inner;
use super::super::record::{COMMANDS, CommandOwner, INSTALLED, Installed};
use super::{InstallData, blocking, check_identity};

/// Writes wrappers and launch files, then the record; then removes the wrappers that only the revision before had.
pub(super) async fn link(inner: &Inner, ctx: &TaskContext) -> Result<(), TaskFailure> {
    let data: InstallData = ctx.data()?;
    let id = data.id.clone();
    let current = inner.parts.state.read(move |view| view.get(&INSTALLED, &id)).await?;
    let record = match current {
        // A crash came between the commit and the note that this task is done.
        Some(current) if current.change == *ctx.change() => current,
        current => commit(inner, ctx, &data, current.as_ref()).await?,
    };
    // From here on nothing fails: what is not tidied now, recovery tidies.
    let kept = names(&record);
    let old = record.previous.as_deref().map(names).unwrap_or_default();
    let gone: Vec<_> = old.into_iter().filter(|name| !kept.contains(name)).collect();
    if !gone.is_empty() {
        let folder = inner.folder.clone();
        if let Err(error) = blocking(move || folder.remove(&gone)).await {
            ctx.log(&format!("old wrappers stay for now: {error}")).await;
        }
    }
    let commands = kept.iter().map(CommandName::as_str).collect::<Vec<_>>().join(", ");
    ctx.log(&format!("revision {} of {}: {commands}", record.revision, record.id)).await;
    Ok(())
}

async fn commit(
    inner: &Inner,
    ctx: &TaskContext,
    data: &InstallData,
    current: Option<&Installed>,
) -> Result<Installed, TaskFailure> {
    let parts = &inner.parts;
    let pack = packs::load(&parts.blobs, &data.digest).await.map_err(InstallError::from)?;
    check_identity(&pack, &data.id, &data.version)?;
    let now = parts.clock.now();
    let record = Installed::over(current, &pack, ctx.change(), now, &data.by);
    let commands = names(&record);
    ctx.save(&commands).await?;
    let (folder, written, free) = (inner.folder.clone(), record.clone(), commands);
    blocking(move || {
        folder.check_free(&free)?;
        folder.write(&written)
    })
    .await?;
    parts.faults.pass("install.link.before_commit");
    let kept = record.clone();
    parts.state.write(move |tx| put(tx, now, &kept)).await??;
    parts.faults.pass("install.link.after_commit");
    Ok(record)
}

/// Everything that the record means, in one transaction. Looks first, so that a refusal writes nothing.
fn put(tx: &mut Tx<'_>, now: Millis, record: &Installed) -> Result<Result<(), InstallError>, StateError> {
    let current = tx.get(&INSTALLED, &record.id)?;
    for command in names(record) {
        if let Some(owner) = tx.get(&COMMANDS, &command)?
            && owner.pack != record.id
        {
            return Ok(Err(InstallError::CommandConflict { command, owner: owner.pack }));
        }
    }
    for digest in &record.blobs {
        if blobs::is_known(tx, digest)?.is_none() {
            return Ok(Err(InstallError::BlobMissing(digest.clone())));
        }
    }
    if let Some(current) = &current {
        for command in names(current) {
            tx.delete(&COMMANDS, &command)?;
        }
        // One revision before the present one is kept, not more.
        if let Some(older) = &current.previous {
            unlink_blobs(tx, now, older)?;
        }
    }
    own(tx, record)?;
    note(tx, now, record, "install")?;
    Ok(Ok(()))
}

/// Writes a record with its commands and references.
fn own(tx: &mut Tx<'_>, record: &Installed) -> Result<(), StateError> {
    for command in names(record) {
        tx.put(&COMMANDS, &command, &CommandOwner { pack: record.id.clone() })?;
    }
    for revision in std::iter::once(record).chain(record.previous.as_deref()) {
        for digest in &revision.blobs {
            blobs::link_known(tx, digest, &revision.owner())?;
        }
    }
    tx.put(&INSTALLED, &record.id, record)
}

pub(super) fn unlink_blobs(tx: &mut Tx<'_>, now: Millis, record: &Installed) -> Result<(), StateError> {
    record.blobs.iter().try_for_each(|digest| blobs::unlink(tx, digest, &record.owner(), now))
}

pub(super) fn note(tx: &mut Tx<'_>, now: Millis, record: &Installed, action: &str) -> Result<(), StateError> {
    let event = Event {
        who: record.by.clone(),
        action: action.to_owned(),
        subject: format!("{} {}", record.id, record.version),
        outcome: "done".to_owned(),
        why: record.digest.to_string(),
    };
    audit::append(tx, now, &event)
}

pub(super) fn names(record: &Installed) -> Vec<CommandName> {
    record.commands.iter().map(|command| command.name.clone()).collect()
}

/// Brings back the revision before, or nothing where there was none.
pub(super) async fn undo(inner: &Inner, ctx: &TaskContext) -> Result<(), TaskFailure> {
    let Some(written) = ctx.saved::<Vec<CommandName>>()? else { return Ok(()) };
    let data: InstallData = ctx.data()?;
    let parts = &inner.parts;
    let (id, change, now) = (data.id.clone(), ctx.change().clone(), parts.clock.now());
    let current = parts.state.write(move |tx| restore(tx, now, &id, &change)).await?;
    let folder = inner.folder.clone();
    blocking(move || {
        let kept = current.as_ref().map(names).unwrap_or_default();
        let gone: Vec<_> = written.into_iter().filter(|name| !kept.contains(name)).collect();
        if let Some(current) = &current {
            folder.write(current)?;
        }
        folder.remove(&gone)
    })
    .await?;
    Ok(())
}

/// Takes the record back when it was committed by this change; gives what is installed then.
fn restore(
    tx: &mut Tx<'_>,
    now: Millis,
    id: &crate::names::PackId,
    change: &ChangeId,
) -> Result<Option<Installed>, StateError> {
    let Some(current) = tx.get(&INSTALLED, id)? else { return Ok(None) };
    if current.change != *change {
        return Ok(Some(current));
    }
    for command in names(&current) {
        tx.delete(&COMMANDS, &command)?;
    }
    unlink_blobs(tx, now, &current)?;
    note(tx, now, &current, "install.undo")?;
    let Some(previous) = current.previous else {
        tx.delete(&INSTALLED, id)?;
        return Ok(None);
    };
    own(tx, &previous)?;
    Ok(Some(*previous))
}
