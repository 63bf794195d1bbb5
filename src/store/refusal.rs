//! What a caller is told when a request is refused.

use crate::blobs::BlobError;
use crate::sandbox::SandboxError;
use crate::state::StateError;
use crate::trees::TreeError;

use super::codes::ReasonCode;
use super::finding::{Finding, VerdictView};

/// A refusal: stable code, sentence, hint, and its kind without any HTTP in it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct StoreRefusal {
    /// Which kind it is.
    pub kind: RefusalKind,
    /// The stable code.
    pub code: String,
    /// What is wrong, as a sentence.
    pub message: String,
    /// What the caller can do about it.
    pub hint: Option<String>,
    /// What the checks found, when that is the reason.
    pub findings: Vec<Finding>,
}

/// What kind of refusal it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalKind {
    /// The content is not acceptable.
    Invalid,
    /// The caller may not do this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// It clashes with what is there.
    Conflict,
    /// It is larger than allowed.
    TooLarge,
    /// The signature or the identity does not hold.
    Unauthorized,
    /// It may work later.
    Busy,
    /// This machine can't do it as it is.
    Unavailable,
    /// Pantry itself failed.
    Internal,
}

impl StoreRefusal {
    pub(crate) fn new(kind: RefusalKind, code: &str, message: impl Into<String>) -> Self {
        Self { kind, code: code.to_owned(), message: message.into(), hint: None, findings: Vec::new() }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A refusal because of findings: the form that a rejected submission shows, too.
    pub(crate) fn found(findings: Vec<Finding>, base: &str) -> Self {
        let verdict = VerdictView::of(findings, base);
        let code = verdict.reason_codes.first().cloned().unwrap_or_else(|| "rejected".to_owned());
        let kind = match ReasonCode::parse(&code) {
            Some(ReasonCode::NameTaken) => RefusalKind::Forbidden,
            Some(ReasonCode::VersionExists) => RefusalKind::Conflict,
            Some(ReasonCode::SourceTooLarge) => RefusalKind::TooLarge,
            _ => RefusalKind::Invalid,
        };
        let hint = verdict.findings.first().map(|finding| format!("see {}", finding.doc_url));
        let mut findings = verdict.findings;
        findings.extend(verdict.warnings);
        Self { kind, code, message: verdict.message, hint, findings }
    }

    pub(crate) fn internal(code: &str, source: &dyn std::fmt::Display) -> Self {
        tracing::error!(code, error = %source, "the store failed");
        Self::new(RefusalKind::Internal, code, "Pantry itself failed; its log says why")
    }

    /// The form of a rejection, as the API answers it with `422`.
    #[must_use]
    pub fn verdict(&self) -> Option<VerdictView> {
        let first = self.findings.first()?;
        let base = first.doc_url.split("/docs/rejections#").next().unwrap_or_default().to_owned();
        Some(VerdictView::of(self.findings.clone(), &base))
    }
}

impl From<StateError> for StoreRefusal {
    fn from(error: StateError) -> Self {
        Self::internal(error.code(), &error)
    }
}

impl From<BlobError> for StoreRefusal {
    fn from(error: BlobError) -> Self {
        Self::internal(error.code(), &error)
    }
}

impl From<SandboxError> for StoreRefusal {
    fn from(error: SandboxError) -> Self {
        let mut refusal = Self::internal(error.code(), &error);
        refusal.hint = error.hint();
        refusal
    }
}

impl From<std::io::Error> for StoreRefusal {
    fn from(error: std::io::Error) -> Self {
        Self::internal("io_failed", &error)
    }
}

/// The finding for an archive that can't be taken; none when the failure is ours.
pub(crate) fn archive_finding(error: &TreeError) -> Option<Finding> {
    let code = match error.code() {
        "source_too_large" => ReasonCode::SourceTooLarge,
        "archive_not_readable" | "archive_entry_refused" | "layer_whiteout_not_supported" => {
            ReasonCode::SourceFetchFailed
        }
        _ => return None,
    };
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    Some(Finding::new(code, format!("{error}{hint}")))
}
