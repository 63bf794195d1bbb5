//! Images from files and registries, on their way to being unpacked.

use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use super::kept::{Adding, Held, Image, Store};
use crate::cli::arguments::{Global, Run};
use crate::cli::client;
use crate::cli::connection;
use crate::cli::failure::Failure;
use crate::cli::images::{
    Descriptor, Destination, Document, Name, Piece, Platform, Progress, Reads as _, Registry, Source, choose,
    copy_in, missing, walk,
};
use crate::cli::output::say;
use crate::cli::pull;
use crate::names::Digest;
use crate::trees::LayerRef;

/// Indexes name indexes no deeper than this.
const DEPTH: usize = 4;

/// The image of an OCI layout, a tar of one, or a file of `docker save`.
pub(super) fn from_files(global: &Global, path: &Path) -> Result<Held, Failure> {
    let store = Store::open(&client::root(global))?;
    until_interrupted(async {
        let source = Source::open(path).await?;
        let manifest = only(&source).await?;
        if let Some(held) = store.find(&manifest.digest) {
            return Ok(held);
        }
        let adding = turn(global, store).await?;
        if let Some(held) = adding.find(&manifest.digest) {
            return Ok(held);
        }
        unpack(global, adding, &source, &manifest).await
    })
}

/// An image of a registry; what is there already is not fetched again, though a tag is asked for each time.
pub(super) fn from_registry(global: &Global, options: &Run, name: &Name) -> Result<Held, Failure> {
    let store = Store::open(&client::root(global))?;
    if let Ok(digest) = Digest::parse(&name.reference)
        && let Some(held) = store.find(&digest)
    {
        return Ok(held);
    }
    let connection = connection::of(global, &options.registry, name)?;
    until_interrupted(async {
        let registry = Registry::to_pull(&name.registry, &name.repository, &connection)?;
        let manifest = pull::wanted(&registry, name, &Platform::here()).await?;
        if let Some(held) = store.find(&manifest.digest) {
            return Ok(held);
        }
        let adding = turn(global, store).await?;
        if let Some(held) = adding.find(&manifest.digest) {
            return Ok(held);
        }
        let folder = tempfile::tempdir_in(adding.downloads())?;
        let layout = folder.path().join("image");
        let destination = Destination::create(&layout)?;
        let graph = walk(&registry, manifest.clone()).await?;
        copy_in(&registry, &graph, &destination, &Progress::new(global)).await?;
        destination.finish(vec![manifest.clone()]).await?;
        unpack(global, adding, &Source::open(&layout).await?, &manifest).await
    })
}

/// Runs something that a signal ends; what it has downloaded goes away with it.
fn until_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::local("runtime_unavailable", format!("cannot start: {error}")))?;
    let result = runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let interrupted = || Failure::local("interrupted", "interrupted; the image is not kept");
        tokio::select! {
            result = work => result,
            _ = terminate.recv() => Err(interrupted()),
            _ = interrupt.recv() => Err(interrupted()),
        }
    });
    if result.is_err() {
        // What unpacks at the moment ends with this process.
        runtime.shutdown_background();
    }
    result
}

/// The right to add an image; a long wait says what it waits for.
async fn turn(global: &Global, store: Store) -> Result<Adding, Failure> {
    if store.is_busy()? {
        say(global, "waiting until another `pantry run` has unpacked its image");
    }
    blocking(move || store.adding()).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::local("internal_error", error.to_string()))?
}

/// The image of a source, or the one for this machine.
async fn only(source: &Source) -> Result<Descriptor, Failure> {
    let mut images = source.images().to_vec();
    for _ in 0..DEPTH {
        let chosen = match images.as_slice() {
            [one] => one.clone(),
            several => choose(several, &Platform::here())?.clone(),
        };
        match Document::parse(&chosen.media_type, &source.document(&chosen).await?)? {
            Document::Image(_) => return Ok(chosen),
            Document::Index(inner) => images = inner,
        }
    }
    Err(Failure::rejected("manifest_not_valid", "the image has indexes in indexes"))
}

async fn unpack(
    global: &Global,
    adding: Adding,
    source: &Source,
    manifest: &Descriptor,
) -> Result<Held, Failure> {
    let bytes = source.document(manifest).await?;
    let blobs = match Document::parse(&manifest.media_type, &bytes)? {
        Document::Image(blobs) => blobs,
        Document::Index(_) => return Err(not_runnable("it is an index")),
    };
    let Some((config, layers)) = blobs.split_first() else { return Err(not_runnable("it has no layer")) };
    let config = source.document(config).await?;
    let image = image(manifest.digest.clone(), &config, layers)?;
    let mut readers: Vec<Box<dyn Read + Send>> = Vec::with_capacity(layers.len());
    for layer in layers {
        let piece = source.blob(&layer.digest)?.ok_or_else(|| missing(&layer.digest))?;
        readers.push(Box::new(PieceReader { piece, at: 0 }));
    }
    let (count, word) = (layers.len(), if layers.len() == 1 { "layer" } else { "layers" });
    say(global, &format!("unpacking {count} {word}, once"));
    blocking(move || adding.add(&image, readers)).await
}

fn not_runnable(why: &str) -> Failure {
    Failure::rejected("image_not_runnable", format!("this is no image of a root filesystem: {why}"))
        .with_hint(Some("name one that `docker run` would take".to_owned()))
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    config: Option<Start>,
    rootfs: RootFs,
}

/// *Source*: OCI image specification, image configuration, `config`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Start {
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    entrypoint: Option<Vec<String>>,
    #[serde(default)]
    cmd: Option<Vec<String>>,
    #[serde(default)]
    working_dir: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

fn image(digest: Digest, config: &[u8], layers: &[Descriptor]) -> Result<Image, Failure> {
    let configuration: Configuration = serde_json::from_slice(config)
        .map_err(|error| not_runnable(&format!("its configuration can't be read: {error}")))?;
    let diff_ids = configuration.rootfs.diff_ids;
    if diff_ids.len() != layers.len() || layers.is_empty() {
        return Err(not_runnable(&format!("it has {} layers and names {}", layers.len(), diff_ids.len())));
    }
    let layers = layers.iter().zip(diff_ids);
    let layers = layers.map(|(layer, diff_id)| LayerRef { digest: layer.digest.clone(), diff_id }).collect();
    let start = configuration.config.unwrap_or_default();
    let mut image = Image::bare(digest, layers);
    image.argv = [start.entrypoint, start.cmd].into_iter().flatten().flatten().collect();
    let pairs = start.env.iter().flatten().filter_map(|text| text.split_once('='));
    let pairs = pairs.filter(|(name, _)| !name.is_empty());
    image.env = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // Written as people do, with a slash too many.
    image.cwd = Path::new("/").join(start.working_dir.unwrap_or_default()).components().collect::<PathBuf>();
    Ok(image)
}

/// Reads a piece from its beginning to its end.
struct PieceReader {
    piece: Piece,
    at: u64,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.piece.size - self.at).unwrap_or(usize::MAX);
        let want = left.min(buffer.len());
        let read = self.piece.file.read_at(&mut buffer[..want], self.piece.offset + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(config: &serde_json::Value) -> Result<Image, Failure> {
        let layers = [Descriptor::of("layer", b"one")];
        image(Digest::of(b"manifest"), config.to_string().as_bytes(), &layers)
    }

    #[test]
    fn an_image_says_how_it_wants_to_be_started() {
        let rootfs = serde_json::json!({ "type": "layers", "diff_ids": [Digest::of(b"diff")] });
        let config = serde_json::json!({ "rootfs": rootfs, "config": {
            "Env": ["PATH=/opt/bin", "EMPTY=", "nonsense", "=x"], "Entrypoint": ["/init", "-x"], "Cmd": ["serve"],
            "WorkingDir": "/srv/app/", "User": "root",
        }});
        let image = read(&config).unwrap();
        assert_eq!(image.argv, ["/init", "-x", "serve"]);
        assert_eq!(
            image.env.into_iter().collect::<Vec<_>>(),
            [("EMPTY".into(), String::new()), ("PATH".into(), "/opt/bin".into())]
        );
        assert_eq!(image.cwd.to_str(), Some("/srv/app"));
        assert_eq!(image.layers[0].diff_id, Digest::of(b"diff"));
        let image =
            read(&serde_json::json!({ "rootfs": rootfs, "config": { "Env": null, "Cmd": null } })).unwrap();
        assert_eq!((image.argv.len(), image.cwd.to_str()), (0, Some("/")));
        for bad in [
            serde_json::json!({}),
            serde_json::json!({ "rootfs": { "diff_ids": [] } }),
            serde_json::json!({ "rootfs": { "diff_ids": ["sha256:../../x"] } }),
            serde_json::json!({ "rootfs": rootfs, "config": { "Cmd": "a string" } }),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_piece_is_read_to_its_end_and_no_further() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"before the piece after").unwrap();
        let piece = Piece { file: std::sync::Arc::new(file), offset: 7, size: 9 };
        let mut text = String::new();
        PieceReader { piece, at: 0 }.read_to_string(&mut text).unwrap();
        assert_eq!(text, "the piece");
    }
}
