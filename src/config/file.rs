//! `pantry.yaml`: read with a cap, every key looked up in the table while parsing.

use std::io::Read as _;
use std::path::Path;

use fs_err as fs;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::error::ConfigError;
use super::nearest::nearest;
use super::settings::{SETTINGS, Setting, Shape, is_section, sections, setting};
use super::values::Text;

/// No configuration is larger.
const FILE_CAP: u64 = 1 << 20;

/// A value that the file gives.
#[derive(Debug)]
pub(super) struct FileValue {
    pub(super) setting: &'static Setting,
    pub(super) text: Text,
    pub(super) line: u64,
}

/// Reads and parses the file.
pub(super) fn read(path: &Path) -> Result<Vec<FileValue>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    fs::File::open(path)
        .map_err(unreadable)?
        .take(FILE_CAP + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_CAP {
        return Err(ConfigError::TooLarge { path: path.to_owned(), cap: FILE_CAP });
    }
    let text = String::from_utf8(bytes).map_err(|_| ConfigError::Syntax {
        path: path.to_owned(),
        line: 0,
        column: 0,
        message: "the file is not UTF-8 text".to_owned(),
    })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Vec<FileValue>, ConfigError> {
    let mut found = Found::default();
    let parsed = serde_saphyr::with_deserializer_from_str(text, |yaml| {
        Document { found: &mut found }.deserialize(yaml)
    });
    if let Some((key, at)) = found.unknown.into_iter().next() {
        let nearest = nearest_key(&key);
        return Err(ConfigError::UnknownKey {
            path: path.to_owned(),
            line: at.line(),
            column: at.column(),
            key,
            nearest,
        });
    }
    parsed.map_err(|error| syntax(path, &error))?;
    Ok(found.values)
}

/// The parser's own words, without the snippet of the file that it would quote: it may hold a secret.
fn syntax(path: &Path, error: &serde_saphyr::Error) -> ConfigError {
    let at = error.location();
    let whole = error.without_snippet().to_string();
    let message = whole.lines().next().unwrap_or_default();
    ConfigError::Syntax {
        path: path.to_owned(),
        line: at.map_or(0, |at| at.line()),
        column: at.map_or(0, |at| at.column()),
        message: message.to_owned(),
    }
}

fn nearest_key(key: &str) -> Option<String> {
    let last = key.rsplit('.').next().unwrap_or(key);
    let paths = || SETTINGS.iter().map(|setting| setting.path);
    // The right word in the wrong section is likelier than a similar path.
    paths()
        .find(|path| path.rsplit('.').next() == Some(last))
        .or_else(|| match key.split_once('.') {
            Some((section, rest)) => {
                let inside = paths().filter_map(|path| path.strip_prefix(section)?.strip_prefix('.'));
                let word = nearest(rest, inside)?;
                paths()
                    .find(|path| path.strip_prefix(section).and_then(|p| p.strip_prefix('.')) == Some(word))
            }
            None => nearest(key, paths().filter(|path| !path.contains('.')).chain(sections())),
        })
        .or_else(|| nearest(key, paths()))
        .map(str::to_owned)
}

#[derive(Default)]
struct Found {
    values: Vec<FileValue>,
    unknown: Vec<(String, Location)>,
}

/// The whole file: a mapping, or nothing.
struct Document<'a> {
    found: &'a mut Found,
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(Section { name: None, found: self.found })
    }
}

/// The keys of the file (`name` is none) or of a section of it.
struct Section<'a> {
    name: Option<String>,
    found: &'a mut Found,
}

impl<'de> DeserializeSeed<'de> for Section<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Section<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "a mapping of the settings below `{name}`"),
            None => f.write_str("a mapping of settings"),
        }
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let path = match &self.name {
                Some(section) => format!("{section}.{}", key.value),
                None => key.value,
            };
            if let Some(setting) = setting(&path) {
                let text = match setting.shape {
                    Shape::Many => map.next_value::<Option<Vec<String>>>()?.map(Text::Many),
                    Shape::One | Shape::Secret => map.next_value::<Option<String>>()?.map(Text::One),
                };
                if let Some(text) = text {
                    self.found.values.push(FileValue { setting, text, line: key.referenced.line() });
                }
            } else if self.name.is_none() && is_section(&path) {
                map.next_value_seed(Section { name: Some(path), found: self.found })?;
            } else {
                self.found.unknown.push((path, key.referenced));
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Vec<FileValue>, ConfigError> {
        parse(Path::new("pantry.yaml"), text)
    }

    #[test]
    fn nothing_is_a_configuration() {
        for text in ["", "\n", "# only a comment\n", "---\n", "store:\n", "listen: null\n", "{}\n"] {
            assert_eq!(parse_text(text).unwrap().len(), 0, "{text:?}");
        }
    }

    #[test]
    fn values_come_as_they_are_written() {
        let digits = "0".repeat(31) + "1.10";
        let text = format!(
            "listen: 127.0.0.1:1\nstore:\n  concurrent: 3\ncallback:\n  signing_key: {digits}\nallowed_hosts: [a, b]\n"
        );
        let found = parse_text(&text).unwrap();
        let shown: Vec<_> = found.iter().map(|v| (v.setting.path, v.text.clone(), v.line)).collect();
        assert_eq!(
            shown,
            [
                ("listen", Text::One("127.0.0.1:1".into()), 1),
                ("store.concurrent", Text::One("3".into()), 3),
                ("callback.signing_key", Text::One(digits), 5),
                ("allowed_hosts", Text::Many(vec!["a".into(), "b".into()]), 6),
            ]
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
        for (text, place, key, near) in [
            ("listen: 127.0.0.1:1\nlistne: x\n", (2, 1), "listne", Some("listen")),
            ("store:\n  index_ulr: x\n", (2, 3), "store.index_ulr", Some("store.index_url")),
            ("index_url: x\n", (1, 1), "index_url", Some("store.index_url")),
            ("runer:\n  kind: embedded\n", (1, 1), "runer", Some("runner")),
            ("metrics: {a: [1, {b: c}]}\n", (1, 1), "metrics", None),
        ] {
            match parse_text(text).unwrap_err() {
                ConfigError::UnknownKey { line, column, key: found, nearest, .. } => {
                    assert_eq!(
                        (line, column, found.as_str(), nearest.as_deref()),
                        (place.0, place.1, key, near)
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_wrong_shape_is_named_with_its_line() {
        for text in [
            "store: 3\n",
            "listen: [a]\n",
            "allowed_hosts: {a: b}\n",
            "- a\n",
            "listen: a\nlisten: b\n",
            "listen: [\n",
            "x",
        ] {
            let error = parse_text(text).unwrap_err();
            assert!(matches!(error, ConfigError::Syntax { line: 1.., .. }), "{text:?} → {error:?}");
        }
    }

    #[test]
    fn a_message_never_quotes_the_file() {
        for text in
            ["callback:\n  signing_key: [hunter2hunter2]\n", "callback:\n  signing_key: \"hunter2hunter2\n"]
        {
            let error = parse_text(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn deep_nesting_and_aliases_do_not_hurt() {
        let deep = format!("metrics: {}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse_text(&deep).is_err());
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            use std::fmt::Write as _;
            let below = format!("*a{}", level - 1);
            writeln!(bomb, "a{level}: &a{level} [{}]", vec![below; 9].join(", ")).unwrap();
        }
        assert!(parse_text(&bomb).is_err());
    }
}
