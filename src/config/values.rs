//! Values as text with where they came from, and how they become typed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::ConfigError;
use super::settings::{SETTINGS, Setting, Shape};

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    One(String),
    Many(Vec<String>),
}

/// A value with its source.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) text: Text,
    /// `flag`, `environment`, `credential`, `file` or `default`.
    pub(super) source: &'static str,
    /// What messages name: the flag, the variable, or the file with its line.
    pub(super) origin: String,
}

/// The values of all settings that have one.
#[derive(Debug, Default)]
pub(super) struct Values(BTreeMap<&'static str, Given>);

impl Values {
    /// Takes the value unless a stronger source gave one already.
    pub(super) fn offer(&mut self, setting: &'static Setting, given: Given) {
        self.0.entry(setting.path).or_insert(given);
    }

    /// The one text of a setting.
    pub(super) fn text(&self, path: &'static str) -> Option<&str> {
        match &self.0.get(path)?.text {
            Text::One(text) => Some(text),
            Text::Many(_) => None,
        }
    }

    pub(super) fn source(&self, path: &'static str) -> &'static str {
        self.0.get(path).map_or("default", |given| given.source)
    }

    /// The texts of a setting that takes several.
    pub(super) fn many(&self, path: &'static str) -> Vec<String> {
        match self.0.get(path).map(|given| &given.text) {
            Some(Text::Many(texts)) => texts.clone(),
            Some(Text::One(text)) => {
                text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
            }
            None => Vec::new(),
        }
    }

    /// That a value isn't what the setting takes.
    pub(super) fn refuse(&self, path: &'static str, expected: impl Into<String>) -> ConfigError {
        let given = self.0.get(path);
        let secret = SETTINGS.iter().any(|setting| setting.path == path && setting.shape == Shape::Secret);
        ConfigError::Value {
            key: path,
            origin: self.origin(path),
            given: given.filter(|_| !secret).map(|given| show(&given.text)),
            expected: expected.into(),
        }
    }

    pub(super) fn origin(&self, path: &'static str) -> String {
        self.0.get(path).map_or_else(|| "default".to_owned(), |given| given.origin.clone())
    }

    /// The value as `read` makes it from its text.
    pub(super) fn with<T>(
        &self,
        path: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        self.text(path).map(|text| read(text).ok_or_else(|| self.refuse(path, expected))).transpose()
    }

    /// A value that has a default.
    pub(super) fn parsed<T: FromStr>(&self, path: &'static str, expected: &str) -> Result<T, ConfigError> {
        self.with(path, expected, |text| text.parse().ok())?.ok_or_else(|| self.refuse(path, expected))
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, path: &'static str, least: u64, most: u64) -> Result<u64, ConfigError> {
        let expected = format!("a whole number from {least} to {most}");
        let number = self.parsed::<u64>(path, &expected)?;
        if (least..=most).contains(&number) { Ok(number) } else { Err(self.refuse(path, expected)) }
    }

    /// A path, made absolute from the current folder.
    pub(super) fn path(&self, path: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        self.with(path, "a path", |text| std::path::absolute(Path::new(text)).ok())
    }

    /// Every setting with its value as shown and its source. A secret shows only whether it is there.
    pub(super) fn shown(
        &self,
        computed: &BTreeMap<&'static str, String>,
    ) -> Vec<(String, String, &'static str)> {
        SETTINGS
            .iter()
            .map(|setting| {
                let shown = match (self.0.get(setting.path), setting.shape) {
                    (Some(_), Shape::Secret) => "[secret]".to_owned(),
                    (Some(given), _) => show(&given.text),
                    (None, _) => computed.get(setting.path).cloned().unwrap_or_default(),
                };
                (setting.path.to_owned(), shown, self.source(setting.path))
            })
            .collect()
    }
}

fn show(text: &Text) -> String {
    match text {
        Text::One(text) => text.chars().take(200).collect(),
        Text::Many(texts) => texts.join(","),
    }
}
