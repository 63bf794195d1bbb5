//! What the other files share: one assembled layout, and ways to unpack and to damage it.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use flate2::read::GzDecoder;
use pantry::rootfs::{AssembleOptions, AssembleReport, BundleSpec, assemble};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

pub fn pantry_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_pantry"))
}

pub fn assemble_to(out: &Path, work: &Path) -> AssembleReport {
    let spec = BundleSpec::built_in().unwrap();
    assemble(&AssembleOptions {
        spec: &spec,
        // A small program: what the third layer holds doesn't matter here, and a build for debugging is large.
        pantry_binary: Path::new("/usr/bin/true"),
        out,
        work,
        uv: Some(PathBuf::from("/usr/bin/git")),
        progress: &|_| (),
    })
    .unwrap_or_else(|error| panic!("{error}\n{error:#?}"))
}

/// One layout for every test that only reads it. The folder is removed when the process ends.
pub fn layout() -> &'static Path {
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    SHARED.get_or_init(|| {
        // Statics aren't dropped: the folder lies below the target directory and each run starts it anew.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rootfs-shared");
        let _ = fs::remove_dir_all(&folder);
        let out = folder.join("layout");
        assemble_to(&out, &folder.join("work"));
        out
    })
}

pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

pub fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
}

pub fn copy_folder(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Unpacks every layer, lowest first.
pub fn unpack(layout: &Path) -> TempDir {
    let folder = TempDir::new().unwrap();
    let manifest = manifest(layout);
    for layer in manifest["layers"].as_array().unwrap() {
        let status = Command::new("tar")
            .args(["-xzpf"])
            .arg(blob(layout, layer["digest"].as_str().unwrap()))
            .arg("-C")
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(status.success());
    }
    folder
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub fn manifest(layout: &Path) -> Value {
    let index = read_json(&layout.join("index.json"));
    read_json(&blob(layout, index["manifests"][0]["digest"].as_str().unwrap()))
}

/// One entry to plant.
pub struct Plant {
    pub path: &'static str,
    pub kind: tar::EntryType,
    pub mode: u32,
    pub content: Vec<u8>,
    pub target: &'static str,
}

pub fn file(path: &'static str, mode: u32, content: &[u8]) -> Plant {
    Plant { path, kind: tar::EntryType::Regular, mode, content: content.to_vec(), target: "" }
}

pub fn link(path: &'static str, target: &'static str) -> Plant {
    Plant { path, kind: tar::EntryType::Symlink, mode: 0o777, content: Vec::new(), target }
}

/// A copy of the shared layout whose last layer has more entries, every digest of which is right.
pub fn planted(plants: &[Plant]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let layout_copy = folder.path().join("layout");
    copy_folder(layout(), &layout_copy);
    let mut index = read_json(&layout_copy.join("index.json"));
    let mut manifest = manifest(&layout_copy);
    let mut config = read_json(&blob(&layout_copy, manifest["config"]["digest"].as_str().unwrap()));

    let old = fs::read(blob(&layout_copy, manifest["layers"][2]["digest"].as_str().unwrap())).unwrap();
    let mut archive = tar::Archive::new(GzDecoder::new(&old[..]));
    let mut builder = tar::Builder::new(Vec::new());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        builder.append(&header, &content[..]).unwrap();
    }
    for plant in plants {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(plant.kind);
        header.set_mode(plant.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(plant.content.len() as u64);
        if plant.target.is_empty() {
            builder.append_data(&mut header, plant.path, &plant.content[..]).unwrap();
        } else {
            builder.append_link(&mut header, plant.path, plant.target).unwrap();
        }
    }
    let tar = builder.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &tar).unwrap();
    let layer = gzip.finish().unwrap();

    let put = |bytes: &[u8], descriptor: &mut Value| {
        fs::write(blob(&layout_copy, &digest(bytes)), bytes).unwrap();
        descriptor["digest"] = digest(bytes).into();
        descriptor["size"] = bytes.len().into();
    };
    put(&layer, &mut manifest["layers"][2]);
    config["rootfs"]["diff_ids"][2] = digest(&tar).into();
    put(&serde_json::to_vec(&config).unwrap(), &mut manifest["config"]);
    put(&serde_json::to_vec(&manifest).unwrap(), &mut index["manifests"][0]);
    fs::write(layout_copy.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    folder
}
