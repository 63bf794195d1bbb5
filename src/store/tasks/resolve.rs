//! `submit.resolve`: the lockfile, kept before anything is built from it.

use bytes::Bytes;

use crate::changes::{Step, TaskFailure};

use super::super::record::{self, SubmissionState};
use super::super::resolver::{ResolveError, Resolver};
use super::{Job, aborted, broken};

impl Job<'_> {
    pub(super) async fn resolve(&self) -> Result<Step, TaskFailure> {
        self.enter(SubmissionState::Resolving).await?;
        let packages = self.manifest().await?.packages;
        let parts = &self.inner.parts;
        let (sandbox, tools_root, work) =
            (parts.sandbox.clone(), parts.tools_root.clone(), self.ctx.work_dir()?);
        let (python_version, index_url) =
            (parts.base.python_version.clone(), parts.config.store.index_url.clone());
        let (resolved, heard) = self
            .blocking(move |cancel| {
                let resolver = Resolver {
                    sandbox: &sandbox,
                    tools_root,
                    python_version: &python_version,
                    index_url: index_url.as_deref(),
                };
                let mut heard = Vec::new();
                (resolver.resolve(&packages, &work, cancel, &mut heard), heard)
            })
            .await?;
        self.note_contacts(heard).await?;
        let resolution = match resolved {
            Ok(resolution) => resolution,
            Err(ResolveError::Refused(finding)) => return self.reject(vec![*finding]).await,
            Err(ResolveError::Cancelled) => return Err(aborted()),
            Err(ResolveError::Sandbox(error)) => return Err(broken(error.code(), &error)),
            Err(error) => return Err(broken("resolver_failed", &error)),
        };
        let count = resolution.resolved.packages.len();
        self.ctx.log(&format!("{count} packages, a lockfile of {} bytes", resolution.lockfile.len())).await;
        let list =
            serde_json::to_vec(&resolution.resolved).map_err(|error| broken("list_not_written", &error))?;
        let put =
            |bytes| async { parts.blobs.put(bytes).await.map_err(|error| broken(error.code(), &error)) };
        let lockfile = put(Bytes::from(resolution.lockfile)).await?;
        let wheels = put(Bytes::from(list)).await?;
        let (id, now) = (self.id.clone(), self.inner.now());
        parts
            .state
            .write(move |tx| {
                let lockfile = record::link(tx, &id, &lockfile)?;
                let wheels = record::link(tx, &id, &wheels)?;
                record::update(tx, &id, now, |row| {
                    row.lockfile = Some(lockfile);
                    row.wheels = Some(wheels);
                })
            })
            .await?;
        Ok(Step::Done)
    }
}
