//! `pantry user`: who has an account.

use reqwest::Method;
use serde_json::{Value, json};

use super::arguments::{Global, User};
use super::client::Client;
use super::failure::Failure;
use super::output::{print, say, table, text};
use super::secret;
use crate::access::AccountName;

pub(super) async fn run(global: &Global, command: &User) -> Result<(), Failure> {
    // Asked for before anything is begun.
    let password = match command {
        User::Add { no_password: true, .. } => None,
        User::Add { password_stdin, .. } | User::Passwd { password_stdin, .. } => {
            Some(secret::new_password(*password_stdin)?)
        }
        _ => None,
    };
    let client = Client::new(global)?;
    match command {
        User::Add { name, role, groups, .. } => {
            let name = account(name)?;
            let body = json!({ "name": name.as_str(), "password": password, "role": role });
            let mut user = client.send(client.request(Method::POST, "/v1/users").json(&body)).await?;
            if !groups.is_empty() {
                user = patch(&client, &name, &json!({ "groups": groups })).await?;
            }
            print(global, &user, view)
        }
        User::List => {
            let users = client.list("/v1/users").await?;
            if users.is_empty() {
                say(global, "there are no users; `pantry user add NAME` makes one");
            }
            print(global, &json!({ "items": users }), list)
        }
        User::Show { name } => {
            let user = client.get(&format!("/v1/users/{}", account(name)?)).await?;
            print(global, &user, view)
        }
        User::Rm { name } => {
            let name = account(name)?;
            client.send(client.request(Method::DELETE, &format!("/v1/users/{name}"))).await?;
            print(global, &json!({ "removed": name.as_str() }), |_| {
                format!("{name} is removed, with all tokens and grants")
            })
        }
        User::Passwd { name, .. } => {
            let name = account(name)?;
            let user = patch(&client, &name, &json!({ "password": password })).await?;
            print(global, &user, |_| format!("{name} has a new password"))
        }
        User::Set { name, role, groups } => {
            let mut change = json!({});
            if let Some(role) = role {
                change["role"] = json!(role);
            }
            if let Some(groups) = groups {
                let groups: Vec<&str> = groups.split(',').filter(|group| !group.is_empty()).collect();
                change["groups"] = json!(groups);
            }
            let user = patch(&client, &account(name)?, &change).await?;
            print(global, &user, view)
        }
        User::Disable { name } => able(global, &client, name, true).await,
        User::Enable { name } => able(global, &client, name, false).await,
    }
}

async fn able(global: &Global, client: &Client, name: &str, disabled: bool) -> Result<(), Failure> {
    let name = account(name)?;
    let user = patch(client, &name, &json!({ "disabled": disabled })).await?;
    let how = if disabled { "nobody gets in as" } else { "may get in again:" };
    print(global, &user, |_| format!("{how} {name}"))
}

async fn patch(client: &Client, name: &AccountName, change: &Value) -> Result<Value, Failure> {
    client.send(client.request(Method::PATCH, &format!("/v1/users/{name}")).json(change)).await
}

/// A name that is safe in a path.
pub(super) fn account(name: &str) -> Result<AccountName, Failure> {
    AccountName::parse(name)
        .map_err(|error| Failure::usage(error.code(), error.to_string()).with_hint(error.hint()))
}

fn words(value: &Value) -> String {
    let all: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(",") }
}

fn list(answer: &Value) -> String {
    let rows: Vec<Vec<String>> = answer["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|user| {
            let state = if user["disabled"] == true { "disabled" } else { "enabled" };
            vec![
                text(user, "name"),
                text(user, "role"),
                state.to_owned(),
                words(&user["groups"]),
                text(user, "origin"),
            ]
        })
        .collect();
    table(&["USER", "ROLE", "STATE", "GROUPS", "ORIGIN"], &rows)
}

fn view(user: &Value) -> String {
    let rows: Vec<Vec<String>> =
        ["name", "role", "disabled", "has_password", "groups", "origin", "created_at", "password_set_at"]
            .iter()
            .filter(|key| !user[**key].is_null())
            .map(|key| {
                let value = if user[*key].is_array() { words(&user[*key]) } else { text(user, key) };
                vec![(*key).to_owned(), value]
            })
            .collect();
    table(&["FIELD", "VALUE"], &rows)
}
