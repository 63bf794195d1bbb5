//! What the values of a manifest may be.

use pep508_rs::{Requirement, VerbatimUrl, VersionOrUrl};

/// Shelves of the catalogue.
pub(super) const CATEGORIES: &[&str] = &[
    "automation",
    "calendar",
    "communication",
    "entertainment",
    "finance",
    "fitness",
    "food",
    "games",
    "health",
    "home",
    "information",
    "media",
    "music",
    "news",
    "productivity",
    "shopping",
    "smart-home",
    "sports",
    "travel",
    "utilities",
    "weather",
];
/// Types of a parameter.
pub(super) const PARAMETER_TYPES: &[&str] =
    &["string", "int", "float", "bool", "enum", "date", "time", "datetime"];
/// Where a secret belongs.
pub(super) const SECRET_SCOPES: &[&str] = &["integration", "user", "node"];
/// Types of a secret.
pub(super) const SECRET_TYPES: &[&str] = &["string", "int", "bool", "user"];
/// Platforms that a package can name.
pub(super) const PLATFORMS: &[&str] = &["linux/amd64", "linux/arm64"];
/// Grants that a package can ask for. *Source*: `docs/security.md`, named grants.
pub(super) const CAPABILITIES: &[&str] = &[
    "network-client",
    "network-server",
    "file-control",
    "process-control",
    "package-management",
    "NET_ADMIN",
    "NET_RAW",
    "NET_BIND_SERVICE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "SETUID",
    "SETGID",
    "SETPCAP",
    "KILL",
    "SYS_NICE",
    "SYS_CHROOT",
    "AUDIT_WRITE",
    "SETFCAP",
];

const REQUIREMENT_CAP: usize = 512;

/// The requirement of a `{name, version}` entry: a bare version is exact, none or `*` is any.
pub(super) fn requirement_of(name: &str, version: Option<&str>) -> String {
    match version.map(str::trim) {
        None | Some("" | "*") => name.to_owned(),
        Some(version) if version.starts_with(|c: char| c.is_ascii_digit()) => format!("{name}=={version}"),
        Some(version) => format!("{name}{version}"),
    }
}

/// Checks a PEP 508 requirement: one line, no direct URL, no option.
pub(super) fn check_requirement(text: &str) -> Result<(), String> {
    if text.len() > REQUIREMENT_CAP {
        return Err(format!("a requirement may have {REQUIREMENT_CAP} bytes at most"));
    }
    if text.chars().any(char::is_control) {
        return Err("a requirement is one line without control characters".to_owned());
    }
    // The parser of markers goes down one call a parenthesis.
    if text.bytes().filter(|&byte| byte == b'(').count() > 16 {
        return Err("a requirement may have 16 parentheses at most".to_owned());
    }
    let requirement: Requirement<VerbatimUrl> = text.parse().map_err(|error: pep508_rs::Pep508Error| {
        let sentence = error.to_string();
        format!("not a PEP 508 requirement: {}", sentence.lines().next().unwrap_or_default())
    })?;
    if matches!(requirement.version_or_url, Some(VersionOrUrl::Url(_))) {
        return Err("a direct URL is not allowed: name the package and its versions".to_owned());
    }
    Ok(())
}

/// Whether a text has the shape of an SPDX licence expression.
pub(super) fn is_spdx_shaped(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || " .-+():".contains(c);
    !text.is_empty()
        && text.len() <= 200
        && text.chars().all(allowed)
        && text.chars().any(|c| c.is_ascii_alphanumeric())
}

/// Why a path below the source's root is refused.
pub(super) fn check_path(text: &str) -> Result<(), &'static str> {
    if text.len() > 512 || text.chars().any(|c| c.is_control() || c == '\\') {
        return Err("a path has 512 bytes at most and neither control characters nor backslashes");
    }
    if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("a path is relative to the source's root, without `.`, `..` or empty parts");
    }
    Ok(())
}

/// The known word that is closest to `word`, if one is close.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word: String = word.chars().take(64).collect();
    known
        .iter()
        .map(|candidate| (distance(&word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_words_are_close_ones() {
        assert_eq!(nearest("versoin", &["version", "name"]), Some("version"));
        assert_eq!(nearest("zzz", &["version", "name"]), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn licences_have_a_shape() {
        assert!(is_spdx_shaped("MIT OR Apache-2.0"));
        assert!(is_spdx_shaped("(GPL-2.0-only WITH Classpath-exception-2.0)"));
        assert!(!is_spdx_shaped("see file\n"));
        assert!(!is_spdx_shaped("()"));
    }
}
