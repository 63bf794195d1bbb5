//! One file: the payload in an executable, whole, altered, cut, stripped, taken off.

use std::path::{Path, PathBuf};
use std::process::Command;

use pantry::rootfs::{Bundle, RootfsError, embed, export, show, write_without_payload};
use tempfile::TempDir;

use crate::bench::{layout, pantry_binary};

struct Embedded {
    folder: TempDir,
    file: PathBuf,
}

fn embedded() -> Embedded {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("pantry");
    let report = embed(pantry_binary(), layout(), &file).unwrap();
    assert!(report.after_bytes > report.before_bytes);
    Embedded { folder, file }
}

fn runs(file: &Path) {
    let output = Command::new(file).arg("--version").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn open(file: &Path) -> Result<Bundle, RootfsError> {
    Bundle::open_executable(file).map(|bundle| bundle.expect("a bundle is there"))
}

#[test]
fn the_payload_is_the_layout_and_the_program_still_runs() {
    let it = embedded();
    runs(&it.file);
    let started = std::time::Instant::now();
    let bundle = open(&it.file).unwrap();
    println!("opened in {:?}", started.elapsed());
    assert!(bundle.is_embedded());
    assert_eq!(bundle.manifest_digest(), Bundle::open_layout(layout()).unwrap().manifest_digest());
    let started = std::time::Instant::now();
    bundle.verify().unwrap();
    println!("verified in {:?}", started.elapsed());
    println!("{}", show(&bundle).unwrap());
    export(&bundle, &it.folder.path().join("copy")).unwrap();
}

#[test]
fn a_program_without_a_payload_has_none() {
    assert!(Bundle::open_executable(pantry_binary()).unwrap().is_none());
    assert!(Bundle::open_embedded().unwrap().is_none());
    let folder = TempDir::new().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let refused = embed(&script, layout(), &folder.path().join("out")).unwrap_err();
    assert_eq!(refused.code(), "rootfs_executable_unusable");
    assert!(!folder.path().join("out").exists());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn taking_it_off_gives_the_very_file_and_embedding_again_replaces() {
    let it = embedded();
    let off = it.folder.path().join("off");
    write_without_payload(&it.file, &off).unwrap();
    assert!(std::fs::read(&off).unwrap() == std::fs::read(pantry_binary()).unwrap());
    runs(&off);
    let once = std::fs::read(&it.file).unwrap();
    embed(&it.file, layout(), &it.file).unwrap();
    assert!(std::fs::read(&it.file).unwrap() == once, "embedding twice isn't embedding once");
}

#[test]
fn an_altered_payload_is_found_before_use() {
    let it = embedded();
    let bytes = std::fs::read(&it.file).unwrap();
    let magic = bytes.windows(16).rposition(|window| window == b"PANTRY-BUNDLE-1\n").unwrap();
    let altered_at = |place: usize| {
        let mut altered = bytes.clone();
        altered[place] ^= 1;
        let file = it.folder.path().join("altered");
        std::fs::write(&file, altered).unwrap();
        file
    };
    for place in [magic + 16, magic + 30, magic + 70, magic + 255] {
        let refused = open(&altered_at(place)).unwrap_err();
        assert_eq!(refused.code(), "rootfs_payload_altered", "byte {place}: {refused}");
    }
    // Somewhere in the index: the tar begins with the layout's mark and its index.
    let index = bytes.windows(14).rposition(|window| window == b"{\"schemaVersio").unwrap();
    assert_eq!(open(&altered_at(index + 3)).unwrap_err().code(), "rootfs_payload_altered");
    // In the middle of a layer it shows when the layer is read, or when all is verified.
    let bundle = open(&altered_at(magic + (bytes.len() - magic) / 2)).unwrap();
    assert_eq!(bundle.verify().unwrap_err().code(), "rootfs_payload_altered");
    let broken = bundle.layers().iter().filter(|layer| {
        let mut stream = bundle.layer_reader(layer).unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).is_err()
    });
    assert_eq!(broken.count(), 1);
}

#[test]
fn a_cut_payload_is_found_before_use() {
    let it = embedded();
    let bytes = std::fs::read(&it.file).unwrap();
    let plain = std::fs::metadata(pantry_binary()).unwrap().len();
    let total = bytes.len() as u64;
    for length in [plain, plain + 300, plain + (total - plain) / 2, total - 2000, total - 1] {
        let file = it.folder.path().join("cut");
        std::fs::write(&file, &bytes[..usize::try_from(length).unwrap()]).unwrap();
        let refused = open(&file).unwrap_err();
        assert_eq!(refused.code(), "rootfs_payload_cut", "{length} of {total}: {refused}");
        assert!(refused.hint().is_some());
    }
}

#[test]
fn strip_is_survived() {
    let it = embedded();
    let digest = open(&it.file).unwrap().manifest_digest();
    let Ok(status) = Command::new("strip").arg(&it.file).status() else {
        println!("skipped: strip isn't installed");
        return;
    };
    assert!(status.success());
    runs(&it.file);
    let bundle = open(&it.file).unwrap();
    bundle.verify().unwrap();
    assert_eq!(bundle.manifest_digest(), digest);
    let off = it.folder.path().join("off");
    write_without_payload(&it.file, &off).unwrap();
    assert!(Bundle::open_executable(&off).unwrap().is_none());
    assert!(std::fs::metadata(&off).unwrap().len() < std::fs::metadata(pantry_binary()).unwrap().len());
    runs(&off);
}
