//! What must hold of every parser of the registry for any input at all. The fuzz targets and the test `parsers` share
//! these functions, so that none of them can rot.
//!
//! A check panics when something does not hold. Where a grammar is small, a second reading of it stands here, written
//! in another way than the parser.

use pantry::names::{Digest, Reference, RepoName, Tag};
use pantry::registry::{ByteRange, parse_byte_range, parse_content_range};
use pantry::repos::{REFERENCES_CAP, parse_manifest};
use pantry::server::read_v2_path;

/// What holds for any input, or panics.
type Check = fn(&[u8]);

/// Every check by the name of its target.
pub const ALL: &[(&str, Check)] = &[
    ("names", names),
    ("v2_paths", v2_paths),
    ("ranges", ranges),
    ("content_ranges", content_ranges),
    ("manifests", manifests),
];

/// Names, tags, digests and references: taken exactly when the grammar has them, and given back as they came.
pub fn names(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let name = RepoName::parse(text);
    assert_eq!(name.is_ok(), is_name(text), "repository name {text:?}");
    if let Ok(name) = name {
        assert_eq!(name.to_string(), text);
        assert!(text.starts_with(name.root()) && !name.root().contains('/'));
    }
    let tag = Tag::parse(text);
    assert_eq!(tag.is_ok(), is_tag(text), "tag {text:?}");
    let digest = Digest::parse(text);
    assert_eq!(digest.is_ok(), is_digest(text), "digest {text:?}");
    if let Ok(digest) = &digest {
        assert_eq!(digest.to_string(), text);
        assert!(!digest.names(text.as_bytes()), "nothing is its own digest");
    }
    match Reference::parse(text) {
        Ok(Reference::Tag(found)) => assert_eq!(Ok(found), tag.map_err(drop)),
        Ok(Reference::Digest(found)) => assert_eq!(Ok(found), digest.map_err(drop)),
        Err(_) => assert!(tag.is_err() && digest.is_err(), "reference {text:?}"),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, joined by `/`, 255 characters at most.
fn is_name(text: &str) -> bool {
    let word = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    text.len() <= 255
        && text.split('/').all(|part| {
            let separators: Vec<&str> = part.split(word).filter(|between| !between.is_empty()).collect();
            part.starts_with(word)
                && part.ends_with(word)
                && separators
                    .iter()
                    .all(|one| matches!(*one, "." | "_" | "__") || one.trim_start_matches('-').is_empty())
        })
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn is_tag(text: &str) -> bool {
    let rest = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    (1..=128).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.trim_start_matches(rest).is_empty()
}

fn is_digest(text: &str) -> bool {
    let hex = |text: &str| text.chars().all(|digit| digit.is_ascii_digit() || ('a'..='f').contains(&digit));
    let is = |prefix: &str, length: usize| {
        text.strip_prefix(prefix).is_some_and(|digits| digits.len() == length && hex(digits))
    };
    is("sha256:", 64) || is("sha512:", 128)
}

/// Paths below `/v2/`: what is found in one are parts of it, in their order, none of them empty.
pub fn v2_paths(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some((kind, parts)) = read_v2_path(text) else { return };
    assert!(kind.starts_with("/v2/"));
    let mut rest = text;
    for part in parts {
        assert!(!part.is_empty(), "an empty part in {text:?}");
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is not in {rest:?} of {text:?}"));
        rest = &rest[at + part.len()..];
    }
}

/// `Range`: the first eight bytes are the size of the content, the rest is the header.
pub fn ranges(input: &[u8]) {
    let Some((size, header)) = input.split_first_chunk::<8>() else { return };
    let Ok(header) = std::str::from_utf8(header) else { return };
    let whole = u64::from_le_bytes(*size);
    // Small sizes are where ends and starts meet.
    for size in [whole, whole % 1_000, 1, 0] {
        match parse_byte_range(header, size) {
            ByteRange::Part(part) => {
                assert!(part.start < part.end && part.end <= size, "{header:?} of {size}")
            }
            ByteRange::Parts(parts) => {
                assert!(
                    parts.len() > 1 && parts.iter().all(|part| part.start < part.end && part.end <= size)
                );
                // None overlaps another, so that all together are no more than the content.
                let mut sorted = parts.clone();
                sorted.sort_by_key(|part| part.start);
                assert!(
                    sorted.windows(2).all(|two| two[0].end <= two[1].start),
                    "{header:?} of {size}: {parts:?}"
                );
            }
            ByteRange::Whole | ByteRange::Unsatisfiable => {}
        }
    }
}

/// `Content-Range` of a chunk: never empty, and its end can be told.
pub fn content_ranges(input: &[u8]) {
    let Ok(header) = std::str::from_utf8(input) else { return };
    let Some(range) = parse_content_range(header) else { return };
    assert!(range.length > 0, "{header:?} is empty");
    let last = range.first.checked_add(range.length - 1).unwrap_or_else(|| panic!("{header:?} has no end"));
    assert_eq!(parse_content_range(&format!("{}-{last}", range.first)), Some(range));
}

/// Manifests: the first byte chooses the `Content-Type`, the rest is the document.
pub fn manifests(input: &[u8]) {
    const TYPES: [&str; 4] = [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ];
    let Some((choice, document)) = input.split_first() else { return };
    let declared = TYPES.get(usize::from(*choice) % 6).copied();
    let Ok(parsed) = parse_manifest(declared, document) else { return };
    assert!(TYPES.contains(&parsed.media_type.as_str()), "{:?} is none of the four types", parsed.media_type);
    assert!(declared.is_none_or(|declared| declared == parsed.media_type));
    let others =
        || parsed.config.iter().chain(&parsed.layers).chain(&parsed.elsewhere).chain(&parsed.children);
    assert!(others().count() <= REFERENCES_CAP);
    let text = std::str::from_utf8(document).expect("a manifest is text");
    // A number that no machine can hold may stand in a field that nobody reads.
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return };
    let written = value.to_string();
    for digest in others().chain(&parsed.subject) {
        assert!(written.contains(&digest.to_string()), "{digest} is not in the document");
    }
    // The same document means the same, however it is written.
    assert_eq!(parse_manifest(declared, written.as_bytes()).ok(), Some(parsed));
}
