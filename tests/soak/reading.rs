//! Looking at a repository, and comparing everything with the model.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use reqwest::Method;

use super::model::{Manifest, Repository, is_name_of};
use super::wire::{Ask, Wire};

pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Asks for a manifest.
pub fn ask_for_manifest(repository: &str, reference: &str) -> Ask {
    let path = format!("/v2/{repository}/manifests/{reference}");
    Ask::new(Method::GET, path).header("accept", format!("{IMAGE}, {INDEX}"))
}

/// Pulls a manifest and all that it names, and compares every byte; what the repository does not hold must not be
/// there. Gives how many contents were read.
pub fn pull(
    wire: &mut Wire<'_>,
    repository: &Repository,
    reference: &str,
    digest: &str,
    held: &Manifest,
) -> anyhow::Result<u64> {
    let (name, document) = (&repository.name, &held.document);
    let answer = wire
        .until_answered(&ask_for_manifest(name, reference))?
        .expect(&[200], &format!("GET of {name}:{reference}, {digest}"))?;
    ensure!(answer.body == document.bytes, "{name}:{reference} is not what was put as {digest}");
    ensure!(
        answer.header("docker-content-digest") == Some(digest),
        "{name}:{reference} is not named {digest}"
    );
    ensure!(
        answer.header("content-type") == Some(document.media_type),
        "{digest} of {name} has another media type"
    );
    let mut read = 1;
    for named in &document.blobs {
        let here = repository.blobs.contains_key(named);
        let ask = Ask::new(Method::GET, format!("/v2/{name}/blobs/{named}"));
        let what = format!("GET of {named}, which {digest} of {name} names");
        let answer = wire.until_answered(&ask)?.expect(if here { &[200] } else { &[404] }, &what)?;
        ensure!(!here || is_name_of(named, &answer.body), "the bytes of {named} are others");
        read += u64::from(here);
    }
    for child in document.children.iter().filter(|child| !repository.doubtful.contains_key(*child)) {
        let ask = Ask { method: Method::HEAD, ..ask_for_manifest(name, child) };
        let allowed: &[u16] = if repository.manifests.contains_key(child) { &[200] } else { &[404] };
        wire.until_answered(&ask)?
            .expect(allowed, &format!("HEAD of {child}, which {digest} of {name} lists"))?;
    }
    Ok(read)
}

/// Compares the list of tags with the model; gives it.
pub fn list(wire: &mut Wire<'_>, repository: &Repository) -> anyhow::Result<BTreeSet<String>> {
    let name = &repository.name;
    let answer = wire.until_answered(&Ask::new(Method::GET, format!("/v2/{name}/tags/list")))?;
    // Without anything in it the repository may be unknown.
    let allowed: &[u16] = if repository.manifests.is_empty() { &[200, 404] } else { &[200] };
    let answer = answer.expect(allowed, &format!("the list of tags of {name}"))?;
    if answer.status == 404 {
        return Ok(BTreeSet::new());
    }
    let document: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let listed: Vec<String> = serde_json::from_value(document["tags"].clone())?;
    let sorted: BTreeSet<String> = listed.iter().cloned().collect();
    ensure!(sorted.iter().eq(&listed), "{name}: the tags are not in order: {document}");
    let known = &repository.tags;
    if let Some((tag, digest)) = known.iter().find(|(tag, _)| !sorted.contains(*tag)) {
        anyhow::bail!("{name}: the tag {tag} of {digest} is not listed: {document}");
    }
    if let Some(tag) =
        sorted.iter().find(|tag| !known.contains_key(*tag) && !repository.fading.contains_key(*tag))
    {
        anyhow::bail!("{name}: the tag {tag} is listed and must not be there: {document}");
    }
    Ok(sorted)
}

/// Compares the index of referrers of a manifest with the model, whole or of one type.
pub fn referrers(
    wire: &mut Wire<'_>,
    repository: &Repository,
    subject: &str,
    of_type: Option<&str>,
) -> anyhow::Result<()> {
    let name = &repository.name;
    let filter = of_type.map(|one| format!("?artifactType={one}")).unwrap_or_default();
    let ask = Ask::new(Method::GET, format!("/v2/{name}/referrers/{subject}{filter}"));
    let answer = wire.until_answered(&ask)?.expect(&[200], "the referrers")?;
    ensure!(
        of_type.is_none() || answer.header("oci-filters-applied") == Some("artifactType"),
        "the referrers of {subject} in {name} were not filtered"
    );
    let document: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let entries = document["manifests"].as_array().context("the index of referrers has no list")?;
    let (must, may) = repository.referrers(subject);
    let mut seen = BTreeSet::new();
    for entry in entries {
        let digest = entry["digest"].as_str().unwrap_or_default().to_owned();
        let Some(known) = must.get(&digest) else {
            ensure!(may.contains(&digest), "{digest} is told as a referrer of {subject} in {name}");
            continue;
        };
        ensure!(
            entry["size"] == known.bytes.len()
                && entry["mediaType"] == known.media_type
                && entry["artifactType"].as_str() == known.artifact_type,
            "{digest}, about {subject} in {name}, is told as {entry}"
        );
        ensure!(seen.insert(digest), "a referrer of {subject} in {name} is told twice: {entry}");
    }
    let wanted = must.iter().filter(|(_, document)| of_type.is_none() || document.artifact_type == of_type);
    for (digest, _) in wanted {
        ensure!(seen.contains(*digest), "{digest}, about {subject}, is not told as its referrer in {name}");
    }
    Ok(())
}
