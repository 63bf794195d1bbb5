//! `pantry pull`: fetches an image from a registry into files.

use serde_json::{Value, json};

use super::arguments::{Global, Pull};
use super::connection;
use super::failure::Failure;
use super::images::{
    Descriptor, Destination, Document, Name, Platform, Progress, REF_NAME, Reads as _, Registry,
    SOURCE_PREFIX,
};
use super::images::{amount, choose, copy_in, walk};
use super::output::{print, text};

pub(super) async fn run(global: &Global, options: &Pull) -> Result<(), Failure> {
    let name = Name::parse(&options.name)?;
    let connection = connection::of(global, &options.registry, &name)?;
    let destination = Destination::create(&options.destination)?;
    let registry = Registry::to_pull(&name.registry, &name.repository, &connection)?;

    let platform = options.platform.clone().unwrap_or_else(Platform::here);
    let mut root = if options.all {
        named(&registry, &name).await?.0
    } else {
        wanted(&registry, &name, &platform).await?
    };
    let graph = walk(&registry, root.clone()).await?;
    let progress = Progress::new(global);
    let tally = copy_in(&registry, &graph, &destination, &progress).await?;

    root.annotations = None;
    root.annotate(format!("{SOURCE_PREFIX}{}", registry.host()), name.repository.as_str());
    if let Some(tag) = &name.tag {
        root.annotate(REF_NAME, tag.as_str());
    }
    let answer = json!({
        "reference": name.to_string(),
        "digest": root.digest,
        "destination": options.destination,
        "manifests": graph.documents.len(),
        "blobs": tally,
    });
    destination.finish(vec![root]).await?;
    print(global, &answer, view)
}

/// What a name stands for in its registry, with its bytes.
async fn named(registry: &Registry, name: &Name) -> Result<(Descriptor, Vec<u8>), Failure> {
    let (bytes, kind) = registry.manifest(&name.reference).await?;
    let mut root = Descriptor::of(&kind, &bytes);
    if let Ok(digest) = crate::names::Digest::parse(&name.reference) {
        root.digest = digest;
    }
    Ok((root, bytes))
}

/// The image that a name stands for; of one for many platforms that for this platform.
pub(super) async fn wanted(
    registry: &Registry,
    name: &Name,
    platform: &Platform,
) -> Result<Descriptor, Failure> {
    let (mut root, bytes) = named(registry, name).await?;
    if let Document::Index(images) = Document::parse(&root.media_type, &bytes)? {
        root = choose(&images, platform)?.clone();
        if root.media_type.is_empty() {
            root.media_type = type_of_child(registry, &root).await?;
        }
    }
    Ok(root)
}

/// The type of a document whose index does not tell it.
async fn type_of_child(registry: &Registry, child: &Descriptor) -> Result<String, Failure> {
    let bytes = registry.document(child).await?;
    Ok(super::images::type_of(child, &bytes))
}

fn view(answer: &Value) -> String {
    let blobs = &answer["blobs"];
    format!(
        "{}\n{}\n{} fetched ({}) into {}",
        text(answer, "reference"),
        text(answer, "digest"),
        text(blobs, "transferred"),
        amount(blobs["bytes"].as_u64().unwrap_or_default()),
        text(answer, "destination"),
    )
}
