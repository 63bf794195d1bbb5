//! Which Python index the resolver and the downloads use: what the configuration, this machine's environment and its
//! pip configuration say. No index is named here; with none given the resolver uses its own default.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Variables that are handed on as they are.
const PASSED_ON: &[&str] = &[
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_INDEX_STRATEGY",
    "UV_INSECURE_HOST",
    "UV_HTTP_TIMEOUT",
];
/// What pip calls a setting, its variable, and what the resolver calls it.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("index-url", "PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
    ("extra-index-url", "PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL"),
    ("trusted-host", "PIP_TRUSTED_HOST", "UV_INSECURE_HOST"),
];
/// Where systems keep the certificates they trust.
const CERTIFICATES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const CONFIGURATION_CAP: u64 = 64 * 1024;

/// The environment of the programs that talk to the index.
pub(crate) fn environment(
    configured: Option<&str>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty() && value.len() < 8192);
    let mut environment: BTreeMap<String, String> =
        PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?))).collect();
    let named = names_default(&environment);
    if let Some(url) = configured {
        for name in ["UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"] {
            environment.remove(name);
        }
        environment.insert("UV_DEFAULT_INDEX".to_owned(), url.to_owned());
    } else if !named {
        for (key, value) in pip_settings(&variable) {
            environment.entry(key).or_insert(value);
        }
    }
    environment
}

/// pip's own settings: its variables, then its files from the user's to the machine's.
fn pip_settings(variable: &dyn Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut take = |key: &str, value: String| {
        if let Some((_, _, name)) = SETTINGS.iter().find(|(setting, ..)| *setting == key) {
            settings.entry((*name).to_owned()).or_insert(value);
        }
    };
    for (key, name, _) in SETTINGS {
        if let Some(value) = variable(name) {
            take(key, value);
        }
    }
    for path in pip_files(variable) {
        let readable =
            fs_err::metadata(&path).is_ok_and(|file| file.is_file() && file.len() <= CONFIGURATION_CAP);
        if let Some(text) = readable.then(|| fs_err::read_to_string(&path).ok()).flatten() {
            for (key, value) in pip_file(&text) {
                take(&key, value);
            }
        }
    }
    settings
}

fn pip_files(variable: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let home = variable("HOME").map(PathBuf::from);
    let user =
        variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".config")));
    let named = variable("PIP_CONFIG_FILE");
    if named.as_deref() == Some("/dev/null") {
        return Vec::new();
    }
    [
        named.map(PathBuf::from),
        user.map(|directory| directory.join("pip/pip.conf")),
        home.map(|directory| directory.join(".pip/pip.conf")),
        Some(PathBuf::from("/etc/xdg/pip/pip.conf")),
        Some(PathBuf::from("/etc/pip.conf")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The settings of the sections `global` and `install`; a value may go on over indented lines.
fn pip_file(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut applies = false;
    let mut open = false;
    for line in text.lines() {
        let content = line.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with([' ', '\t']) && open {
            if let Some((_, value)) = found.last_mut() {
                if !value.is_empty() {
                    value.push(' ');
                }
                value.push_str(content);
            }
        } else if let Some(section) = content.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            applies = matches!(section.trim(), "global" | "install");
            open = false;
        } else if let Some((key, value)) = content.split_once(['=', ':']).filter(|_| applies) {
            found.push((key.trim().replace('_', "-"), value.trim().to_owned()));
            open = true;
        } else {
            open = false;
        }
    }
    found.retain(|(_, value)| !value.is_empty());
    found
}

/// The addresses of the indexes that an environment names, the default one first.
pub(crate) fn addresses(environment: &BTreeMap<String, String>) -> Vec<String> {
    ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"]
        .iter()
        .filter_map(|name| environment.get(*name))
        .flat_map(|value| value.split_ascii_whitespace())
        // An index may have a name in front: `name=address`.
        .filter_map(|entry| entry.find("http").map(|at| &entry[at..]))
        .filter(|address| address.starts_with("http://") || address.starts_with("https://"))
        .map(str::to_owned)
        .collect()
}

/// Whether an environment says which index is the default one.
pub(crate) fn names_default(environment: &BTreeMap<String, String>) -> bool {
    ["UV_DEFAULT_INDEX", "UV_INDEX_URL"].iter().any(|name| environment.contains_key(*name))
}

/// The file of certificates that this machine trusts.
pub(crate) fn certificates(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    variable("SSL_CERT_FILE")
        .into_iter()
        .map(PathBuf::from)
        .chain(CERTIFICATES.iter().map(PathBuf::from))
        .find(|path| path.is_file())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn env_of(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        let map: BTreeMap<String, String> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        move |name| map.get(name).cloned()
    }

    #[test]
    fn nothing_configured_names_no_index() {
        let environment = environment(None, &env_of(&[("PIP_CONFIG_FILE", "/dev/null"), ("UV_INDEX", "")]));
        assert!(environment.is_empty(), "{environment:?}");
    }

    #[test]
    fn the_configuration_wins_over_the_machine() {
        let machine =
            [("PIP_INDEX_URL", "http://pip.invalid"), ("UV_EXTRA_INDEX_URL", "http://extra.invalid")];
        let found = environment(Some("http://own.invalid"), &env_of(&machine));
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("UV_DEFAULT_INDEX".to_owned(), "http://own.invalid".to_owned())]
        );
    }

    #[test]
    fn pip_settings_are_taken_when_the_resolver_has_none_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pip.conf");
        fs_err::write(&file, "[list]\nindex-url = http://no\n[global]\nindex_url = http://conf.invalid/simple\nextra-index-url =\n    http://a\n    http://b\n").unwrap();
        let file = file.to_str().unwrap();
        let found = environment(None, &env_of(&[("PIP_CONFIG_FILE", file), ("HTTPS_PROXY", "http://proxy")]));
        assert_eq!(found["UV_DEFAULT_INDEX"], "http://conf.invalid/simple");
        assert_eq!(found["UV_EXTRA_INDEX_URL"], "http://a http://b");
        assert_eq!(found.get("HTTPS_PROXY"), None, "inside there is our own proxy alone");
        let found = environment(None, &env_of(&[("PIP_CONFIG_FILE", file), ("PIP_INDEX_URL", "http://env")]));
        assert_eq!(found["UV_DEFAULT_INDEX"], "http://env");
        let found = environment(None, &env_of(&[("PIP_CONFIG_FILE", file), ("UV_INDEX_URL", "http://uv")]));
        assert_eq!(found.get("UV_DEFAULT_INDEX"), None);
    }

    #[test]
    fn a_named_certificate_file_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        fs_err::write(&file, "x").unwrap();
        let found = certificates(&env_of(&[("SSL_CERT_FILE", file.to_str().unwrap())]));
        assert_eq!(found.as_deref(), Some(file.as_path()));
    }
}
