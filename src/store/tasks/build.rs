//! `submit.build`: dependencies, the pack, and its digest, stored before anybody is asked to test it.

use std::path::PathBuf;

use crate::changes::{Step, TaskFailure};
use crate::names::{PackageName, Version};
use crate::packs::{self, APP_DIR, BuildInput, BuiltPack, DEPS_DIR, PackCommand, PackInfo, PackType};
use crate::state::Read as _;

use super::super::builder::{self, BuildError, Builder, Fetched};
use super::super::codes::ReasonCode;
use super::super::finding::Finding;
use super::super::manifest::Manifest;
use super::super::record::{self, BlobRow, PackRow, SubmissionState, VERSIONS};
use super::super::wheels::Resolved;
use super::{Job, aborted, broken};

/// Whether this version is published already.
enum Published {
    No,
    Same,
    Other(String),
}

impl Job<'_> {
    pub(super) async fn build(&self) -> Result<Step, TaskFailure> {
        self.enter(SubmissionState::Building).await?;
        let manifest = self.manifest().await?;
        let source = self.source().await?;
        let (fetched, dependencies) = match self.dependencies().await? {
            Ok(built) => built,
            Err(findings) => return self.reject(findings).await,
        };
        let pack = self.pack(&manifest, &fetched, dependencies, source).await?;
        self.ctx.log(&format!("the pack is {}", pack.manifest.digest)).await;
        self.inner.parts.faults.pass("store.built");
        match self.keep(&manifest, pack, fetched).await? {
            Published::No => Ok(Step::Done),
            Published::Same => {
                self.ctx.log("this very pack is published already").await;
                Ok(Step::Finish)
            }
            Published::Other(digest) => {
                let message = format!(
                    "`{}` {} is published with other content ({digest})",
                    manifest.name, manifest.version
                );
                let finding =
                    Finding::new(ReasonCode::VersionExists, message).value(manifest.version.to_string());
                self.reject(vec![finding]).await
            }
        }
    }

    /// Wheels as blobs and, when there are any, installed into a directory.
    async fn dependencies(&self) -> Result<Result<(Fetched, Option<PathBuf>), Vec<Finding>>, TaskFailure> {
        let Some(list) = &self.row.wheels else {
            return Err(TaskFailure::new("lockfile_missing", "the submission has no lockfile"));
        };
        let resolved: Resolved = self.json(list).await?;
        if resolved.packages.is_empty() {
            return Ok(Ok((Fetched::default(), None)));
        }
        let parts = &self.inner.parts;
        let lockfile = self.row.lockfile.as_ref().map(|blob| blob.digest.clone());
        let lockfile =
            lockfile.ok_or_else(|| TaskFailure::new("lockfile_missing", "the lockfile is gone"))?;
        let lockfile =
            parts.blobs.read_small(&lockfile, 1 << 20).await.map_err(|error| broken(error.code(), &error))?;
        let (sandbox, blobs, base) = (parts.sandbox.clone(), parts.blobs.clone(), parts.base.clone());
        let (state, submission) = (parts.state.clone(), self.id.clone());
        let (tools_root, index_url) = (parts.tools_root.clone(), parts.config.store.index_url.clone());
        let work = self.ctx.work_dir()?;
        let (built, heard) = self
            .blocking(move |cancel| {
                let builder = Builder {
                    sandbox: &sandbox,
                    blobs: &blobs,
                    tools_root,
                    state: &state,
                    submission: &submission,
                    index_url: index_url.as_deref(),
                };
                let mut heard = Vec::new();
                let mut build = || -> Result<(Fetched, PathBuf), BuildError> {
                    let chosen = builder::choose(&resolved, &base)?;
                    let fetched = builder.fetch(chosen, &work, cancel, &mut heard)?;
                    let directory = builder.install(&fetched, &lockfile, &work, cancel)?;
                    Ok((fetched, directory))
                };
                (build(), heard)
            })
            .await?;
        self.note_contacts(heard).await?;
        match built {
            Ok((fetched, directory)) => {
                let (all, new) = (fetched.wheels.len(), fetched.downloaded);
                self.ctx.log(&format!("{all} wheels, {new} of them downloaded")).await;
                Ok(Ok((fetched, Some(directory))))
            }
            Err(BuildError::Refused(findings)) => Ok(Err(findings)),
            Err(BuildError::Cancelled) => Err(aborted()),
            Err(BuildError::State(error)) => Err(error.into()),
            Err(BuildError::Sandbox(error)) => Err(broken(error.code(), &error)),
            Err(error) => Err(broken("build_failed", &error)),
        }
    }

    async fn pack(
        &self,
        manifest: &Manifest,
        fetched: &Fetched,
        dependencies: Option<PathBuf>,
        source: PathBuf,
    ) -> Result<BuiltPack, TaskFailure> {
        let parts = &self.inner.parts;
        let publisher = self.row.publisher.clone();
        let info = PackInfo {
            name: manifest.name.clone(),
            publisher: publisher
                .ok_or_else(|| TaskFailure::new("publisher_missing", "the submission has no publisher"))?,
            version: manifest.version.clone(),
            platform: parts.base.platform.clone(),
            base: parts.base.layer.diff_id.clone(),
            kind: PackType::Application,
            commands: manifest.commands.iter().map(pack_command).collect(),
            capabilities: manifest.sandbox.capabilities.clone(),
            summary: manifest.description.clone(),
            license: manifest.license.clone(),
            artifacts: fetched.artifacts(),
        };
        let input = BuildInput { info, base: parts.base.clone(), dependencies, source };
        let blobs = parts.blobs.clone();
        let built = self.blocking(move |_| packs::build(&blobs, &input)).await?;
        built.map_err(|error| TaskFailure { hint: error.hint(), ..broken(error.code(), &error) })
    }

    /// Writes the digest and owns every blob, in one transaction.
    async fn keep(
        &self,
        manifest: &Manifest,
        pack: BuiltPack,
        fetched: Fetched,
    ) -> Result<Published, TaskFailure> {
        let (id, now) = (self.id.clone(), self.inner.now());
        let (name, version): (PackageName, Version) = (manifest.name.clone(), manifest.version.clone());
        let published = self
            .inner
            .parts
            .state
            .write(move |tx| {
                for (_, wheel) in &fetched.wheels {
                    record::link(tx, &id, wheel)?;
                }
                for stored in
                    [&pack.manifest, &pack.config].into_iter().chain(pack.layers.iter().map(|(_, s)| s))
                {
                    record::link(tx, &id, stored)?;
                }
                let known = tx.get(&VERSIONS, &(name.canonical(), version.clone()))?;
                let same = known.as_ref().is_some_and(|known| known.digest == pack.manifest.digest);
                let row = pack_row(&pack);
                record::update(tx, &id, now, |submission| {
                    submission.pack_digest = Some(pack.manifest.digest.clone());
                    submission.pack = Some(row);
                    if same {
                        submission.state = SubmissionState::Published;
                        submission.verdict.clone_from(&submission.checks);
                    }
                })?;
                if same {
                    super::super::claims::release(tx, &id, &name, &version)?;
                }
                Ok(match known {
                    None => Published::No,
                    Some(_) if same => Published::Same,
                    Some(known) => Published::Other(known.digest.to_string()),
                })
            })
            .await?;
        Ok(published)
    }
}

fn pack_row(pack: &BuiltPack) -> PackRow {
    PackRow {
        manifest: BlobRow::from(&pack.manifest),
        config: BlobRow::from(&pack.config),
        layers: pack
            .layers
            .iter()
            .map(|(layer, stored)| (layer.digest.clone(), layer.diff_id.clone(), stored.size))
            .collect(),
    }
}

/// Where the program of a command lies in the pack: `python3` is the bundle's, a path is below the source's root, any
/// other name is a script of the dependencies.
fn program(name: &str) -> String {
    match name {
        "python3" | "python" => "/usr/bin/python3".to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        path if path.contains('/') => format!("{APP_DIR}/{}", path.trim_start_matches("./")),
        script => format!("{DEPS_DIR}/bin/{script}"),
    }
}

fn pack_command(command: &super::super::manifest::Command) -> PackCommand {
    PackCommand {
        name: command.name.clone(),
        path: program(command.run.first().map_or("", String::as_str)),
        arguments: command.run.iter().skip(1).cloned().collect(),
        description: command.description.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("python3", "/usr/bin/python3")]
    #[case("/usr/bin/env", "/usr/bin/env")]
    #[case("./bin/tool", "/opt/app/bin/tool")]
    #[case("bin/tool", "/opt/app/bin/tool")]
    #[case("cowsay", "/opt/deps/bin/cowsay")]
    fn programs_of_commands_lie_in_the_pack(#[case] given: &str, #[case] path: &str) {
        assert_eq!(program(given), path);
    }
}
