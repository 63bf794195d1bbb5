//! `pantry gc`, `pantry verify` and `pantry repair`.

use reqwest::Method;
use serde_json::{Value, json};

use super::arguments::{Gc, Global, Repair, Verify};
use super::changes::until_ended;
use super::client::Client;
use super::failure::Failure;
use super::output::{print, safe, text};

pub(super) async fn gc(global: &Global, options: &Gc) -> Result<(), Failure> {
    let mut order = json!({ "dry_run": options.dry_run });
    if let Some(seconds) = options.grace {
        order["grace_seconds"] = seconds.into();
    }
    run(global, "/v1/collections", &order).await.map(drop)
}

pub(super) async fn verify(global: &Global, options: &Verify) -> Result<(), Failure> {
    let mut order = json!({});
    if let Some(megabytes) = options.rate {
        order["bytes_per_second"] = megabytes.saturating_mul(1_000_000).into();
    }
    let report = run(global, "/v1/verifications", &order).await?;
    wrong(
        &report,
        "blobs_damaged",
        "blobs are damaged, missing or unreadable",
        "docs/runbooks/damaged-blob.md says what to do",
    )
}

pub(super) async fn repair(global: &Global, options: &Repair) -> Result<(), Failure> {
    let report = run(global, "/v1/repairs", &json!({ "dry_run": !options.apply })).await?;
    if options.apply {
        return Ok(());
    }
    wrong(
        &report,
        "storage_flawed",
        "flaws were found, and nothing was changed",
        "`pantry repair --apply` mends them",
    )
}

/// Begins the work, follows its change, and prints the report.
async fn run(global: &Global, path: &str, order: &Value) -> Result<Value, Failure> {
    let client = Client::new(global)?;
    let answer = client.send(client.request(Method::POST, path).json(order)).await?;
    let id = answer["change"].as_str().unwrap_or_default().to_owned();
    until_ended(global, &client, &id).await?;
    let report = client.get(&format!("/v1/reports/{id}")).await?;
    print(global, &report, view)?;
    Ok(report)
}

/// What was found is the command's failure, for scripts.
fn wrong(report: &Value, code: &str, what: &str, hint: &str) -> Result<(), Failure> {
    match report["found"].as_u64() {
        Some(0) | None => Ok(()),
        Some(found) => {
            Err(Failure::rejected(code, format!("{found} {what}")).with_hint(Some(hint.to_owned())))
        }
    }
}

fn view(report: &Value) -> String {
    let mut lines: Vec<String> =
        report["lines"].as_array().into_iter().flatten().filter_map(Value::as_str).map(safe).collect();
    if let Some(omitted) = report["omitted"].as_u64().filter(|omitted| *omitted > 0) {
        lines.push(format!("and {omitted} more"));
    }
    let counts: Vec<String> = report["counts"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, number)| format!("{} {number}", name.replace('_', " ")))
        .collect();
    let counts = if counts.is_empty() { "nothing to do".to_owned() } else { counts.join(", ") };
    let mode = if report["dry_run"] == true { " (dry run: nothing was changed)" } else { "" };
    lines.push(format!("{}: {counts}{mode}", text(report, "kind")));
    lines.join("\n")
}
