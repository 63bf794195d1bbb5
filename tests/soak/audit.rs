//! The last look: everything that was acknowledged is there, byte for byte, and nothing else is.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;

use super::model::{digest_of, is_name_of};
use super::reading::{ask_for_manifest, list, pull, referrers};
use super::server::Server;
use super::wire::Ask;
use super::worker::Worker;

/// How long after the grace collection may take to remove what is left.
const PATIENCE: Duration = Duration::from_secs(45);

/// Waits until the rules have been applied everywhere.
pub fn retention_has_run(worker: &mut Worker<'_>) -> anyhow::Result<()> {
    (0..worker.repositories.len()).try_for_each(|at| worker.await_retention(at, PATIENCE))
}

/// Reads everything that must be there, and asks for what must not.
pub fn everything_is_there(worker: &mut Worker<'_>, grace: Duration) -> anyhow::Result<u64> {
    let (wire, mut read) = (&mut worker.wire, 0);
    for repository in &worker.repositories {
        let name = &repository.name;
        list(wire, repository)?;
        for (digest, held) in &repository.manifests {
            read += pull(wire, repository, digest, digest, held)?;
        }
        for (tag, digest) in &repository.tags {
            pull(wire, repository, tag, digest, &repository.manifests[digest])?;
        }
        for subject in &repository.subjects {
            referrers(wire, repository, subject, None)?;
        }
        for (digest, blob) in &repository.blobs {
            let ask = Ask::new(Method::GET, format!("/v2/{name}/blobs/{digest}"));
            let answer = wire.until_answered(&ask)?.expect(&[200, 404], "GET of a blob")?;
            if answer.status == 404 {
                let early = repository.must_hold(digest, answer.answered, grace);
                ensure!(!early, "{digest} of {name} is gone");
            } else {
                ensure!(answer.body.len() == blob.content.size, "{digest} of {name} has another size");
                ensure!(is_name_of(digest, &answer.body), "the bytes of {digest} of {name} are others");
                read += 1;
            }
        }
        for gone in &repository.gone {
            let what = format!("GET of {gone} of {name}, which was deleted");
            wire.until_answered(&ask_for_manifest(name, gone))?.expect(&[404], &what)?;
        }
    }
    Ok(read)
}

/// What the server counts is what there is; only where nobody else writes.
pub fn the_counters_agree(worker: &mut Worker<'_>) -> anyhow::Result<()> {
    for repository in &worker.repositories {
        let Some(root) = &repository.rules.root else { continue };
        let ask = Ask::new(Method::GET, format!("/v1/repositories/{root}"));
        let answer = worker.wire.until_answered(&ask)?.expect(&[200], "GET of a repository")?;
        let told: serde_json::Value = serde_json::from_slice(&answer.body)?;
        for (what, number) in [
            ("tags", repository.tags.len()),
            ("manifests", repository.manifests.len()),
            ("blobs", repository.blobs.len()),
        ] {
            ensure!(told[what] == number, "{} has {number} {what}: {told}", repository.name);
        }
    }
    Ok(())
}

/// Deletes every blob that no manifest keeps.
pub fn let_go_of_loose_ones(worker: &mut Worker<'_>) -> anyhow::Result<()> {
    for repository in &mut worker.repositories {
        for digest in repository.loose() {
            let path = format!("/v2/{}/blobs/{digest}", repository.name);
            let answer = worker.wire.until_answered(&Ask::new(Method::DELETE, path))?;
            answer.expect(&[202, 404], "DELETE of a blob")?;
            repository.blobs.remove(&digest);
        }
    }
    Ok(())
}

/// The files of blobs below a root.
pub fn files(root: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for folder in std::fs::read_dir(root.join("blobs/sha256"))? {
        for file in std::fs::read_dir(folder?.path())? {
            found.insert(format!("sha256:{}", file?.file_name().to_string_lossy()));
        }
    }
    Ok(found)
}

/// The files that must be left when everything that nobody keeps has been collected.
pub fn kept_files(workers: &[Worker<'_>], before: &BTreeSet<String>) -> BTreeSet<String> {
    let repositories = workers.iter().flat_map(|worker| &worker.repositories);
    let manifests = repositories.flat_map(|repository| repository.manifests.values());
    before.iter().chain(manifests.flat_map(|held| &held.files)).cloned().collect()
}

/// Waits until collection has removed all else.
pub fn nothing_else_is_left(
    server: &Server,
    wanted: &BTreeSet<String>,
    grace: Duration,
) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let found = files(&server.root)?;
        if let Some(missing) = wanted.difference(&found).next() {
            bail!("the file of {missing} is missing");
        }
        if found.len() == wanted.len() {
            break;
        }
        let strangers: Vec<_> = found.difference(wanted).take(5).collect();
        ensure!(
            began.elapsed() < grace + PATIENCE,
            "{} files are left that nobody keeps, such as {strangers:?}",
            found.len() - wanted.len(),
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    for folder in ["uploads", "tmp"] {
        let left =
            std::fs::read_dir(server.root.join(folder)).with_context(|| format!("no {folder}"))?.count();
        ensure!(left == 0, "{left} files are left in {folder}");
    }
    Ok(())
}

/// Every file that is left holds what its name says.
pub fn files_are_true(root: &Path) -> anyhow::Result<()> {
    for digest in files(root)? {
        let hex = &digest["sha256:".len()..];
        let bytes = std::fs::read(root.join("blobs/sha256").join(&hex[..2]).join(hex))?;
        ensure!(digest_of(&bytes) == digest, "the file of {digest} holds other bytes");
    }
    Ok(())
}

/// Asks the program itself: a collection without any grace would find nothing, every byte is as it was, and records,
/// references and files fit together.
pub fn the_program_agrees(server: &Server) -> anyhow::Result<()> {
    for command in [&["gc", "--dry-run", "--grace", "0"][..], &["verify"], &["repair"]] {
        let arguments: Vec<&str> = ["--output", "json"].iter().chain(command).copied().collect();
        let began = Instant::now();
        let (output, said) = loop {
            let output = server.command(&arguments)?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            // A run that the last end of the server interrupted goes on first.
            if !said.is_empty() || began.elapsed() > PATIENCE {
                break (output, said);
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        // What a command finds wrong is told after its report.
        let mut documents = serde_json::Deserializer::from_str(&said).into_iter::<serde_json::Value>();
        let report = documents.next().and_then(Result::ok).with_context(|| {
            format!("pantry {command:?} says no JSON: {said}{}", String::from_utf8_lossy(&output.stderr))
        })?;
        let strangers = report["counts"]["strangers"].as_u64().unwrap_or_default();
        ensure!(
            output.status.success() && report["found"] == 0 && strangers == 0,
            "pantry {command:?} finds something: {said}"
        );
    }
    Ok(())
}
