//! Findings, and the form in which a refusal is told.

use serde::{Deserialize, Serialize};

use super::codes::{ReasonCode, Severity};

/// Most findings that one submission keeps; what comes after is counted in the last one.
const FINDINGS_CAP: usize = 500;
/// Longest text kept in a field of a finding, in characters.
const TEXT_CAP: usize = 600;

/// One thing that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Finding {
    /// Which rule.
    pub reason_code: String,
    /// `error` (rejects) or `warning`.
    pub severity: String,
    /// Where the rule is explained.
    pub doc_url: String,
    /// The file, below the source's root.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// The line, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u64>,
    /// The line's text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub snippet: Option<String>,
    /// The call or import, such as `os.system`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub primitive: Option<String>,
    /// The value that was refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<String>,
    /// What is wrong, as a sentence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
}

impl Finding {
    /// A finding of this code with its usual severity.
    #[must_use]
    pub fn new(code: ReasonCode, message: impl AsRef<str>) -> Self {
        Self {
            reason_code: code.as_str().to_owned(),
            severity: code.severity().as_str().to_owned(),
            doc_url: format!("/docs/rejections#{}", code.as_str()),
            file: None,
            line: None,
            snippet: None,
            primitive: None,
            value: None,
            message: Some(printable(message.as_ref(), TEXT_CAP)),
        }
    }

    pub(crate) fn warning(mut self) -> Self {
        Severity::Warning.as_str().clone_into(&mut self.severity);
        self
    }

    pub(crate) fn file(mut self, file: impl AsRef<str>) -> Self {
        self.file = Some(printable(file.as_ref(), TEXT_CAP));
        self
    }

    pub(crate) fn line(mut self, line: u64) -> Self {
        self.line = (line > 0).then_some(line);
        self
    }

    pub(crate) fn value(mut self, value: impl AsRef<str>) -> Self {
        self.value = Some(printable(value.as_ref(), TEXT_CAP));
        self
    }

    pub(crate) fn snippet(mut self, snippet: impl AsRef<str>) -> Self {
        self.snippet = Some(printable(snippet.as_ref(), 200));
        self
    }

    pub(crate) fn primitive(mut self, primitive: impl AsRef<str>) -> Self {
        self.primitive = Some(printable(primitive.as_ref(), 100));
        self
    }

    /// Whether this finding rejects.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error.as_str()
    }
}

/// The text with control characters escaped (new lines stay), cut to `cap` characters.
pub(crate) fn printable(text: &str, cap: usize) -> String {
    let mut out = String::new();
    for (at, character) in text.chars().enumerate() {
        if at == cap {
            out.push('…');
            break;
        }
        if character == '\n' || !(character.is_control() || is_reordering(character)) {
            out.push(character);
        } else {
            out.extend(character.escape_unicode());
        }
    }
    out
}

/// Characters that make a text look like another one. *Source*: Unicode UAX #9, explicit formatting characters.
fn is_reordering(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The last `cap` characters of a text, printable.
pub(crate) fn tail(text: &str, cap: usize) -> String {
    let text = text.trim();
    let skip = text.chars().count().saturating_sub(cap);
    printable(&text.chars().skip(skip).collect::<String>(), cap)
}

/// What the checks, or the tests, said in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VerdictView {
    /// `rejected` or `passed`.
    pub result: String,
    /// The reasons in a sentence.
    pub message: String,
    /// Codes of the errors, each once, in a stable order.
    pub reason_codes: Vec<String>,
    /// The errors.
    pub findings: Vec<Finding>,
    /// What doesn't reject.
    pub warnings: Vec<Finding>,
}

impl VerdictView {
    /// Sorts findings into errors and warnings; any error rejects. Links point below `base`.
    #[must_use]
    pub fn of(findings: Vec<Finding>, base: &str) -> Self {
        let base = base.trim_end_matches('/');
        let total = findings.len();
        let (mut errors, mut warnings): (Vec<_>, Vec<_>) = findings
            .into_iter()
            .map(|mut finding| {
                finding.doc_url = format!("{base}/docs/rejections#{}", finding.reason_code);
                finding
            })
            .partition(Finding::is_error);
        errors.truncate(FINDINGS_CAP);
        warnings.truncate(FINDINGS_CAP.saturating_sub(errors.len()));
        let left_out = total - errors.len() - warnings.len();
        let reason_codes: Vec<String> = ReasonCode::ALL
            .iter()
            .map(|code| code.as_str())
            .filter(|code| errors.iter().any(|finding| finding.reason_code == *code))
            .map(str::to_owned)
            .collect();
        let mut message = match errors.as_slice() {
            [] if warnings.is_empty() => "no finding".to_owned(),
            [] => format!("{} warning(s), no error", warnings.len()),
            [only] => only.message.clone().unwrap_or_else(|| only.reason_code.clone()),
            several => format!("{} errors: {}", several.len(), reason_codes.join(", ")),
        };
        if left_out > 0 {
            message = format!("{message}; {left_out} more findings left out");
        }
        let result = if errors.is_empty() { "passed" } else { "rejected" };
        Self { result: result.to_owned(), message, reason_codes, findings: errors, warnings }
    }

    /// Whether there is an error among the findings.
    #[must_use]
    pub fn rejects(&self) -> bool {
        !self.findings.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_lists_each_code_once_in_the_order_of_the_table() {
        let verdict = VerdictView::of(
            vec![
                Finding::new(ReasonCode::TestsFailed, "b"),
                Finding::new(ReasonCode::RepoMissingReadme, "w"),
                Finding::new(ReasonCode::ManifestBadSemver, "a"),
                Finding::new(ReasonCode::TestsFailed, "c"),
            ],
            "https://pantry.example/",
        );
        assert_eq!(verdict.reason_codes, ["manifest_bad_semver", "tests_failed"]);
        assert_eq!((verdict.findings.len(), verdict.warnings.len()), (3, 1));
        assert_eq!(verdict.findings[0].doc_url, "https://pantry.example/docs/rejections#tests_failed");
        assert!(verdict.rejects());
        assert!(!VerdictView::of(vec![Finding::new(ReasonCode::RepoMissingReadme, "w")], "").rejects());
    }

    #[test]
    fn texts_from_outside_can_neither_steer_a_terminal_nor_flood_it() {
        assert_eq!(printable("a\x1b[31mb\u{202e}c", 100), "a\\u{1b}[31mb\\u{202e}c");
        assert_eq!(printable("aaaa", 2), "aa…");
        assert_eq!(tail("one two three", 5), "three");
    }
}
