//! `pantry login` and `pantry logout`: credentials of a registry, where docker keeps them.

use serde_json::{Value, json};

use super::arguments::{Global, Login, Logout};
use super::client::environment;
use super::connection::given;
use super::failure::Failure;
use super::images::{Connection, Credentials, Registry, auth_file_for_login, remove, store};
use super::output::{print, text};

/// The user whose password is a token; the server looks at the token alone.
const TOKEN_USER: &str = "token";

pub(super) async fn login(global: &Global, options: &Login) -> Result<(), Failure> {
    let registry = host(&options.registry)?;
    let asked = &options.connection;
    let (username, password) = match given(global, asked, registry)? {
        Some(Credentials::Basic { username, password }) => (username, password),
        Some(Credentials::Token(token)) => (TOKEN_USER.to_owned(), token),
        None => {
            return Err(Failure::usage("credentials_missing", "there is nothing to log in with")
                .with_hint(Some("give --username NAME, or --token TOKEN".to_owned())));
        }
    };
    let file = match &asked.auth_file {
        Some(file) => file.clone(),
        None => auth_file_for_login(&environment())?,
    };
    let credentials = Credentials::Basic { username: username.clone(), password: password.clone() };
    let connection =
        Connection { plain_http: asked.plain_http, ca: global.ca.clone(), credentials: Some(credentials) };
    Registry::new(registry, "", Vec::new(), &connection)?.check().await?;
    store(&file, registry, &username, &password)?;
    let answer = json!({ "registry": registry, "username": username, "auth_file": file });
    print(global, &answer, |answer| {
        format!(
            "logged in to {} as {}; kept in {}",
            text(answer, "registry"),
            text(answer, "username"),
            text(answer, "auth_file")
        )
    })
}

pub(super) fn logout(global: &Global, options: &Logout) -> Result<(), Failure> {
    let registry = host(&options.registry)?;
    let file = match &options.auth_file {
        Some(file) => file.clone(),
        None => auth_file_for_login(&environment())?,
    };
    if !remove(&file, registry)? {
        let detail = format!("{} keeps no login for {registry}", file.display());
        return Err(Failure::answered(404, "login_unknown", detail, None));
    }
    let answer = json!({ "registry": registry, "auth_file": file });
    print(global, &answer, |answer: &Value| format!("forgotten: {}", text(answer, "registry")))
}

/// `HOST[:PORT]`, as the names of images begin.
fn host(text: &str) -> Result<&str, Failure> {
    let host = text.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let known = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
        && (host.contains(['.', ':']) || host == "localhost");
    if known {
        Ok(host)
    } else {
        Err(Failure::usage("registry_not_valid", format!("{:?} is no registry", super::output::safe(text)))
            .with_hint(Some("write HOST[:PORT], such as registry.example:7721".to_owned())))
    }
}
