//! The names of entries: parsed once, harmless from there on.

use super::error::Refusal;

/// The longest path that is taken, in bytes.
const PATH_CAP: usize = 4096;
/// The longest name between two slashes, in bytes.
const NAME_CAP: usize = 255;

/// The path of an entry below the root: relative, without `.`, `..`, empty parts or control characters; UTF-8.
///
/// The root itself, which many archives list as `./`, is the empty path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryPath(String);

impl EntryPath {
    /// Parses a name as it stands in an archive.
    pub(crate) fn parse(name: &[u8], max_depth: u32) -> Result<Self, Refusal> {
        let refuse = |why: &str| Refusal::entry(name, why);
        let text = std::str::from_utf8(name).map_err(|_| refuse("has a name that is not UTF-8"))?;
        if text.is_empty() {
            return Err(refuse("has no name"));
        }
        if text.len() > PATH_CAP {
            return Err(refuse("has a name of more than 4096 bytes"));
        }
        if text.starts_with('/') {
            return Err(refuse("has an absolute name"));
        }
        if text.chars().any(char::is_control) {
            return Err(refuse("has a control character in its name"));
        }
        let mut path = String::with_capacity(text.len());
        let mut depth = 0;
        for part in text.split('/') {
            match part {
                "" | "." => continue,
                ".." => return Err(refuse("has `..` in its name")),
                _ if part.len() > NAME_CAP => {
                    return Err(refuse("has a part of more than 255 bytes in its name"));
                }
                _ => {}
            }
            depth += 1;
            if depth > max_depth {
                return Err(refuse(&format!("lies more than {max_depth} directories deep")));
            }
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
        }
        Ok(Self(path))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The name after the last slash.
    pub(crate) fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The directory it lies in; the root for what lies at the top.
    pub(crate) fn parent(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    /// Every directory above it, top first, without the root.
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn harmless_names_are_brought_into_one_form() {
        for (given, path) in
            [("a", "a"), ("./a/b/", "a/b"), ("a//b", "a/b"), ("./", ""), ("a/./b", "a/b"), ("…", "…")]
        {
            assert_eq!(EntryPath::parse(given.as_bytes(), 8).unwrap().as_str(), path);
        }
        let path = EntryPath::parse(b"a/b/c", 8).unwrap();
        assert_eq!((path.name(), path.parent()), ("c", "a/b"));
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["a", "a/b"]);
    }

    #[test]
    fn names_with_tricks_are_refused() {
        let long = vec![b'a'; 256];
        let longer = [b"a/".repeat(2048), b"a".to_vec()].concat();
        let tricks: [&[u8]; 11] =
            [b"", b"/a", b"..", b"../a", b"a/../b", b"a/..", b"a\nb", b"a\0b", b"\xff", &long, &longer];
        for name in tricks {
            assert!(EntryPath::parse(name, 5000).is_err(), "{}", name.escape_ascii());
        }
        assert!(EntryPath::parse(b"a/b/c/d", 3).is_err());
        assert!(EntryPath::parse(b"a/b/c", 3).is_ok());
    }
}
