//! Taking an installation away: files first, then the record.

use crate::audit::{self, Event};
use crate::changes::{TaskContext, TaskFailure};
use crate::names::{CommandName, Millis, PackId};
use crate::state::{Read as _, StateError, Tx};
use crate::trees;

use super::super::installer::Inner;
use super::super::record::{COMMANDS, INSTALLED};
use super::link::{names, unlink_blobs};
use super::{RemoveData, blocking};

/// Removes wrappers and launch files, then the record. Needs nothing of the pack itself, so that a broken one goes too.
pub(super) async fn unlink(inner: &Inner, ctx: &TaskContext) -> Result<(), TaskFailure> {
    let data: RemoveData = ctx.data()?;
    let parts = &inner.parts;
    let id = data.id.clone();
    let Some(record) = parts.state.read(move |view| view.get(&INSTALLED, &id)).await? else {
        // A crash came between the commit and the note that this task is done.
        return Ok(());
    };
    let commands: Vec<CommandName> = names(&record);
    ctx.save(&commands).await?;
    let folder = inner.folder.clone();
    blocking(move || folder.remove(&commands)).await?;
    parts.faults.pass("remove.unlink.before_commit");
    let (id, by, now) = (data.id, data.by, parts.clock.now());
    parts.state.write(move |tx| forget(tx, now, &id, &by)).await?;
    parts.faults.pass("remove.unlink.after_commit");
    ctx.log(&format!("{} {} is removed", record.id, record.version)).await;
    Ok(())
}

fn forget(tx: &mut Tx<'_>, now: Millis, id: &PackId, by: &str) -> Result<(), StateError> {
    let Some(record) = tx.get(&INSTALLED, id)? else { return Ok(()) };
    for command in names(&record) {
        tx.delete(&COMMANDS, &command)?;
    }
    unlink_blobs(tx, now, &record)?;
    if let Some(previous) = &record.previous {
        unlink_blobs(tx, now, previous)?;
    }
    tx.delete(&INSTALLED, id)?;
    let event = Event {
        who: by.to_owned(),
        action: "remove".to_owned(),
        subject: format!("{} {}", record.id, record.version),
        outcome: "done".to_owned(),
        why: record.digest.to_string(),
    };
    audit::append(tx, now, &event)
}

/// Puts the files back, as long as the record is there.
pub(super) async fn undo(inner: &Inner, ctx: &TaskContext) -> Result<(), TaskFailure> {
    let data: RemoveData = ctx.data()?;
    let Some(record) = inner.parts.state.read(move |view| view.get(&INSTALLED, &data.id)).await? else {
        return Ok(());
    };
    let folder = inner.folder.clone();
    blocking(move || folder.write(&record)).await?;
    Ok(())
}

/// Removes the pack's data where that was asked for.
pub(super) async fn clean(inner: &Inner, ctx: &TaskContext) -> Result<(), TaskFailure> {
    let data: RemoveData = ctx.data()?;
    let place = inner.parts.root.join("data").join(data.id.publisher.as_str()).join(data.id.name.as_str());
    if data.purge {
        blocking(move || Ok(trees::remove_tree(&place)?)).await?;
    } else if place.symlink_metadata().is_ok() {
        ctx.log(&format!("its data stays at {}", place.display())).await;
    }
    Ok(())
}
