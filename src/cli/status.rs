//! `pantry status`.

use serde_json::Value;

use super::arguments::Global;
use super::client::Client;
use super::failure::Failure;
use super::output::{print, table, text};

pub(super) async fn run(global: &Global) -> Result<(), Failure> {
    let answer = Client::new(global)?.get("/v1/status").await?;
    print(global, &answer, |answer| {
        let mut rows = Vec::new();
        flatten("", answer, &mut rows);
        table(&["WHAT", "VALUE"], &rows)
    })?;
    Ok(())
}

fn flatten(prefix: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    let Some(members) = value.as_object() else { return };
    for (key, member) in members {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if member.is_object() {
            flatten(&name, member, rows);
        } else {
            rows.push(vec![name, text(value, key)]);
        }
    }
}
