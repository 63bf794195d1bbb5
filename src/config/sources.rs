//! The environment and the service manager's credentials as sources of values.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::ConfigError;
use super::nearest::nearest;
use super::secret::{Secret, SecretFileError};
use super::settings::{OTHER_VARIABLES, SETTINGS, Setting, Shape, is_section};
use super::values::{Given, Text, Values};

/// A variable's value; an empty one counts as unset.
pub(super) fn variable<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    env.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// Offers what the environment gives: `PANTRY_<SECTION>_<KEY>`, the name from history, and for secrets `…_FILE`.
pub(super) fn environment(env: &BTreeMap<String, String>, values: &mut Values) -> Result<(), ConfigError> {
    for setting in SETTINGS {
        let mut found: Option<(String, String)> = None;
        for name in std::iter::once(setting.variable()).chain(setting.other_variable.map(str::to_owned)) {
            let Some(value) = variable(env, &name) else { continue };
            match &found {
                Some((first, earlier)) if earlier != value => {
                    return Err(ConfigError::Conflict {
                        key: setting.path,
                        first: first.clone(),
                        second: name,
                    });
                }
                Some(_) => {}
                None => found = Some((name, value.to_owned())),
            }
        }
        let file_variable = format!("{}_FILE", setting.variable());
        if setting.shape == Shape::Secret
            && let Some(path) = variable(env, &file_variable)
        {
            if let Some((first, _)) = found {
                return Err(ConfigError::Conflict { key: setting.path, first, second: file_variable });
            }
            let secret = secret_file(setting, &file_variable, Path::new(path))?;
            found = Some((file_variable, secret.expose().to_owned()));
        }
        if let Some((origin, value)) = found {
            values.offer(setting, Given { text: Text::One(value), source: "environment", origin });
        }
    }
    Ok(())
}

/// Offers the secrets in `$CREDENTIALS_DIRECTORY`, where a file has the setting's path as its name.
pub(super) fn credentials(env: &BTreeMap<String, String>, values: &mut Values) -> Result<(), ConfigError> {
    let Some(dir) = variable(env, "CREDENTIALS_DIRECTORY") else { return Ok(()) };
    for setting in SETTINGS.iter().filter(|setting| setting.shape == Shape::Secret) {
        let path = Path::new(dir).join(setting.path);
        let origin = "CREDENTIALS_DIRECTORY";
        match secret_file(setting, origin, &path) {
            Ok(secret) => {
                let text = Text::One(secret.expose().to_owned());
                let origin = path.display().to_string();
                values.offer(setting, Given { text, source: "credential", origin });
            }
            Err(ConfigError::SecretFile { source: SecretFileError::Io { source, .. }, .. })
                if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn secret_file(setting: &'static Setting, origin: &str, path: &Path) -> Result<Secret, ConfigError> {
    Secret::read(path).map_err(|source| ConfigError::SecretFile {
        key: setting.path,
        origin: origin.to_owned(),
        source,
    })
}

/// Sentences about variables that look like settings of ours and are none.
///
/// Only those below a known section: other `PANTRY_…` names may belong to other programs.
pub(super) fn unknown_variables(env: &BTreeMap<String, String>) -> Vec<String> {
    let known: Vec<String> = SETTINGS
        .iter()
        .flat_map(|setting| {
            let file = (setting.shape == Shape::Secret).then(|| format!("{}_FILE", setting.variable()));
            [Some(setting.variable()), setting.other_variable.map(str::to_owned), file]
        })
        .flatten()
        .chain(OTHER_VARIABLES.iter().map(|name| (*name).to_owned()))
        .collect();
    env.iter()
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, _)| {
            let rest = name.strip_prefix("PANTRY_")?;
            let section = rest.split('_').next()?.to_ascii_lowercase();
            if known.contains(name) || !is_section(&section) {
                return None;
            }
            let meant = nearest(name, known.iter().map(String::as_str));
            let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
            Some(format!("the variable {name} is no setting and is ignored{meant}"))
        })
        .collect()
}
