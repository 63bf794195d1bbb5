//! Judging a root filesystem: loaded from layers or a folder, then held against every rule.

mod load;
mod rules;

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::bundle::Bundle;
use super::error::RootfsError;
use super::spec::BundleSpec;
use super::tree::Tree;

/// What kind of rule is broken; the words are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FindingCode {
    /// A chain of links ends nowhere inside the root.
    LinkOutside,
    /// A chain of links never ends.
    LinkLoop,
    /// An interpreter named by an ELF file isn't in the root.
    InterpreterMissing,
    /// A library needed by an ELF file isn't found in the root.
    LibraryMissing,
    /// A run path of an ELF file isn't a folder of the root.
    RunPathOutside,
    /// The first line of an executable file names an interpreter that isn't in the root.
    ShebangMissing,
    /// A file starts as ELF and can't be read as such.
    ElfUnreadable,
    /// An ELF file is for another machine.
    MachineMismatch,
    /// A set-user-id or set-group-id bit.
    Setuid,
    /// A file capability.
    Capabilities,
    /// A device, socket, pipe, hard link or deletion mark.
    SpecialFile,
    /// An owner other than 0:0.
    Owner,
    /// Permission bits that let others write, or keep them from reading.
    Mode,
    /// A time other than 0 in a layer.
    Time,
    /// A name of the deny-list.
    DeniedProgram,
    /// A program that isn't on the list of programs.
    UndeclaredProgram,
    /// Something that has to be there isn't.
    RequiredMissing,
    /// A mount point is missing, isn't a directory, isn't empty, or has other permissions.
    MountPoint,
    /// A file mentions a path that isn't in the root and isn't on the list of exceptions.
    DanglingPath,
    /// A path that isn't plain UTF-8, or stands in two layers.
    BadPath,
    /// A layer is larger than its budget.
    Budget,
    /// Bytes don't have their digest.
    Digest,
    /// The layout's documents are missing or inconsistent.
    Layout,
}

impl FindingCode {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LinkOutside => "link_outside",
            Self::LinkLoop => "link_loop",
            Self::InterpreterMissing => "interpreter_missing",
            Self::LibraryMissing => "library_missing",
            Self::RunPathOutside => "run_path_outside",
            Self::ShebangMissing => "shebang_missing",
            Self::ElfUnreadable => "elf_unreadable",
            Self::MachineMismatch => "machine_mismatch",
            Self::Setuid => "setuid",
            Self::Capabilities => "capabilities",
            Self::SpecialFile => "special_file",
            Self::Owner => "owner",
            Self::Mode => "mode",
            Self::Time => "time",
            Self::DeniedProgram => "denied_program",
            Self::UndeclaredProgram => "undeclared_program",
            Self::RequiredMissing => "required_missing",
            Self::MountPoint => "mount_point",
            Self::DanglingPath => "dangling_path",
            Self::BadPath => "bad_path",
            Self::Budget => "budget",
            Self::Digest => "digest",
            Self::Layout => "layout",
        }
    }
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Which rule.
    pub code: FindingCode,
    /// Where: an absolute path in the root, or a digest.
    pub path: String,
    /// What exactly.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}: {}", self.code.as_str(), self.path, self.detail)
    }
}

/// The outcome of a check.
#[derive(Debug, Clone, Serialize)]
pub struct CheckReport {
    /// Every broken rule, sorted.
    pub findings: Vec<Finding>,
    /// How many entries were looked at.
    pub entries: u64,
    /// The length of all files.
    pub unpacked_bytes: u64,
}

impl CheckReport {
    /// Whether no rule is broken.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.findings.is_empty()
    }

    fn of(mut findings: Vec<Finding>, tree: &Tree) -> Self {
        findings.sort();
        findings.dedup();
        Self { findings, entries: tree.nodes.len() as u64, unpacked_bytes: rules::file_bytes(tree) }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(out, "{finding}")?;
        }
        let verdict = if self.passed() { "sound" } else { "not sound" };
        write!(
            out,
            "{verdict}: {} findings, {} entries, {} bytes",
            self.findings.len(),
            self.entries,
            self.unpacked_bytes
        )
    }
}

/// Checks the bundle in a layout directory.
///
/// # Errors
/// When something can't be read at all; a layout that is wrong is a finding.
pub fn check_layout(path: &Path, spec: &BundleSpec) -> Result<CheckReport, RootfsError> {
    let finding = |code, detail: String| Finding { code, path: path.display().to_string(), detail };
    match Bundle::open_layout(path) {
        Ok(bundle) => check_bundle(&bundle, spec),
        Err(error @ RootfsError::Layout { .. }) => {
            Ok(CheckReport::of(vec![finding(FindingCode::Layout, error.to_string())], &Tree::default()))
        }
        Err(error @ RootfsError::Digest { .. }) => {
            Ok(CheckReport::of(vec![finding(FindingCode::Digest, error.to_string())], &Tree::default()))
        }
        Err(error) => Err(error),
    }
}

/// Checks an opened bundle, every byte of it.
///
/// # Errors
/// When something can't be read at all.
pub fn check_bundle(bundle: &Bundle, spec: &BundleSpec) -> Result<CheckReport, RootfsError> {
    let mut findings = Vec::new();
    let tree = load::from_bundle(bundle, spec, &mut findings)?;
    let architecture = if bundle.platform() == "linux/arm64" { "aarch64" } else { "x86_64" };
    rules::judge(&tree, spec, rules::Origin::Layers, architecture, &mut findings);
    Ok(CheckReport::of(findings, &tree))
}

/// Checks an unpacked root filesystem of this machine's architecture.
///
/// Times aren't looked at, and owners may be those of whoever unpacked it.
///
/// # Errors
/// When something can't be read at all.
pub fn check_directory(path: &Path, spec: &BundleSpec) -> Result<CheckReport, RootfsError> {
    let mut findings = Vec::new();
    let tree = load::from_directory(path, &mut findings)?;
    rules::judge(&tree, spec, rules::Origin::Directory, std::env::consts::ARCH, &mut findings);
    Ok(CheckReport::of(findings, &tree))
}

/// Checks a tree that is about to become layers.
pub(crate) fn check_planned(tree: &Tree, spec: &BundleSpec) -> CheckReport {
    let mut findings = Vec::new();
    rules::judge(tree, spec, rules::Origin::Layers, std::env::consts::ARCH, &mut findings);
    CheckReport::of(findings, tree)
}
