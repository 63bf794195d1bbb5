//! `pantry install`, `pantry remove` and `pantry list`.

use reqwest::Method;
use serde_json::{Value, json};

use super::arguments::Global;
use super::changes::until_ended;
use super::client::Client;
use super::failure::Failure;
use super::output::{print, say, table, text};

pub(super) async fn install(global: &Global, package: &str, detach: bool) -> Result<(), Failure> {
    let client = Client::new(global)?;
    let request = client.request(Method::POST, "/v1/installed").json(&json!({ "package": package }));
    let answer = client.send(request).await?;
    end(global, &client, answer, detach, &format!("{package} is installed")).await
}

pub(super) async fn remove(global: &Global, package: &str, purge: bool) -> Result<(), Failure> {
    let name = package.rsplit('/').next().unwrap_or(package);
    let name = crate::names::PackageName::parse(name)
        .map_err(|error| Failure::usage("package_name_not_valid", error.to_string()))?;
    let client = Client::new(global)?;
    let answer =
        client.send(client.request(Method::DELETE, &format!("/v1/installed/{name}?purge={purge}"))).await?;
    end(global, &client, answer, false, &format!("{package} is removed")).await
}

async fn end(
    global: &Global,
    client: &Client,
    answer: Value,
    detach: bool,
    done: &str,
) -> Result<(), Failure> {
    let Some(id) = answer["change"].as_str() else {
        print(global, &answer, |answer| text(answer, "message"))?;
        return Ok(());
    };
    if detach {
        print(global, &answer, |answer| text(answer, "change"))?;
        return Ok(());
    }
    let change = until_ended(global, client, id).await?;
    print(global, &change, |_| done.to_owned())?;
    Ok(())
}

pub(super) async fn list(global: &Global) -> Result<(), Failure> {
    let answer = Client::new(global)?.get("/v1/installed").await?;
    print(global, &answer, |answer| {
        let rows: Vec<Vec<String>> = answer["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| {
                let commands: Vec<&str> =
                    item["commands"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                vec![
                    format!("{}/{}", text(item, "publisher"), text(item, "name")),
                    text(item, "version"),
                    text(item, "revision"),
                    commands.join(" "),
                    text(item, "digest").chars().take(19).collect(),
                ]
            })
            .collect();
        table(&["PACKAGE", "VERSION", "REVISION", "COMMANDS", "DIGEST"], &rows)
    })?;
    if answer["items"].as_array().is_some_and(Vec::is_empty) {
        say(global, "nothing is installed");
    }
    Ok(())
}
