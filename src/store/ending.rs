//! How submissions end: one transaction for the state, the verdict, the claims and the audit log.

use bytes::Bytes;

use crate::audit;
use crate::blobs::{self, Stored};
use crate::names::{ChangeId, Millis, PackageName, SubmissionId, Version};
use crate::state::{Read, StateError, Tx};

use super::claims;
use super::finding::{Finding, VerdictView};
use super::record::{self, BlobRow, CLAIMS, SUBMISSIONS, SubmissionRecord, SubmissionState, VerdictRow};
use super::refusal::StoreRefusal;
use super::service::Inner;

impl Inner {
    /// Stores the verdict's bytes; they are linked in the transaction that names them.
    pub(super) async fn verdict(&self, findings: Vec<Finding>) -> Result<(Stored, VerdictRow), StoreRefusal> {
        let verdict = VerdictView::of(findings, self.docs_base());
        let bytes = serde_json::to_vec(&verdict)
            .map_err(|error| StoreRefusal::internal("verdict_not_written", &error))?;
        let whole = self.parts.blobs.put(Bytes::from(bytes)).await?;
        let row = VerdictRow {
            result: verdict.result.clone(),
            message: verdict.message.chars().take(1_000).collect(),
            reason_codes: verdict.reason_codes.clone(),
            whole: BlobRow::from(&whole),
        };
        Ok((whole, row))
    }

    /// Ends a submission whose change was aborted before its first task, and so has nothing to undo.
    pub(super) async fn settle(&self, id: &SubmissionId) -> Result<(), StoreRefusal> {
        let key = id.clone();
        let row = self.parts.state.read(move |view| view.get(&SUBMISSIONS, &key)).await?;
        let at_the_start = |row: &SubmissionRecord| {
            matches!(row.state, SubmissionState::Submitted | SubmissionState::AwaitingResult)
        };
        let waiting = row.filter(at_the_start);
        let Some(change) = waiting.and_then(|row| ChangeId::parse(&row.change?).ok()) else { return Ok(()) };
        match self.parts.changes.get(&change).await {
            Ok(Some(view)) if view.state == "cancelled" => {
                self.end(id, SubmissionState::Cancelled, Vec::new()).await
            }
            Ok(_) => Ok(()),
            Err(error) => Err(StoreRefusal::internal("change_unreadable", &error)),
        }
    }

    /// As [`Inner::settle`], for the submission that holds a version which another one wants.
    pub(super) async fn settle_claim(
        &self,
        name: &PackageName,
        version: &Version,
    ) -> Result<(), StoreRefusal> {
        let key = (name.canonical(), version.clone());
        match self.parts.state.read(move |view| view.get(&CLAIMS, &key)).await? {
            Some(holder) => self.settle(&holder.submission).await,
            None => Ok(()),
        }
    }

    /// Ends a submission without publishing it; does nothing to one that has ended.
    pub(super) async fn end(
        &self,
        id: &SubmissionId,
        state: SubmissionState,
        findings: Vec<Finding>,
    ) -> Result<(), StoreRefusal> {
        // Who stops a submission doesn't judge it.
        let verdict = match state {
            SubmissionState::Cancelled => None,
            _ => Some(self.verdict(findings).await?),
        };
        let (id, now) = (id.clone(), self.now());
        self.parts.faults.pass("store.end");
        self.parts
            .state
            .write(move |tx| {
                let Some(mut row) = tx.get(&SUBMISSIONS, &id)?.filter(|row| !row.state.is_final()) else {
                    return Ok(());
                };
                row.state = state;
                if let Some((whole, verdict)) = &verdict {
                    record::link(tx, &id, whole)?;
                    row.verdict = Some(verdict.clone());
                }
                row.updated_at = row.updated_at.max(now);
                let_go(tx, &id, &mut row, now)?;
                tx.put(&SUBMISSIONS, &id, &row)?;
                let event = audit::Event {
                    who: "pantry".to_owned(),
                    action: "submission.end".to_owned(),
                    subject: format!("submission/{id}"),
                    outcome: state.as_str().to_owned(),
                    why: verdict.as_ref().map(|(_, row)| row.reason_codes.join(", ")).unwrap_or_default(),
                };
                audit::append(tx, now, &event)?;
                Ok(())
            })
            .await?;
        self.parts.faults.pass("store.ended");
        Ok(())
    }
}

/// What an unpublished submission held: its claims, and the pack that nobody may get.
fn let_go(
    tx: &mut Tx<'_>,
    id: &SubmissionId,
    row: &mut SubmissionRecord,
    now: Millis,
) -> Result<(), StateError> {
    if let (Some(name), Some(version)) = (&row.name, &row.version) {
        claims::release(tx, id, name, version)?;
    }
    if let Some(pack) = row.pack.take() {
        let owner = record::owner(id);
        let layers = pack.layers.iter().map(|(digest, ..)| digest);
        for digest in layers.chain([&pack.manifest.digest, &pack.config.digest]) {
            blobs::unlink(tx, digest, &owner, now)?;
        }
    }
    Ok(())
}
