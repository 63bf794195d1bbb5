//! `pantry submit` and `pantry submission`.

use std::io::Seek as _;
use std::path::Path;

use reqwest::multipart::{Form, Part};
use reqwest::{Body, Method};
use serde_json::Value;
use tokio_util::io::ReaderStream;

use super::arguments::{Global, Submit};
use super::client::{Client, Looks};
use super::failure::Failure;
use super::output::{print, safe, say, table, text};
use crate::sandbox::Receipt;

const FINAL: [&str; 4] = ["published", "rejected", "timed_out", "cancelled"];

pub(super) async fn run(global: &Global, options: &Submit) -> Result<(), Failure> {
    let client = Client::new(global)?;
    let archive = pack(&options.directory)?;
    let size = archive.metadata()?.len();
    let stream = ReaderStream::with_capacity(tokio::fs::File::from_std(archive), 256 * 1024);
    let part = Part::stream_with_length(Body::wrap_stream(stream), size).file_name("source.tar.gz");
    let path = if options.preview { "/v1/submissions?preview=true" } else { "/v1/submissions" };
    let mut request = client.request(Method::POST, path).multipart(Form::new().part("source", part));
    if let Some(key) = &options.idempotency_key {
        request = request.header("Idempotency-Key", key);
    }
    let (status, answer) = client.send_with_status(request).await?;
    if options.preview || status >= 400 {
        print(global, &answer, verdict)?;
        let failed = status >= 400 || text(&answer, "result") == "rejected";
        return if failed { Err(refused(&answer)) } else { Ok(()) };
    }
    let id = text(&answer, "id");
    if !options.watch {
        print(global, &answer, view)?;
        say(global, &format!("follow it with: pantry submission {id} --watch"));
        return Ok(());
    }
    say(global, &format!("submission {id}"));
    follow(global, &client, &id).await
}

pub(super) async fn show(global: &Global, id: &str, watch: bool) -> Result<(), Failure> {
    let client = Client::new(global)?;
    let id = crate::names::SubmissionId::parse(id)
        .map_err(|error| Failure::usage("submission_id_not_valid", error.to_string()))?;
    if watch {
        return follow(global, &client, id.as_str()).await;
    }
    let answer = client.get(&format!("/v1/submissions/{id}")).await?;
    print(global, &answer, view)?;
    Ok(())
}

/// Prints each new state, then the end.
async fn follow(global: &Global, client: &Client, id: &str) -> Result<(), Failure> {
    let mut last = String::new();
    let mut told = 0;
    let mut looks = Looks::new();
    loop {
        let answer = client.get(&format!("/v1/submissions/{id}")).await?;
        let state = text(&answer, "state");
        if state != last {
            say(global, &format!("  {state}"));
            last.clone_from(&state);
            looks = Looks::new();
        }
        told = log_since(global, client, &answer, told).await;
        if FINAL.contains(&state.as_str()) {
            log_since(global, client, &answer, told).await;
            print(global, &answer, view)?;
            return if state == "published" { Ok(()) } else { Err(refused(&answer["verdict"])) };
        }
        looks.pause().await;
    }
}

/// Prints the change's log lines after the first `told`; the log is a comfort, so a failure to read it is none.
async fn log_since(global: &Global, client: &Client, answer: &Value, told: usize) -> usize {
    let Some(change) = answer["change"].as_str() else { return told };
    let Ok(change) = client.get(&format!("/v1/changes/{change}")).await else { return told };
    let Some(lines) = change["log"].as_array() else { return told };
    for line in lines.iter().skip(told).filter_map(Value::as_str) {
        say(global, &format!("    {line}"));
    }
    told.max(lines.len())
}

fn refused(verdict: &Value) -> Failure {
    let codes: Vec<&str> =
        verdict["reason_codes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let code = codes.first().copied().unwrap_or("submission_failed");
    let message = verdict["message"].as_str().unwrap_or("it did not end in a publication");
    Failure::rejected(code, format!("Submission failed: {}", safe(message)))
        .with_hint(Some(format!("what each code means and how to mend it: docs/rejections.md#{code}")))
}

fn view(answer: &Value) -> String {
    let mut rows = Vec::new();
    for key in [
        "id",
        "state",
        "name",
        "version",
        "publisher",
        "reference",
        "pack_digest",
        "created_at",
        "updated_at",
        "change",
    ] {
        if !answer[key].is_null() {
            rows.push(vec![key.to_owned(), text(answer, key)]);
        }
    }
    if let Some(test) = answer["test"]["summary"].as_str() {
        rows.push(vec!["test".to_owned(), safe(test)]);
    }
    // The sandbox's own words, as `pantry run --explain` has them.
    if let Ok(receipt) = serde_json::from_value::<Receipt>(answer["test"]["receipt"].clone()) {
        rows.extend(receipt.in_words().iter().map(|line| vec!["receipt".to_owned(), safe(line)]));
    }
    for contact in answer["network"].as_array().into_iter().flatten() {
        if text(contact, "verdict") != "reached" {
            let (host, port) = (text(contact, "host"), text(contact, "port"));
            let said = format!(
                "{} {host}:{port} during {}: {}",
                text(contact, "verdict"),
                text(contact, "during"),
                text(contact, "why")
            );
            rows.push(vec!["network".to_owned(), said]);
        }
    }
    let mut out = table(&["FIELD", "VALUE"], &rows);
    if answer["verdict"].is_object() {
        out.push('\n');
        out.push_str(&verdict(&answer["verdict"]));
    }
    out
}

fn verdict(answer: &Value) -> String {
    let mut out = format!("{}: {}", text(answer, "result"), text(answer, "message"));
    for list in ["findings", "warnings"] {
        for finding in answer[list].as_array().into_iter().flatten() {
            let place = match (finding["file"].as_str(), finding["line"].as_u64()) {
                (Some(file), Some(line)) => format!(" {}:{line}", safe(file)),
                (Some(file), None) => format!(" {}", safe(file)),
                _ => String::new(),
            };
            let said =
                finding["message"].as_str().or(finding["value"].as_str()).map(safe).unwrap_or_default();
            out.push_str(&format!(
                "\n  {} {}{place} {said}",
                text(finding, "severity"),
                text(finding, "reason_code")
            ));
            if let Some(snippet) = finding["snippet"].as_str() {
                out.push_str(&format!("\n      {}", safe(snippet)));
            }
        }
    }
    out
}

/// The folder as a gzip tar in an unnamed file: sorted, without `.git`.
fn pack(directory: &Path) -> Result<std::fs::File, Failure> {
    if !directory.join("pantry_package.yaml").is_file() {
        return Err(Failure::usage(
            "manifest_not_found",
            format!("{} has no pantry_package.yaml", directory.display()),
        ));
    }
    let file = tempfile::tempfile()?;
    let gzip = flate2::write::GzEncoder::new(std::io::BufWriter::new(file), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    tar.follow_symlinks(false);
    tar.mode(tar::HeaderMode::Deterministic);
    append(&mut tar, directory, Path::new(""))?;
    let file = tar.into_inner()?.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    (&file).rewind()?;
    Ok(file)
}

fn append<W: std::io::Write>(tar: &mut tar::Builder<W>, folder: &Path, below: &Path) -> Result<(), Failure> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        names.push(entry?.file_name());
    }
    names.sort();
    for name in names {
        if name == ".git" || name == "__pycache__" {
            continue;
        }
        let (path, inside) = (folder.join(&name), below.join(&name));
        let kind = fs_err::symlink_metadata(&path)?.file_type();
        if kind.is_dir() {
            tar.append_dir(&inside, &path)?;
            append(tar, &path, &inside)?;
        } else {
            tar.append_path_with_name(&path, &inside)?;
        }
    }
    Ok(())
}
