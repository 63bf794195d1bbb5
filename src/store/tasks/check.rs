//! `submit.check`: the findings, and the claims where the manifest is only in the source.

use bytes::Bytes;

use crate::changes::{Step, TaskFailure};

use super::super::checks::{Checked, Checker};
use super::super::claims;
use super::super::finding::VerdictView;
use super::super::record::{self, SubmissionState};
use super::super::submit::foreign_publisher;
use super::{Job, broken, failure};

impl Job<'_> {
    pub(super) async fn check(&self) -> Result<Step, TaskFailure> {
        self.enter(SubmissionState::Checking).await?;
        let source = self.source().await?;
        let declared = match &self.row.declared {
            Some(blob) => Some(self.json(blob).await?),
            None => None,
        };
        let parts = &self.inner.parts;
        let (sandbox, root) = (parts.sandbox.clone(), parts.runtime_root.clone());
        let platform = parts.base.platform.clone();
        let checked = self
            .blocking(move |cancel| {
                Checker { sandbox: &sandbox, root, platform: &platform }.check(
                    &source,
                    declared.as_ref(),
                    cancel,
                )
            })
            .await?;
        let Checked { manifest, mut findings } = checked.map_err(|error| broken(error.code(), &error))?;
        let publisher = self.row.publisher.clone();
        if let (Some(manifest), Some(publisher)) = (&manifest, &publisher) {
            findings.extend(foreign_publisher(manifest, publisher));
        }
        let (Some(manifest), Some(publisher)) = (manifest, publisher) else {
            return self.reject(findings).await;
        };
        self.ctx.log(&format!("{} {}: {} finding(s)", manifest.name, manifest.version, findings.len())).await;
        // The name is shown with the rejection, too; claims are for what goes on.
        let (name, version) = (manifest.name.clone(), manifest.version.clone());
        if self.row.name.is_none() {
            self.update(move |row| {
                row.name = Some(name.clone());
                row.version = Some(version.clone());
            })
            .await?;
        }
        if VerdictView::of(findings.clone(), "").rejects() {
            return self.reject(findings).await;
        }
        let bytes = serde_json::to_vec(&manifest).map_err(|error| broken("manifest_not_written", &error))?;
        let stored =
            parts.blobs.put(Bytes::from(bytes)).await.map_err(|error| broken(error.code(), &error))?;
        let (whole, verdict) =
            self.inner.verdict(findings.clone()).await.map_err(|refusal| failure(&refusal))?;
        let (id, now) = (self.id.clone(), self.inner.now());
        let settled = self.inner.settle_claim(&manifest.name, &manifest.version).await;
        settled.map_err(|refusal| failure(&refusal))?;
        parts.faults.pass("store.claim");
        let claimed = parts
            .state
            .write(move |tx| {
                let claimed = claims::claim(tx, &id, &publisher, &manifest.name, &manifest.version)?;
                if let Err(finding) = claimed {
                    return Ok(Err(finding));
                }
                let blob = record::link(tx, &id, &stored)?;
                record::link(tx, &id, &whole)?;
                record::update(tx, &id, now, |row| {
                    row.manifest = Some(blob);
                    row.checks = Some(verdict.clone());
                })?;
                Ok(Ok(()))
            })
            .await?;
        if let Err(finding) = claimed {
            findings.push(finding);
            return self.reject(findings).await;
        }
        Ok(Step::Done)
    }
}
