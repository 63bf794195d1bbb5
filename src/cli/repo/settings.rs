//! The settings of a repository as options.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::failure::Failure;

/// What is to be set; what is left out stays.
#[derive(Debug, Args)]
pub(in crate::cli) struct SettingsOptions {
    /// Take manifests without what they refer to
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sparse: Option<bool>,
    /// Tags that match never move and are never removed by retention; `*` is any characters, `?` one (repeatable,
    /// replaces those before)
    #[arg(long, value_name = "PATTERN", conflicts_with = "no_immutable")]
    immutable: Vec<String>,
    /// No tag is immutable
    #[arg(long)]
    no_immutable: bool,
    /// Retention: keep so many tags of each image, those that were set last; `none` takes the rule away
    #[arg(long, value_name = "N")]
    keep_last: Option<String>,
    /// Retention: keep tags that match (repeatable, replaces those before)
    #[arg(long, value_name = "PATTERN", conflicts_with = "no_keep")]
    keep: Vec<String>,
    /// Retention: no tag is kept for its name
    #[arg(long)]
    no_keep: bool,
    /// Retention: keep tags that were set, or whose manifest was pulled, within this time, such as 30d; or `none`
    #[arg(long, value_name = "TIME")]
    pulled_within: Option<String>,
    /// Retention: remove manifests without a tag that nobody used for this time, such as 7d; or `none`
    #[arg(long, value_name = "TIME")]
    untagged_after: Option<String>,
}

impl SettingsOptions {
    /// The settings after these options.
    pub(super) fn apply(&self, before: &Value) -> Result<Value, Failure> {
        let mut settings = before.as_object().cloned().unwrap_or_default();
        if let Some(sparse) = self.sparse {
            settings.insert("sparse".to_owned(), sparse.into());
        }
        if self.no_immutable || !self.immutable.is_empty() {
            settings.insert("immutable_tags".to_owned(), json!(self.immutable));
        }
        let mut rules = settings.get("retention").and_then(Value::as_object).cloned().unwrap_or_default();
        if self.no_keep || !self.keep.is_empty() {
            rules.insert("keep_tags".to_owned(), json!(self.keep));
        }
        let number = |text: &str| text.parse::<u64>().ok();
        set(&mut rules, "keep_last", "--keep-last", self.keep_last.as_deref(), "a number", number)?;
        let form = "a time such as 12h, 30d or 8w";
        let within = self.pulled_within.as_deref();
        set(&mut rules, "pulled_within_seconds", "--pulled-within", within, form, duration)?;
        let untagged = self.untagged_after.as_deref();
        set(&mut rules, "untagged_after_seconds", "--untagged-after", untagged, form, duration)?;
        settings.insert("retention".to_owned(), Value::Object(rules));
        Ok(Value::Object(settings))
    }
}

fn set(
    rules: &mut serde_json::Map<String, Value>,
    key: &str,
    option: &str,
    given: Option<&str>,
    form: &str,
    read: impl Fn(&str) -> Option<u64>,
) -> Result<(), Failure> {
    let Some(given) = given else { return Ok(()) };
    if given == "none" {
        rules.remove(key);
        return Ok(());
    }
    let value = read(given).ok_or_else(|| {
        Failure::usage("option_invalid", format!("{option} takes {form}, or `none`, not {given:?}"))
    })?;
    rules.insert(key.to_owned(), value.into());
    Ok(())
}

const UNITS: [(char, u64); 5] = [('w', 7 * 86_400), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Seconds in `30d`; a number without a unit is refused, as nobody could tell which it has.
fn duration(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    text[..text.len() - unit.len_utf8()].parse::<u64>().ok()?.checked_mul(*seconds)
}

/// The largest unit in which the seconds are a whole number.
pub(super) fn duration_text(value: &Value) -> String {
    let Some(seconds) = value.as_u64() else { return "-".to_owned() };
    let unit = UNITS.iter().find(|(_, unit)| seconds.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{seconds}s"), |(name, unit)| format!("{}{name}", seconds / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in
            [("30d", 2_592_000), ("8w", 4_838_400), ("12h", 43_200), ("5m", 300), ("1s", 1)]
        {
            assert_eq!(duration(text), Some(seconds));
            assert_eq!(duration_text(&json!(seconds)), text);
        }
        for bad in ["", "d", "30", "-1d", "1.5h", "1é", "99999999999999999999w", "9999999999999999999w"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_what_is_named_changes() {
        let none = SettingsOptions {
            sparse: None,
            immutable: Vec::new(),
            no_immutable: false,
            keep_last: None,
            keep: Vec::new(),
            no_keep: false,
            pulled_within: None,
            untagged_after: None,
        };
        let before = json!({"sparse": true, "immutable_tags": ["v*"], "retention": {"keep_tags": ["r"], "keep_last": 3}});
        assert_eq!(none.apply(&before).ok(), Some(before.clone()));
        let some = SettingsOptions {
            no_immutable: true,
            keep_last: Some("none".to_owned()),
            untagged_after: Some("7d".to_owned()),
            ..none
        };
        assert_eq!(
            some.apply(&before).ok(),
            Some(json!({
                "sparse": true, "immutable_tags": [],
                "retention": {"keep_tags": ["r"], "untagged_after_seconds": 604_800}
            }))
        );
    }
}
