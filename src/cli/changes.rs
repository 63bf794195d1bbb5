//! `pantry changes`, `pantry change` and `pantry abort`.

use std::io::Write as _;

use reqwest::Method;
use serde_json::Value;

use super::arguments::{Format, Global};
use super::client::{Client, Looks};
use super::failure::Failure;
use super::output::{print, safe, say, table, text, watched};

const ENDED: [&str; 5] = ["done", "undone", "failed", "cancelled", "needs_attention"];

pub(super) async fn list(global: &Global) -> Result<(), Failure> {
    let mut changes = Client::new(global)?.list("/v1/changes").await?;
    changes.reverse();
    let answer = serde_json::json!({ "items": changes });
    print(global, &answer, |answer| {
        let rows: Vec<Vec<String>> = answer["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| ["id", "state", "kind", "summary", "created_at"].map(|key| text(item, key)).to_vec())
            .collect();
        table(&["ID", "STATE", "KIND", "SUMMARY", "CREATED"], &rows)
    })?;
    Ok(())
}

pub(super) async fn show(global: &Global, id: &str) -> Result<(), Failure> {
    let id = parse(id)?;
    let answer = Client::new(global)?.get(&format!("/v1/changes/{id}")).await?;
    print(global, &answer, view)?;
    Ok(())
}

pub(super) async fn abort(global: &Global, id: &str) -> Result<(), Failure> {
    let id = parse(id)?;
    let client = Client::new(global)?;
    let answer = client.send(client.request(Method::POST, &format!("/v1/changes/{id}/abort"))).await?;
    print(global, &answer, |_| format!("change {id} is being aborted"))?;
    Ok(())
}

/// Follows a change; its failure is the command's failure.
pub(super) async fn until_ended(global: &Global, client: &Client, id: &str) -> Result<Value, Failure> {
    let mut shown = String::new();
    let mut looks = Looks::new();
    loop {
        let answer = client.get(&format!("/v1/changes/{id}")).await?;
        let state = text(&answer, "state");
        let line = step(&answer);
        if line != shown {
            progress(global, &line);
            shown = line;
        }
        if ENDED.contains(&state.as_str()) {
            if state == "done" {
                return Ok(answer);
            }
            let error = &answer["error"];
            let hint = error["hint"].as_str().map(str::to_owned);
            let message = error["message"].as_str().unwrap_or("the change did not succeed");
            return Err(Failure::change(
                error["code"].as_str().unwrap_or("change_failed"),
                format!("{} ended as {state}: {}", text(&answer, "summary"), safe(message)),
                hint.or_else(|| Some(format!("its tasks and log: pantry change {id}"))),
            ));
        }
        looks.pause().await;
    }
}

/// The task that is being done, as n of m.
fn step(change: &Value) -> String {
    let Some(tasks) = change["tasks"].as_array() else { return String::new() };
    let done = tasks.iter().filter(|task| task["state"] == "done").count();
    let current = tasks.iter().find(|task| task["state"] != "done").map(|task| text(task, "kind"));
    match current {
        Some(kind) => format!("{} [{}/{}] {kind}", text(change, "summary"), done + 1, tasks.len()),
        None => format!("{} [{done}/{}]", text(change, "summary"), tasks.len()),
    }
}

fn progress(global: &Global, line: &str) {
    if global.quiet || global.output == Format::Json {
        return;
    }
    if watched() {
        let _ = write!(std::io::stderr(), "\r\x1b[2K{}", safe(line));
        if line.ends_with(']') {
            let _ = writeln!(std::io::stderr());
        }
    } else {
        say(global, line);
    }
}

fn view(change: &Value) -> String {
    let mut out = format!(
        "{}  {}  {}\nby {}, created {}, ended {}\n",
        text(change, "id"),
        text(change, "state"),
        text(change, "summary"),
        text(change, "by"),
        text(change, "created_at"),
        text(change, "ended_at")
    );
    let rows: Vec<Vec<String>> = change["tasks"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|task| {
            let millis = task["millis"].as_u64().map_or("-".to_owned(), |millis| format!("{millis} ms"));
            vec![text(task, "kind"), text(task, "state"), millis]
        })
        .collect();
    out.push_str(&table(&["TASK", "STATE", "TIME"], &rows));
    if change["error"].is_object() {
        out.push_str(&format!(
            "\nerror: {} [{}]",
            text(&change["error"], "message"),
            text(&change["error"], "code")
        ));
        if change["error"]["hint"].is_string() {
            out.push_str(&format!("\nhint: {}", text(&change["error"], "hint")));
        }
    }
    for line in change["log"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        out.push_str(&format!("\n  {}", safe(line)));
    }
    out
}

fn parse(id: &str) -> Result<crate::names::ChangeId, Failure> {
    crate::names::ChangeId::parse(id)
        .map_err(|error| Failure::usage("change_id_not_valid", error.to_string()))
}
