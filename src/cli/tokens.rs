//! `pantry token`: API tokens, each shown once.

use reqwest::Method;
use serde_json::{Value, json};

use super::arguments::{Global, Token};
use super::client::Client;
use super::failure::Failure;
use super::output::{print, say, table, text};
use super::users::account;
use crate::access::{Pattern, Rights};

pub(super) async fn run(global: &Global, command: &Token) -> Result<(), Failure> {
    match command {
        Token::Create { name, user, expires, scopes, role } => {
            let scopes: Vec<Value> = scopes.iter().map(|text| scope(text)).collect::<Result<_, _>>()?;
            let body = json!({
                "name": account(name)?.as_str(),
                "owner": user.as_deref().map(account).transpose()?.map(|owner| owner.to_string()),
                "expires_in_seconds": expires,
                "scopes": scopes,
                "role": role,
            });
            let client = Client::new(global)?;
            let made = client.send(client.request(Method::POST, "/v1/tokens").json(&body)).await?;
            say(global, "this is the only time that the token is shown:");
            print(global, &made, |made| text(made, "token"))
        }
        Token::List { user } => {
            let client = Client::new(global)?;
            let mut tokens = client.list("/v1/tokens").await?;
            if let Some(user) = user {
                tokens.retain(|token| token["owner"] == user.as_str());
            }
            print(global, &json!({ "items": tokens }), list)
        }
        Token::Revoke { id } => {
            if id.is_empty() || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(Failure::usage(
                    "token_id_not_valid",
                    "a token is revoked by its id, as `pantry token list` shows it",
                ));
            }
            let client = Client::new(global)?;
            client.send(client.request(Method::DELETE, &format!("/v1/tokens/{id}"))).await?;
            print(global, &json!({ "revoked": id }), |_| format!("{id} counts no more"))
        }
    }
}

/// `PATTERN:RIGHTS`
fn scope(text: &str) -> Result<Value, Failure> {
    let parsed = text.rsplit_once(':').and_then(|(pattern, rights)| {
        Some(json!({ "pattern": Pattern::parse(pattern)?, "rights": Rights::parse(rights)? }))
    });
    parsed.ok_or_else(|| {
        let detail = format!("{:?} is no scope", super::output::safe(text));
        Failure::usage("scope_not_valid", detail)
            .with_hint(Some("write PATTERN:RIGHTS, such as local/team:pull,push".to_owned()))
    })
}

fn list(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = answer["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|token| {
            let scopes: Vec<String> = token["scopes"].as_array().into_iter().flatten().map(told).collect();
            let until = match (token["expired"].as_bool(), token["expires_at"].as_str()) {
                (Some(true), _) => "expired".to_owned(),
                (_, Some(at)) => at.to_owned(),
                _ => "never".to_owned(),
            };
            let scopes = if scopes.is_empty() { "all".to_owned() } else { scopes.join(" ") };
            vec![text(token, "id"), text(token, "owner"), text(token, "name"), until, scopes]
        })
        .collect();
    table(&["ID", "USER", "NAME", "EXPIRES", "SCOPES"], &rows)
}

fn told(scope: &Value) -> String {
    let rights: Vec<&str> =
        scope["rights"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!("{}:{}", text(scope, "pattern"), rights.join(","))
}
