//! What must hold of every parser of the registry, and of all that meets hostile bytes around the jail, for any input
//! at all. The fuzz targets and the test `parsers` share these functions, so that none of them can rot.
//!
//! A check panics when something does not hold. Where a grammar is small, a second reading of it stands here, written
//! in another way than the parser.

#[path = "jail.rs"]
mod jail;

pub use jail::{archives, outputs, policies};

use pantry::access::{AskedScope, sign_and_read};
use pantry::names::{Digest, Reference, RepoName, Tag};
use pantry::registry::{ByteRange, Conditions, conditions_hold, parse_byte_range, parse_content_range};
use pantry::repos::{REFERENCES_CAP, TagPattern, parse_manifest};
use pantry::server::{read_authorization, read_form, read_v2_path};

/// What holds for any input, or panics.
type Check = fn(&[u8]);

/// Every check by the name of its target.
pub const ALL: &[(&str, Check)] = &[
    ("names", names),
    ("v2_paths", v2_paths),
    ("ranges", ranges),
    ("content_ranges", content_ranges),
    ("manifests", manifests),
    ("token_requests", token_requests),
    ("authorizations", authorizations),
    ("conditions", conditions),
    ("globs", globs),
    ("policies", policies),
    ("outputs", outputs),
    ("archives", archives),
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
                assert!(part.start < part.end && part.end <= size, "{header:?} of {size}");
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
        if let Some(expected) = plain_ranges(header, size) {
            let found = match parse_byte_range(header, size) {
                ByteRange::Part(part) => vec![part],
                ByteRange::Parts(parts) => parts,
                ByteRange::Unsatisfiable => Vec::new(),
                ByteRange::Whole => panic!("{header:?} of {size} was not understood"),
            };
            assert_eq!(found, expected, "{header:?} of {size}");
        }
    }
}

/// A second reading of sets in their plainest form: `bytes=a-b,c-d`, in rising order, at most 32 of them.
fn plain_ranges(header: &str, size: u64) -> Option<Vec<std::ops::Range<u64>>> {
    let plain = |text: &str| -> Option<u64> {
        (text.len() < 19 && text.bytes().all(|digit| digit.is_ascii_digit())).then(|| text.parse().ok())?
    };
    let set: Vec<&str> = header.strip_prefix("bytes=")?.split(',').collect();
    let mut found = Vec::new();
    let mut next = 0;
    for one in &set {
        let (first, last) = one.split_once('-')?;
        let (first, last) = (plain(first)?, plain(last)?);
        if first < next || last < first {
            return None;
        }
        next = last + 1;
        found.push(first..next.min(size));
    }
    found.retain(|part| part.start < size);
    (set.len() <= 32).then_some(found)
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

/// The form of a request for a token, and the scopes in it.
pub fn token_requests(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some(pairs) = read_form(text) else {
        let many = text.split('&').filter(|part| !part.is_empty()).count() > 256;
        assert!(many, "{text:?} is a form");
        return;
    };
    let written: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    assert_eq!(read_form(&written.join("&")), Some(pairs.clone()), "{text:?}");
    let texts = || pairs.iter().filter(|(name, _)| name == "scope").map(|(_, value)| value.as_str());
    let scopes = AskedScope::parse_all(texts());
    assert!(scopes.len() <= 100);
    for scope in &scopes {
        assert!(!scope.name.is_empty() && !scope.kind.contains([':', '(']) && !scope.actions.contains(':'));
        assert!(scope.name.ends_with(scope.repository()));
        // Nothing is a right but what was asked for.
        for word in scope.rights().to_string().split(',').filter(|word| !word.is_empty()) {
            assert!(scope.actions.split(',').any(|asked| asked == "*" || asked == word), "{scope:?}");
        }
        let again = format!("{}:{}:{}", scope.kind, scope.name, scope.actions);
        let again = AskedScope::parse_all([again.as_str()]);
        assert!(again.first() == Some(scope), "{scope:?} is read back as {again:?}");
    }
}

fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |written, byte| written + &format!("%{byte:02X}"))
}

/// `Authorization`, and tokens of the token service: taken only when we signed exactly this, whatever it says.
pub fn authorizations(input: &[u8]) {
    let audience = "pantry";
    if let Some(shown) = read_authorization(input) {
        assert!(shown.len() <= 2);
        if let [token] = shown.as_slice() {
            assert!(std::str::from_utf8(input).is_ok_and(|text| text.contains(token.as_str())));
        }
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    let token = text.strip_prefix("Bearer ").unwrap_or(text);
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    let (signature, read) = sign_and_read(signed, audience);
    let whole = format!("{signed}.{signature}");
    let subject = read(&whole);
    if token != whole {
        assert_eq!(read(token), None, "{token:?} was not signed by us");
    }
    // What counts for one audience counts for no other.
    if subject.is_some() {
        let (_, read) = sign_and_read(signed, "pantry/refresh");
        assert_eq!(read(&whole), None);
    }
}

/// `If-Match` and `If-None-Match`: the first byte says what is there, the rest is the list.
pub fn conditions(input: &[u8]) {
    let Some((choice, list)) = input.split_first() else { return };
    let Ok(list) = std::str::from_utf8(list) else { return };
    let here = Digest::of(b"here");
    let current = (choice % 2 == 0).then_some(&here);
    // Lists of seeds name it by a word, so that it can be met.
    let list = list.replace("HERE", &format!("\"{here}\""));
    let with = |if_match: Option<&str>, if_none_match: Option<&str>| {
        let own = |list: Option<&str>| list.map(str::to_owned);
        conditions_hold(&Conditions { if_match: own(if_match), if_none_match: own(if_none_match) }, current)
    };
    let (matches, differs) = (with(Some(&list), None), with(None, Some(&list)));
    if current.is_none() {
        assert!(!matches && differs, "nothing is there: {list:?}");
        return;
    }
    let tag = format!("\"{here}\"");
    let members: Vec<&str> = list.split(',').map(str::trim).collect();
    assert_eq!(matches, members.iter().any(|member| *member == "*" || *member == tag), "{list:?}");
    // The weak comparison finds whatever the strong one finds.
    assert!(!matches || !differs, "{list:?}");
    assert_eq!(with(Some(&list), Some(&list)), matches && differs);
}

/// Patterns of tags: the two parts before and after the first blank, compared as the definition says.
pub fn globs(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some((pattern, tag)) = text.split_once(' ') else { return };
    let (Ok(parsed), Ok(tag)) = (TagPattern::parse(pattern), Tag::parse(tag)) else { return };
    assert_eq!(parsed.as_str(), pattern);
    // Which beginnings of the tag the pattern describes so far.
    let letters = tag.as_str().as_bytes();
    let mut reached = vec![false; letters.len() + 1];
    reached[0] = true;
    for wanted in pattern.bytes() {
        let before = reached.clone();
        for at in 0..=letters.len() {
            reached[at] = match wanted {
                b'*' => before[at] || (at > 0 && reached[at - 1]),
                _ => at > 0 && before[at - 1] && (wanted == b'?' || wanted == letters[at - 1]),
            };
        }
    }
    assert_eq!(parsed.matches(&tag), reached[letters.len()], "{pattern} {tag:?}");
}
