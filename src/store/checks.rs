//! What is checked of a source before anything of it is resolved, built or run.

pub(crate) mod analysis;
mod layout;
mod routine;

use std::path::{Path, PathBuf};

use crate::sandbox::{Cancel, Sandbox, SandboxError};

use super::codes::ReasonCode;
use super::finding::Finding;
use super::manifest::{self, MANIFEST_FILE, Manifest};

pub(crate) use layout::source_root;

/// The manifest, when it could be read, and everything that was found.
pub(crate) struct Checked {
    pub(crate) manifest: Option<Manifest>,
    pub(crate) findings: Vec<Finding>,
}

/// What the checks need besides the source.
pub(crate) struct Checker<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) root: Vec<PathBuf>,
    /// `os/arch` of this machine's bundle.
    pub(crate) platform: &'a str,
}

impl Checker<'_> {
    /// Checks the source below `source` against the manifest in it; components are filled in by layout where none
    /// are declared. Blocking.
    pub(crate) fn check(
        &self,
        source: &Path,
        declared: Option<&Manifest>,
        cancel: &Cancel,
    ) -> Result<Checked, SandboxError> {
        let mut findings = Vec::new();
        let mut manifest = match read_manifest(source) {
            Ok(manifest) => manifest,
            Err(found) => return Ok(Checked { manifest: None, findings: found }),
        };
        if declared.is_some_and(|declared| *declared != manifest) {
            let message = format!("the request's manifest and the source's `{MANIFEST_FILE}` must be equal");
            findings.push(Finding::new(ReasonCode::ManifestMismatch, message).file(MANIFEST_FILE));
        }
        if !manifest.platforms.is_empty() && !manifest.platforms.iter().any(|known| known == self.platform) {
            let message =
                format!("`platforms` leaves out {}, which is what this Pantry builds for", self.platform);
            findings.push(Finding::new(ReasonCode::ManifestInvalidFieldType, message).file(MANIFEST_FILE));
        }
        layout::check(source, &mut manifest, &mut findings);
        routine::check(source, &manifest, &mut findings);
        findings.extend(analysis::run(self.sandbox, self.root.clone(), source, &manifest, cancel)?);
        Ok(Checked { manifest: Some(manifest), findings })
    }
}

fn read_manifest(source: &Path) -> Result<Manifest, Vec<Finding>> {
    let Some(bytes) = layout::read_file(source, MANIFEST_FILE, 1 << 20) else {
        let message = format!("the source has no readable `{MANIFEST_FILE}` at its root");
        return Err(vec![Finding::new(ReasonCode::ManifestParseError, message).file(MANIFEST_FILE)]);
    };
    manifest::parse_yaml(&bytes)
}
