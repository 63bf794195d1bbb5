//! Dependencies as a directory: wheels chosen, fetched, proved, and installed offline from exactly these.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::blobs::{BlobError, Blobs, Stored};
use crate::names::{Digest, SubmissionId};
use crate::packs::{Artifact, Base, DEPS_DIR};
use crate::sandbox::{
    Cancel, End, Limits, OutputDir, Policy, Sandbox, SandboxError, SeccompProfile, StdinBytes,
};
use crate::state::{State, StateError};

use super::codes::ReasonCode;
use super::finding::{Finding, tail};
use super::reach::{ContactRow, Reach};
use super::record;
use super::resolver::{fresh_directory, remove};
use super::wheels::{Resolved, Target, Wheel};

const FETCH: &str = include_str!("jailed/fetch.py");
const INSTALL: &str = include_str!("jailed/install.py");
/// Most bytes of all wheels that one submission may need.
const WHEELS_CAP: u64 = 512 << 20;
const SITE_CAP: u64 = 1 << 30;
const WALL_MS: u64 = 300_000;

/// What building dependencies needs.
pub(crate) struct Builder<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) blobs: &'a Blobs,
    pub(crate) tools_root: Vec<PathBuf>,
    pub(crate) state: &'a State,
    pub(crate) submission: &'a SubmissionId,
    pub(crate) index_url: Option<&'a str>,
}

/// The wheels of a submission, as blobs.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) wheels: Vec<(Wheel, Stored)>,
    pub(crate) downloaded: usize,
}

impl Fetched {
    /// As the pack records them, by file name.
    pub(crate) fn artifacts(&self) -> Vec<Artifact> {
        let mut artifacts: Vec<Artifact> = self
            .wheels
            .iter()
            .map(|(wheel, _)| Artifact { file: wheel.file.clone(), sha256: wheel.sha256.clone() })
            .collect();
        artifacts.sort_by(|a, b| a.file.cmp(&b.file));
        artifacts
    }
}

/// Why dependencies can't be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// The dependencies are at fault.
    #[error("a dependency can't be had")]
    Refused(Vec<Finding>),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the list of wheels can't be written: {0}")]
    List(#[from] serde_json::Error),
    #[error("the build was stopped")]
    Cancelled,
    #[error("the bundle's Python version `{0}` is not understood")]
    Python(String),
}

#[derive(Serialize)]
struct Wanted<'a> {
    url: &'a str,
    file: &'a str,
    sha256: &'a str,
}

/// One wheel a package, or a finding for each that has none.
pub(crate) fn choose(resolved: &Resolved, base: &Base) -> Result<Vec<Wheel>, BuildError> {
    let target = Target::of(&base.python_version, &base.platform, &resolved.glibc)
        .ok_or_else(|| BuildError::Python(base.python_version.clone()))?;
    let mut chosen = Vec::new();
    let mut findings = Vec::new();
    for package in &resolved.packages {
        if let Some(wheel) = target.choose(&package.wheels) {
            chosen.push(wheel.clone());
        } else {
            let message = format!(
                "`{}` {} has no wheel for CPython {} on {}",
                package.name, package.version, base.python_version, base.platform
            );
            findings.push(Finding::new(ReasonCode::DependencyDownloadFailed, message).value(&package.name));
        }
    }
    if findings.is_empty() { Ok(chosen) } else { Err(BuildError::Refused(findings)) }
}

impl Builder<'_> {
    /// The chosen wheels as blobs; what is there already is not downloaded again. Blocking.
    pub(crate) fn fetch(
        &self,
        wheels: Vec<Wheel>,
        work: &Path,
        cancel: &Cancel,
        heard: &mut Vec<ContactRow>,
    ) -> Result<Fetched, BuildError> {
        let mut fetched = Fetched::default();
        let mut missing = Vec::new();
        for wheel in wheels {
            // Nobody may refer to it any more: held, it stays until the pack is recorded.
            match self.blobs.hold_blocking(&digest_of(&wheel))? {
                Some(stored) => fetched.wheels.push((wheel, stored)),
                None => missing.push(wheel),
            }
        }
        if missing.is_empty() {
            return Ok(fetched);
        }
        let output = self.download(&missing, work, cancel, heard)?;
        for wheel in missing {
            let mut file = fs_err::File::open(output.join(&wheel.sha256))?;
            let stored = self.blobs.put_reader_blocking(&mut file, WHEELS_CAP)?;
            if stored.digest != digest_of(&wheel) {
                let message = format!("`{}` is not what the index announced (SHA-256 differs)", wheel.file);
                return Err(BuildError::Refused(vec![Finding::new(
                    ReasonCode::DependencyDownloadFailed,
                    message,
                )]));
            }
            fetched.downloaded += 1;
            fetched.wheels.push((wheel, stored));
        }
        // Only what a record names can be read back.
        let (id, new) = (self.submission.clone(), fetched.wheels.clone());
        self.state.write_blocking(move |tx| {
            for (_, wheel) in &new {
                record::link(tx, &id, wheel)?;
            }
            Ok(())
        })?;
        remove(&output)?;
        Ok(fetched)
    }

    fn download(
        &self,
        missing: &[Wheel],
        work: &Path,
        cancel: &Cancel,
        heard: &mut Vec<ContactRow>,
    ) -> Result<PathBuf, BuildError> {
        let (input, output) = (work.join("fetch-input"), work.join("fetch-output"));
        fresh_directory(&input)?;
        remove(&output)?;
        let wanted: Vec<Wanted<'_>> = missing
            .iter()
            .map(|wheel| Wanted { url: &wheel.url, file: &wheel.file, sha256: &wheel.sha256 })
            .collect();
        fs_err::write(input.join("wanted.json"), serde_json::to_vec(&wanted)?)?;
        let argv = ["/usr/bin/python3", "-I", "-", "/input/wanted.json", "/output"];
        let policy = Policy::new(self.tools_root.clone(), argv.into_iter().map(str::to_owned).collect());
        let mut reach = Reach::new(self.index_url, &|name| std::env::var(name).ok())?;
        reach.lead_to_addresses(missing.iter().map(|wheel| wheel.url.as_str()));
        let mut policy = reach.connect(policy, &input)?;
        policy = policy.input(&input, "/input").profile(SeccompProfile::Build);
        policy.limits = Limits { wall_ms: WALL_MS, ..Limits::build() };
        policy.outputs = vec![output_into(&output, WHEELS_CAP, 4_096)];
        let outcome = reach.run(self.sandbox, &policy, FETCH, cancel, ("download", heard))?;
        match outcome.end {
            End::Exited(0) => Ok(output),
            End::Cancelled => Err(BuildError::Cancelled),
            End::Exited(_) => Err(failed(tail(&outcome.stderr.text(), 590))),
            other => Err(failed(format!("the download ended with {other:?}"))),
        }
    }

    /// Installs the wheels into a new directory, without any network; gives the directory. Blocking.
    pub(crate) fn install(
        &self,
        fetched: &Fetched,
        lockfile: &[u8],
        work: &Path,
        cancel: &Cancel,
    ) -> Result<PathBuf, BuildError> {
        let (input, output) = (work.join("install-input"), work.join("dependencies"));
        fresh_directory(&input)?;
        fresh_directory(&input.join("wheels"))?;
        remove(&output)?;
        for (wheel, stored) in &fetched.wheels {
            let reader = self.blobs.open_blob_blocking(&stored.digest)?;
            let mut reader = reader.ok_or_else(|| BlobError::Unknown(stored.digest.clone()))?.into_blocking();
            let mut file = fs_err::File::create(input.join("wheels").join(&wheel.file))?;
            std::io::copy(&mut reader, &mut file)?;
            file.flush()?;
        }
        fs_err::write(input.join("lockfile.txt"), lockfile)?;
        let argv = [
            "/usr/bin/python3",
            "-s",
            "-S",
            "-",
            "/input/wheels",
            "/input/lockfile.txt",
            "/output",
            DEPS_DIR,
        ];
        let mut policy = Policy::new(self.tools_root.clone(), argv.into_iter().map(str::to_owned).collect());
        policy = policy.input(&input, "/input").profile(SeccompProfile::Build);
        // The order of sets in byte code follows the hash seed.
        policy =
            policy.env("PYTHONHASHSEED", "0").env("PYTHONNOUSERSITE", "1").env("UV_CACHE_DIR", "/tmp/cache");
        policy = policy.env("UV_NO_CONFIG", "1");
        policy.cwd = PathBuf::from("/tmp");
        policy.limits = Limits { wall_ms: WALL_MS, ..Limits::build() };
        for scratch in &mut policy.tmpfs {
            scratch.size_bytes = SITE_CAP;
            scratch.inodes = 200_000;
        }
        policy.outputs = vec![output_into(&output, SITE_CAP, 100_000)];
        let outcome = self.sandbox.run(&policy, StdinBytes::Bytes(INSTALL.as_bytes().to_vec()), cancel)?;
        match outcome.end {
            End::Exited(0) => {
                remove(&input)?;
                Ok(output)
            }
            End::Cancelled => Err(BuildError::Cancelled),
            End::Exited(_) => Err(failed(tail(&outcome.stderr.text(), 590))),
            other => Err(failed(format!("the installation of the wheels ended with {other:?}"))),
        }
    }
}

fn digest_of(wheel: &Wheel) -> Digest {
    Digest::parse(&format!("sha256:{}", wheel.sha256))
        .expect("invariant: a chosen wheel has a proper SHA-256")
}

fn failed(message: String) -> BuildError {
    BuildError::Refused(vec![Finding::new(ReasonCode::DependencyDownloadFailed, message)])
}

fn output_into(into: &Path, bytes: u64, files: u64) -> OutputDir {
    OutputDir {
        at: PathBuf::from("/output"),
        size_bytes: bytes,
        inodes: files,
        into: into.to_owned(),
        max_files: files,
        max_bytes: bytes,
        max_depth: 32,
    }
}
