//! The last look: everything that was acknowledged is there, byte for byte, and nothing else is.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;

use super::model::digest_of;
use super::server::Server;
use super::wire::Ask;
use super::worker::{Worker, list, pull};

/// Content of at most this many bytes lives in the state file.
const INLINE_BYTES: usize = 32 * 1024;
/// How long after the grace collection may take to remove what is left.
const PATIENCE: Duration = Duration::from_secs(45);

/// Reads everything that must be there, and asks for what must not.
pub fn everything_is_there(worker: &mut Worker<'_>, grace: Duration) -> anyhow::Result<u64> {
    let mut read = 0;
    for repository in &worker.repositories {
        list(&mut worker.wire, repository)?;
        for (digest, manifest) in &repository.manifests {
            pull(&mut worker.wire, repository, digest, digest, manifest)?;
            read += 1 + manifest.keeps.len() as u64;
        }
        for (tag, digest) in &repository.tags {
            pull(&mut worker.wire, repository, tag, digest, &repository.manifests[digest])?;
        }
        for (digest, blob) in &repository.blobs {
            let ask = Ask::new(Method::GET, format!("/v2/{}/blobs/{digest}", repository.name));
            let answer = worker.wire.until_answered(&ask)?.expect(&[200, 404], "GET of a blob")?;
            if answer.status == 404 {
                let early = repository.must_hold(digest, answer.answered, grace);
                ensure!(!early, "{digest} of {} is gone", repository.name);
            } else {
                ensure!(answer.body.len() == blob.recipe.size, "{digest} has another size");
                ensure!(digest_of(&answer.body) == *digest, "the bytes of {digest} are others");
                read += 1;
            }
        }
        for gone in repository.gone.iter().filter(|gone| !repository.tags.contains_key(*gone)) {
            let ask = Ask::new(Method::GET, format!("/v2/{}/manifests/{gone}", repository.name));
            worker.wire.until_answered(&ask)?.expect(&[404], "GET of what was deleted")?;
        }
    }
    Ok(read)
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
    let mut kept = before.clone();
    for repository in workers.iter().flat_map(|worker| &worker.repositories) {
        for manifest in repository.manifests.values() {
            let large = |digest: &&String| repository.blobs[*digest].recipe.size > INLINE_BYTES;
            kept.extend(manifest.keeps.iter().filter(large).cloned());
        }
    }
    kept
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
            "{} files are left that nobody keeps, such as {strangers:?}:\n{}",
            found.len() - wanted.len(),
            server.log()
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
