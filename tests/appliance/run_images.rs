//! `pantry run` on images: from files and from registries, whole or not at all.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::accounts::Account;
use super::images::text;
use super::run_command::{Place, refused, said};
use super::support::{Server, bundle, digest, is_root, show, skip};

/// A blob of a layout.
fn keep(layout: &Path, bytes: &[u8], kind: &str) -> Value {
    let digest = digest(bytes);
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    std::fs::write(layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:")), bytes).unwrap();
    json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
}

fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
    let hex = descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:");
    std::fs::read(layout.join("blobs/sha256").join(hex)).unwrap()
}

/// An uncompressed layer of these files: name, mode, content.
fn layer(files: &[(&str, u32, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        // As it is: no way is a wrong one here.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// What the image says when it runs.
const MAIN: &str = r"
import os, sys
print(os.environ['GREETING'], os.getcwd(), sys.argv[1:], sorted(os.listdir('/opt/data')))
print(os.path.exists('/srv/old'), oct(os.stat('/srv/marked').st_mode & 0o7777))
";

/// An image of three layers: what Pantry carries, files, and a layer that removes and replaces some of them.
fn image(layout: &Path) -> Value {
    let files = layer(&[
        ("srv/main.py", 0o644, MAIN),
        ("srv/old", 0o644, "old"),
        ("srv/marked", 0o4755, "setuid"),
        ("opt/data/one", 0o644, "1"),
    ]);
    let changes = layer(&[
        ("srv/.wh.old", 0o644, ""),
        ("opt/data/.wh..wh..opq", 0o644, ""),
        ("opt/data/two", 0o644, "2"),
    ]);
    on_the_base(layout, &files, &changes)
}

/// An image of what Pantry carries and two layers on it.
fn on_the_base(layout: &Path, lower: &[u8], upper: &[u8]) -> Value {
    let bundle = bundle();
    let index: Value = serde_json::from_slice(&std::fs::read(bundle.join("index.json")).unwrap()).unwrap();
    let manifest: Value = serde_json::from_slice(&blob(&bundle, &index["manifests"][0])).unwrap();
    let config: Value = serde_json::from_slice(&blob(&bundle, &manifest["config"])).unwrap();
    let base =
        keep(layout, &blob(&bundle, &manifest["layers"][0]), "application/vnd.oci.image.layer.v1.tar+gzip");
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let layers = [base, keep(layout, lower, kind), keep(layout, upper, kind)];
    let diff_ids = [config["rootfs"]["diff_ids"][0].clone(), digest(lower).into(), digest(upper).into()];
    finish(layout, &layers, &diff_ids)
}

/// Writes the documents of an image; gives the manifest's descriptor.
fn finish(layout: &Path, layers: &[Value], diff_ids: &[Value]) -> Value {
    let config = json!({ "architecture": "amd64", "os": "linux",
        "config": { "Env": ["PATH=/usr/bin", "GREETING=hello"], "Entrypoint": ["python3", "main.py"], "Cmd": ["--given"],
            "WorkingDir": "/srv/" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = keep(layout, config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers });
    let manifest = keep(layout, manifest.to_string().as_bytes(), kind);
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    manifest
}

const EXPECTED: &str = "hello /srv ['--given'] ['two']\nFalse 0o755";

fn kept(place: &Place) -> usize {
    let images = place.root().join("run-images/images");
    std::fs::read_dir(images).map_or(0, Iterator::count)
}

#[test]
fn an_image_in_files_runs_as_it_says_and_is_unpacked_once() {
    let place = Place::empty();
    let layout = place.path().join("layout");
    image(&layout);
    let first = place.run(&["--root-fs", text(&layout)]);
    assert_eq!(said(&first), EXPECTED);
    assert!(show(&first).contains("unpacking 3 layers"), "{}", show(&first));
    // The same in one file, found by its digest; and with a program of the caller's own.
    let archive = place.path().join("layout.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&archive).unwrap());
    tar.append_dir_all(".", &layout).unwrap();
    tar.into_inner().unwrap();
    let second = place.run(&["--root-fs", text(&archive)]);
    assert_eq!(said(&second), EXPECTED);
    assert!(!show(&second).contains("unpacking"), "{}", show(&second));
    let own = ["--root-fs", text(&layout), "--env", "GREETING=ahoy", "--cwd", "/", "--"];
    let own = place.run(&[&own[..], &["python3", "/srv/main.py"]].concat());
    assert_eq!(said(&own), "ahoy / [] ['two']\nFalse 0o755");
    assert_eq!(kept(&place), 1);
}

#[test]
fn an_image_that_deletes_much_brings_nothing_back() {
    let place = Place::empty();
    let layout = place.path().join("layout");
    // Their names together are longer than what is kept of a program's output otherwise.
    let names: Vec<String> = (0..4000).map(|number| format!("{}{number:04}", "n".repeat(80))).collect();
    let files: Vec<String> = names.iter().map(|name| format!("srv/many/{name}")).collect();
    let marks: Vec<String> = names.iter().map(|name| format!("srv/many/.wh.{name}")).collect();
    let program = "import os; print(os.listdir('/srv/many'))";
    let mut lower: Vec<_> = files.iter().map(|name| (name.as_str(), 0o644, "x")).collect();
    lower.push(("srv/many/kept", 0o644, "x"));
    let upper: Vec<_> = marks.iter().map(|name| (name.as_str(), 0o644, "")).collect();
    on_the_base(&layout, &layer(&lower), &layer(&upper));
    let run = place.run(&["--root-fs", text(&layout), "--", "python3", "-c", program]);
    assert_eq!(said(&run), "['kept']");
}

#[test]
fn an_ordinary_user_runs_images_too() {
    if !is_root() {
        return skip("an_ordinary_user_runs_images_too", "the whole suite runs without root already");
    }
    let place = Place::new(Account::Plain);
    let layout = place.path().join("layout");
    image(&layout);
    assert_eq!(said(&place.run(&["--root-fs", text(&layout)])), EXPECTED);
    assert_eq!(kept(&place), 1);
}

#[test]
fn an_image_of_a_registry_is_fetched_once() {
    let server = Server::start();
    let place = Place::empty();
    let layout = place.path().join("layout");
    let manifest = image(&layout);
    let name = format!("{}/local/run/app:1", server.address());
    let pushed =
        Account::Caller.command(super::support::PANTRY).args(["push", text(&layout), &name]).output();
    assert!(pushed.as_ref().unwrap().status.success(), "{}", show(&pushed.unwrap()));
    let first = place.run(&["--root-fs", &name]);
    assert_eq!(said(&first), EXPECTED);
    assert!(show(&first).contains("fetched"), "{}", show(&first));
    let second = place.run(&["--root-fs", &name]);
    assert_eq!(said(&second), EXPECTED);
    assert!(!show(&second).contains("fetched"), "{}", show(&second));
    let none = place.run(&["--root-fs", &format!("{}/local/run/none:1", server.address())]);
    assert!(none.status.code() == Some(5) && show(&none).contains("[manifest_unknown]"), "{}", show(&none));
    server.stop();
    // Its digest is all that is needed; a tag must be asked for.
    let pinned = format!("{}/local/run/app@{}", server.address(), manifest["digest"].as_str().unwrap());
    assert_eq!(said(&place.run(&["--root-fs", &pinned])), EXPECTED);
    refused(&place.run(&["--root-fs", &name]), 3, "registry_unreachable");
    assert_eq!(kept(&place), 1);
}

#[test]
fn an_image_that_is_not_as_it_says_is_refused_and_leaves_nothing() {
    let place = Place::empty();
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let layout = |name: &str, files: &[(&str, u32, &str)]| -> (PathBuf, Value, Value) {
        let layout = place.path().join(name);
        let bytes = layer(files);
        let descriptor = keep(&layout, &bytes, kind);
        (layout, descriptor, digest(&bytes).into())
    };
    let (out, descriptor, diff_id) = layout("out", &[("../../escaped", 0o644, "x")]);
    finish(&out, &[descriptor], &[diff_id]);
    let (other, descriptor, _) = layout("other", &[("a", 0o644, "x")]);
    finish(&other, &[descriptor], &[digest(b"other").into()]);
    let (changed, descriptor, diff_id) = layout("changed", &[("a", 0o644, "x")]);
    finish(&changed, std::slice::from_ref(&descriptor), &[diff_id]);
    let hex = descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    std::fs::write(changed.join("blobs/sha256").join(hex), layer(&[("a", 0o644, "y")])).unwrap();
    let (short, descriptor, _) = layout("short", &[("a", 0o644, "x")]);
    finish(&short, &[descriptor], &[]);
    for (layout, exit, code) in [
        (&out, 4, "archive_entry_refused"),
        (&other, 1, "layer_diff_id_mismatch"),
        (&changed, 1, "digest_mismatch"),
        (&short, 4, "image_not_runnable"),
    ] {
        let output = place.run(&["--root-fs", text(layout), "--", "/a"]);
        assert_eq!(output.status.code(), Some(exit), "{}", show(&output));
        assert!(show(&output).contains(&format!("[{code}]")), "{code}: {}", show(&output));
        assert_eq!(kept(&place), 0);
        let trees = std::fs::read_dir(place.root().join("run-images/trees"));
        let trees: Vec<_> = trees.into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
        assert!(trees.iter().all(|name| name == ".lock"), "{trees:?}");
    }
    assert!(!place.path().join("escaped").exists() && !place.root().join("escaped").exists());
}
