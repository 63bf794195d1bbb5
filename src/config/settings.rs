//! The table of all settings: the one place that knows their names.

/// How a setting's value looks in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One scalar.
    One,
    /// A sequence of scalars; in the environment separated by commas.
    Many,
    /// One scalar that never prints, and that may also come from a file or a credential.
    Secret,
}

/// One setting.
#[derive(Debug)]
pub(super) struct Setting {
    /// `key` or `section.key`, as in the file.
    pub(super) path: &'static str,
    /// How its value looks.
    pub(super) shape: Shape,
    /// A second environment name that history gave it.
    pub(super) other_variable: Option<&'static str>,
    /// The default as it would be written in the file; `None` where there is none or where it depends on others.
    pub(super) default: Option<&'static str>,
}

impl Setting {
    /// The environment variable: `PANTRY_<SECTION>_<KEY>`.
    pub(super) fn variable(&self) -> String {
        format!("PANTRY_{}", self.path.replace('.', "_").to_ascii_uppercase())
    }
}

const fn one(path: &'static str, default: Option<&'static str>) -> Setting {
    Setting { path, shape: Shape::One, other_variable: None, default }
}

const fn secret(path: &'static str) -> Setting {
    Setting { path, shape: Shape::Secret, other_variable: None, default: None }
}

/// Every setting there is.
pub(super) static SETTINGS: &[Setting] = &[
    one("root", None),
    one("listen", Some("127.0.0.1:7721")),
    one("public_url", None),
    Setting { path: "allowed_hosts", shape: Shape::Many, other_variable: None, default: None },
    one("auth.mode", None),
    one("auth.htpasswd", None),
    one("auth.token_ttl_seconds", Some("300")),
    one("tls.mode", None),
    one("tls.certificate", None),
    one("tls.key", None),
    one("tls.client_ca", None),
    one("tls.acme_directory", None),
    one("tls.acme_email", None),
    Setting { path: "tls.acme_names", shape: Shape::Many, other_variable: None, default: None },
    one("tls.acme_ca", None),
    one("store.index_url", None),
    one("store.upload_cap_bytes", Some("67108864")),
    one("store.concurrent", Some("2")),
    Setting {
        path: "runner.kind",
        shape: Shape::One,
        other_variable: Some("PANTRY_CONTAINER_RUNNER"),
        default: Some("embedded"),
    },
    one("runner.github_repository", None),
    one("runner.github_workflow", None),
    one("runner.github_api", None),
    secret("runner.github_token"),
    secret("callback.signing_key"),
    secret("callback.signing_key_previous"),
    one("callback.previous_key_until", None),
    one("callback.url", None),
    one("limits.connections", Some("1024")),
    one("limits.per_address_connections", None),
    one("limits.header_timeout_ms", Some("10000")),
    one("limits.handshake_timeout_ms", Some("10000")),
    one("limits.idle_timeout_ms", Some("60000")),
    one("limits.stall_timeout_ms", Some("60000")),
    one("limits.streams", Some("64")),
    one("limits.manifest_cap_bytes", Some("8388608")),
    one("limits.submissions_per_hour", Some("10")),
    one("log.json", None),
    one("log.filter", Some("info")),
    one("registry.default_repository", None),
    one("registry.delete", Some("true")),
    one("storage.collect_every_seconds", Some("3600")),
    one("storage.collect_grace_seconds", Some("3600")),
    one("sandbox.test_memory_bytes", Some("134217728")),
    one("sandbox.test_processes", Some("128")),
    one("sandbox.test_wall_ms", Some("180000")),
    one("bundle.layout", None),
];

/// Variables with our prefix that aren't settings: they belong to the client, to tests, and to finding the file.
pub(super) const OTHER_VARIABLES: &[&str] =
    &["PANTRY_CONFIG", "PANTRY_HOST", "PANTRY_TOKEN", "PANTRY_CA", "PANTRY_FAULT", "PANTRY_VERSION"];

/// The setting of that path.
pub(super) fn setting(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.path == path)
}

/// Whether there are settings below that section.
pub(super) fn is_section(name: &str) -> bool {
    sections().any(|section| section == name)
}

/// The names of all sections, some more than once.
pub(super) fn sections() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter_map(|setting| setting.path.split_once('.').map(|(section, _)| section))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_variables_are_unique() {
        let mut paths: Vec<_> = SETTINGS.iter().map(|setting| setting.path).collect();
        let mut variables: Vec<_> = SETTINGS.iter().map(Setting::variable).collect();
        variables.extend(SETTINGS.iter().filter_map(|setting| setting.other_variable.map(str::to_owned)));
        variables.extend(OTHER_VARIABLES.iter().map(|name| (*name).to_owned()));
        let count = (paths.len(), variables.len());
        paths.sort_unstable();
        paths.dedup();
        variables.sort_unstable();
        variables.dedup();
        assert_eq!((paths.len(), variables.len()), count);
    }

    #[test]
    fn the_names_from_history_are_there() {
        let variables: Vec<_> = SETTINGS.iter().map(Setting::variable).collect();
        for name in ["PANTRY_CALLBACK_SIGNING_KEY", "PANTRY_CALLBACK_SIGNING_KEY_PREVIOUS"] {
            assert!(variables.iter().any(|variable| variable == name), "{name}");
        }
        assert_eq!(setting("runner.kind").and_then(|s| s.other_variable), Some("PANTRY_CONTAINER_RUNNER"));
    }
}
