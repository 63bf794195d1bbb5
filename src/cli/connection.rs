//! How the options of `push`, `pull` and `login` say that a registry is reached.

use super::arguments::{Global, RegistryOptions};
use super::client::environment;
use super::failure::Failure;
use super::images::{Connection, Credentials, Name, find};
use super::output::say;
use super::secret;

/// The connection to a name's registry, with the credentials that were given or are kept for it.
pub(super) fn of(global: &Global, options: &RegistryOptions, name: &Name) -> Result<Connection, Failure> {
    let credentials = match given(global, options, &name.registry)? {
        Some(given) => Some(given),
        None => kept(global, options, name)?,
    };
    Ok(Connection { plain_http: options.plain_http, ca: global.ca.clone(), credentials })
}

/// What the command line names.
pub(super) fn given(
    global: &Global,
    options: &RegistryOptions,
    registry: &str,
) -> Result<Option<Credentials>, Failure> {
    if let Some(username) = &options.username {
        if username.contains(':') {
            return Err(Failure::usage("username_not_valid", "a user name has no colon"));
        }
        let password = secret::password("Password: ", options.password_stdin)?;
        return Ok(Some(Credentials::Basic { username: username.clone(), password }));
    }
    if options.password_stdin {
        return Err(Failure::usage("username_missing", "--password-stdin needs --username"));
    }
    let Some(token) = &global.token else { return Ok(None) };
    // The variable holds a token for the server of --host: no other registry is shown it.
    let from_environment = environment().get("PANTRY_TOKEN") == Some(token);
    let meant = global.host.as_ref().and_then(|url| reqwest::Url::parse(url).ok()).is_some_and(|url| {
        let host = url.host_str().unwrap_or_default();
        url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")) == registry
    });
    Ok((!from_environment || meant).then(|| Credentials::Token(token.clone())))
}

fn kept(global: &Global, options: &RegistryOptions, name: &Name) -> Result<Option<Credentials>, Failure> {
    let (found, note) = find(options.auth_file.as_deref(), &environment(), &name.registry, &name.repository)?;
    if let Some(note) = note {
        say(global, &format!("note: {note}; going on without"));
    }
    Ok(found)
}
