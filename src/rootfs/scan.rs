//! Absolute paths that the bytes of a file mention.

use std::collections::BTreeSet;
use std::io::BufRead as _;

/// The folders whose mention is looked at: what is opened at run time mostly lies there.
const FOLDERS: [&[u8]; 3] = [b"/usr/lib/", b"/usr/share/", b"/nix/store/"];

/// Each path below [`FOLDERS`] that stands in `content`, sorted, once.
///
/// A path that goes on with a placeholder (`%s`, `{name}`, `*` …) is cut back to its last whole folder.
pub(crate) fn mentions(content: &[u8]) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut rest = content;
    // `skip_until` is the fast search for one byte that the standard library offers.
    while let Ok(skipped) = rest.skip_until(b'/') {
        if skipped == 0 || rest.is_empty() {
            break;
        }
        let start = content.len() - rest.len() - 1;
        if !FOLDERS.iter().any(|folder| content[start..].starts_with(folder)) {
            continue;
        }
        if start > 0 && in_name(content[start - 1]) {
            continue;
        }
        let length = content[start..].iter().take_while(|&&byte| in_name(byte) || byte == b'/').count();
        let path = &content[start..start + length];
        let next = content.get(start + length).copied().unwrap_or(0);
        if let Some(path) = tidy(path, b"%{$*<([?\\".contains(&next)) {
            found.insert(path);
        }
        rest = &content[start + length..];
    }
    found.into_iter().collect()
}

fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._+@~-".contains(&byte)
}

fn tidy(path: &[u8], goes_on: bool) -> Option<String> {
    let mut path = std::str::from_utf8(path).ok()?;
    if goes_on && !path.ends_with('/') {
        path = &path[..path.rfind('/')?];
    }
    let path = path.trim_end_matches(['/', '.', '-']);
    (!path.is_empty()).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_and_cut_to_what_is_sure() {
        let text = b"\0/usr/lib/locale\0x=/usr/share/zoneinfo/UTC. /usr/lib/python%d.%d /usr/share/{a}/b /opt/usr/lib/no \
                     /nix/store/abc-x/bin/y:/usr/lib//a/ /usr/libexec/x";
        assert_eq!(
            mentions(text),
            [
                "/nix/store/abc-x/bin/y",
                "/usr/lib",
                "/usr/lib//a",
                "/usr/lib/locale",
                "/usr/share",
                "/usr/share/zoneinfo/UTC"
            ]
        );
        assert!(mentions(b"/").is_empty() && mentions(b"").is_empty());
        assert_eq!(mentions(b"/usr/lib/"), ["/usr/lib"]);
    }
}
