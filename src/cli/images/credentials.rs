//! Credentials of registries, kept in the files that docker and podman keep them in.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde_json::{Map, Value, json};

use crate::cli::failure::Failure;

/// Such a file has no more bytes than this.
const FILE_CAP: u64 = 1 << 20;

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::cli) enum Credentials {
    /// A user's name and password; a token of Pantry is a password too.
    Basic { username: String, password: String },
    /// A token that is shown as it is.
    Token(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username:?}, …)"),
            Self::Token(_) => write!(f, "Token(…)"),
        }
    }
}

impl Credentials {
    /// The value of `Authorization` with a password; a token is the password of a user who need not exist.
    pub(super) fn basic(&self) -> Result<HeaderValue, Failure> {
        let encoded = match self {
            Self::Basic { username, password } => STANDARD.encode(format!("{username}:{password}")),
            Self::Token(token) => STANDARD.encode(format!("token:{token}")),
        };
        let mut value = HeaderValue::from_str(&format!("Basic {encoded}"))
            .map_err(|_| Failure::usage("credentials_not_valid", "the credentials fit into no header"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// The files in which credentials are looked for, first to last: podman's, then docker's.
fn files(environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let path = |key: &str| environment.get(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = path("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let mut files = Vec::new();
    files.extend(path("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")));
    files.extend(path("HOME").map(|home| home.join(".config/containers/auth.json")));
    files.extend(docker_file(environment));
    files
}

fn docker_file(environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let path = |key: &str| environment.get(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("DOCKER_CONFIG")
        .or_else(|| path("HOME").map(|home| home.join(".docker")))
        .map(|at| at.join("config.json"))
}

/// The file that a login is written to.
pub(in crate::cli) fn auth_file_for_login(
    environment: &BTreeMap<String, String>,
) -> Result<PathBuf, Failure> {
    let named = environment.get("REGISTRY_AUTH_FILE").filter(|value| !value.is_empty()).map(PathBuf::from);
    named.or_else(|| docker_file(environment)).ok_or_else(|| {
        Failure::usage("auth_file_unknown", "there is no home folder to keep the login in")
            .with_hint(Some("name the file by --auth-file".to_owned()))
    })
}

/// What was stored for a repository of a registry, and a sentence about what could not be used.
pub(in crate::cli) fn find(
    auth_file: Option<&Path>,
    environment: &BTreeMap<String, String>,
    registry: &str,
    repository: &str,
) -> Result<(Option<Credentials>, Option<String>), Failure> {
    let mut note = None;
    let files = auth_file.map_or_else(|| files(environment), |file| vec![file.to_path_buf()]);
    for file in files {
        let Some(value) = read(&file)? else { continue };
        match in_file(&value, registry, repository) {
            Found::Credentials(found) => return Ok((Some(found), None)),
            Found::Unusable(why) => note = Some(format!("{}: {why}", file.display())),
            Found::Nothing => {}
        }
    }
    Ok((None, note))
}

#[derive(Debug, PartialEq)]
enum Found {
    Credentials(Credentials),
    Unusable(String),
    Nothing,
}

/// The entry for the longest part of `registry/repository` that has one.
fn in_file(value: &Value, registry: &str, repository: &str) -> Found {
    let whole = format!("{registry}/{repository}");
    let mut key = whole.as_str();
    let entry = loop {
        let entry = entry_of(value, key);
        if entry.is_some() || key.len() <= registry.len() {
            break entry;
        }
        key = key.rsplit_once('/').map_or(registry, |(shorter, _)| shorter);
    };
    if let Some(entry) = entry {
        if entry["identitytoken"].as_str().is_some_and(|token| !token.is_empty()) {
            return Found::Unusable(format!(
                "the login for {registry} is an identity token, which is not used here"
            ));
        }
        let pair = entry["auth"].as_str().and_then(|text| STANDARD.decode(text.trim()).ok());
        let pair = pair.and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some((username, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) {
            let password = password.trim_end_matches('\0').to_owned();
            return Found::Credentials(Credentials::Basic { username: username.to_owned(), password });
        }
    }
    let helper = value["credHelpers"][registry].as_str().or(value["credsStore"].as_str());
    match helper {
        Some(helper) => Found::Unusable(format!(
            "logins for {registry} are kept by the helper {helper:?}, which is not asked"
        )),
        None => Found::Nothing,
    }
}

fn entry_of<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let all = value["auths"].as_object()?;
    let plain = |name: &str| {
        name.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/') == key
    };
    all.get(key).or_else(|| all.iter().find(|(name, _)| plain(name)).map(|(_, entry)| entry))
}

fn read(file: &Path) -> Result<Option<Value>, Failure> {
    use std::io::Read as _;
    let bad = |why: String| {
        Failure::local("auth_file_not_valid", format!("{} cannot be used: {why}", file.display()))
            .with_hint(Some("mend or remove the file, or name another by --auth-file".to_owned()))
    };
    let open = match fs_err::File::open(file) {
        Ok(open) => open,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(bad(error.to_string())),
    };
    let mut bytes = Vec::new();
    open.take(FILE_CAP + 1).read_to_end(&mut bytes).map_err(|error| bad(error.to_string()))?;
    if bytes.len() as u64 > FILE_CAP {
        return Err(bad(format!("it is longer than {FILE_CAP} bytes")));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    if value.is_object() { Ok(Some(value)) } else { Err(bad("it is no JSON object".to_owned())) }
}

/// Keeps a login in a file, beside whatever else is there.
pub(in crate::cli) fn store(
    file: &Path,
    registry: &str,
    username: &str,
    password: &str,
) -> Result<(), Failure> {
    edit(file, |auths| {
        auths.insert(
            registry.to_owned(),
            json!({ "auth": STANDARD.encode(format!("{username}:{password}")) }),
        );
        true
    })
    .map(|_| ())
}

/// Forgets a login; `false` where there was none.
pub(in crate::cli) fn remove(file: &Path, registry: &str) -> Result<bool, Failure> {
    edit(file, |auths| auths.remove(registry).is_some())
}

/// Changes the logins of a file, which is replaced in one step and is its owner's alone.
fn edit(file: &Path, change: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<bool, Failure> {
    // A file that is a link stays one.
    let file = fs_err::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
    let mut value = read(&file)?.unwrap_or_else(|| json!({}));
    let auths = value["auths"].take();
    let mut auths = if let Value::Object(auths) = auths { auths } else { Map::new() };
    let changed = change(&mut auths);
    value["auths"] = Value::Object(auths);
    if !changed {
        return Ok(false);
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    private_folder(folder)?;
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    text.push('\n');
    // `tempfile` makes files that only their owner can read.
    let mut new = tempfile::Builder::new().prefix(".auth-").tempfile_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(&file).map_err(|error| Failure::from(error.error))?;
    Ok(true)
}

fn private_folder(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    if !folder.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
            Failure::local("io_error", format!("cannot make {}: {error}", folder.display()))
        })?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn basic(username: &str, password: &str) -> Found {
        Found::Credentials(Credentials::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        })
    }

    #[test]
    fn the_longest_name_with_a_login_counts() {
        let auth = |pair: &str| json!({ "auth": STANDARD.encode(pair) });
        let value = json!({ "auths": {
            "r.example:7721": auth("all:p:w"),
            "r.example:7721/local/team": auth("team:x"),
            "https://old.example/": auth("old:y"),
        } });
        assert_eq!(in_file(&value, "r.example:7721", "local/app"), basic("all", "p:w"));
        assert_eq!(in_file(&value, "r.example:7721", "local/team/app"), basic("team", "x"));
        assert_eq!(in_file(&value, "r.example:7721", "local/teamster"), basic("all", "p:w"));
        assert_eq!(in_file(&value, "old.example", "a/b"), basic("old", "y"));
        assert_eq!(in_file(&value, "example", "a/b"), Found::Nothing);
        let helped = json!({ "auths": { "r.example": {} }, "credsStore": "pass" });
        assert!(matches!(in_file(&helped, "r.example", "a"), Found::Unusable(_)));
    }

    #[test]
    fn a_login_is_kept_privately_beside_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/config.json");
        store(&file, "r.example", "ada", "s:3").unwrap();
        let mut value = read(&file).unwrap().unwrap();
        assert_eq!(in_file(&value, "r.example", "a"), basic("ada", "s:3"));
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        value["HttpHeaders"] = json!({ "x": "y" });
        std::fs::write(&file, value.to_string()).unwrap();
        store(&file, "other.example", "b", "c").unwrap();
        assert!(remove(&file, "r.example").unwrap());
        assert!(!remove(&file, "r.example").unwrap());
        let value = read(&file).unwrap().unwrap();
        assert_eq!(value["HttpHeaders"]["x"], "y");
        assert_eq!(in_file(&value, "other.example", "a"), basic("b", "c"));
        assert_eq!(in_file(&value, "r.example", "a"), Found::Nothing);
    }

    #[test]
    fn a_broken_file_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("auth.json");
        for text in ["{", "[]", "null"] {
            std::fs::write(&file, text).unwrap();
            assert!(store(&file, "r.example", "a", "b").is_err());
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
        std::fs::write(&file, "\n").unwrap();
        store(&file, "r.example", "a", "b").unwrap();
    }
}
