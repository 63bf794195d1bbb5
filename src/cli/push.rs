//! `pantry push`: sends an image from files to a registry.

use serde_json::{Value, json};

use super::arguments::{Global, Push};
use super::connection;
use super::failure::Failure;
use super::images::{Descriptor, Name, Platform, Progress, REF_NAME, Registry, SOURCE_PREFIX, Source};
use super::images::{amount, choose, copy_out, walk};
use super::output::{print, safe, text};

pub(super) async fn run(global: &Global, options: &Push) -> Result<(), Failure> {
    let name = Name::parse(&options.name)?;
    let connection = connection::of(global, &options.registry, &name)?;
    let mut source = Source::open(&options.source).await?;
    let mut root = wanted(&mut source, options, &name)?;
    let origin = root.annotation(&format!("{SOURCE_PREFIX}{}", name.registry)).map(str::to_owned);
    if let Some(platform) = &options.platform {
        root = one_of(&source, root, platform).await?;
    }
    let graph = walk(&source, root).await?;
    let (root, bytes) = graph.root();
    if name.reference.contains(':') && name.reference != root.digest.to_string() {
        let detail = format!("the image is {}, which its name contradicts", root.digest);
        return Err(Failure::usage("digest_mismatch", detail));
    }
    let registry = Registry::to_push(&name.registry, &name.repository, origin.as_slice(), &connection)?;
    let progress = Progress::new(global);
    let tally = copy_out(&source, &graph, &registry, &name.reference, origin.as_deref(), &progress).await?;
    let answer = json!({
        "reference": name.to_string(),
        "digest": root.digest,
        "size": bytes.len(),
        "manifests": graph.documents.len(),
        "blobs": tally,
    });
    print(global, &answer, view)
}

/// The image that is meant, of those in the source.
fn wanted(source: &mut Source, options: &Push, name: &Name) -> Result<Descriptor, Failure> {
    let images = source.images();
    if options.all && images.len() > 1 {
        return Ok(source.whole());
    }
    let named = |reference: &str| {
        images.iter().find(|image| image.annotation(REF_NAME).is_some_and(|own| is_called(own, reference)))
    };
    let found = match (&options.r#ref, images) {
        (Some(reference), _) => named(reference),
        (None, [one]) => Some(one),
        (None, images) => {
            // Images of one name for several machines are told apart by --platform.
            let by_platform = options.platform.as_ref().and_then(|platform| choose(images, platform).ok());
            by_platform.or_else(|| name.tag.as_deref().and_then(named))
        }
    };
    found.cloned().ok_or_else(|| {
        let there: Vec<String> =
            images.iter().filter_map(|image| image.annotation(REF_NAME)).map(safe).collect();
        let detail = match &options.r#ref {
            Some(reference) => format!("the source has no image {:?}", safe(reference)),
            None if images.is_empty() => "the source has no image".to_owned(),
            None => "the source has several images".to_owned(),
        };
        let hint = format!("choose by --ref or --platform, or take --all; there is: {}", there.join(", "));
        Failure::usage("image_not_chosen", detail).with_hint(Some(hint))
    })
}

/// `name:tag` answers to its tag as well.
fn is_called(own: &str, reference: &str) -> bool {
    own == reference || own.rsplit_once(':').is_some_and(|(_, tag)| tag == reference)
}

/// The image for a platform; what is no index is for whatever it is for.
async fn one_of(source: &Source, root: Descriptor, platform: &Platform) -> Result<Descriptor, Failure> {
    use super::images::{Document, Reads as _};
    let bytes = source.document(&root).await?;
    match Document::parse(&root.media_type, &bytes)? {
        Document::Index(images) => choose(&images, platform).cloned(),
        Document::Image(_) => Ok(root),
    }
}

fn view(answer: &Value) -> String {
    let blobs = &answer["blobs"];
    format!(
        "{}\n{}\n{} sent ({}), {} already there, {} mounted",
        text(answer, "reference"),
        text(answer, "digest"),
        text(blobs, "transferred"),
        amount(blobs["bytes"].as_u64().unwrap_or_default()),
        text(blobs, "present"),
        text(blobs, "mounted"),
    )
}
