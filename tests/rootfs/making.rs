//! Assembling: sound, the same twice, without a trace of the machine, refused where it must be.

use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use pantry::rootfs::{
    AssembleOptions, Bundle, BundleSpec, LayerRole, assemble, check_directory, check_layout, export, list,
    show,
};
use tempfile::TempDir;

use crate::bench::{assemble_to, layout, pantry_binary, unpack};

#[test]
fn two_assemblies_have_the_same_digests_and_leave_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let first = assemble_to(&folder.path().join("one"), &folder.path().join("work"));
    let second = assemble_to(&folder.path().join("two"), &folder.path().join("other/work/folder"));
    println!("{second}");
    assert_eq!(first.bundle_digest, second.bundle_digest);
    let left: Vec<_> = std::fs::read_dir(folder.path().join("work")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_is_assembled_passes_the_check_as_layers_and_unpacked() {
    let spec = BundleSpec::built_in().unwrap();
    let report = check_layout(layout(), &spec).unwrap();
    assert!(report.passed(), "{report}");
    println!("{report}");
    let root = unpack(layout());
    let report = check_directory(root.path(), &spec).unwrap();
    assert!(report.passed(), "{report}");
}

#[test]
fn the_bundle_tells_what_it_is_and_lists_every_entry() {
    let bundle = Bundle::open_layout(layout()).unwrap();
    let shown = show(&bundle).unwrap();
    println!("{shown}");
    assert_eq!(bundle.layers().iter().map(|layer| layer.role).collect::<Vec<_>>(), LayerRole::ALL);
    assert!(bundle.python_version().starts_with("3."));
    let mut paths = Vec::new();
    list(&bundle, &mut |entry| paths.push((entry.layer, entry.path))).unwrap();
    assert_eq!(paths.len() as u64, shown.entries);
    for (role, path) in [
        (LayerRole::Runtime, "/usr/bin/python3"),
        (LayerRole::Runtime, "/etc/ssl/certs/ca-certificates.crt"),
        (LayerRole::Runtime, "/var/lib/pantry"),
        (LayerRole::Tools, "/usr/bin/git"),
        (LayerRole::Tools, "/usr/bin/uv"),
        (LayerRole::Pantry, "/usr/bin/pantry"),
    ] {
        assert!(paths.contains(&(role, path.to_owned())), "{path} isn't in {role:?}");
    }
    // A layer can be unpacked alone: every folder above an entry comes with it, before it.
    for (role, path) in &paths {
        let parent = Path::new(path).parent().unwrap();
        let here = paths.iter().position(|other| other == &(*role, path.clone()));
        let above = paths.iter().position(|other| other == &(*role, parent.display().to_string()));
        assert!(parent == Path::new("/") || above < here && above.is_some(), "{role:?} {path}");
    }
}

#[test]
fn no_path_of_the_place_of_work_is_in_any_file() {
    let folder = TempDir::new().unwrap();
    let work = folder.path().join("a-place-of-work");
    let out = folder.path().join("layout");
    assemble_to(&out, &work);
    let bundle = Bundle::open_layout(&out).unwrap();
    for layer in bundle.layers() {
        let mut tar = tar::Archive::new(GzDecoder::new(bundle.layer_reader(layer).unwrap()));
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            let needle = b"a-place-of-work";
            assert!(!content.windows(needle.len()).any(|window| window == needle), "{path}");
            let header = entry.header();
            assert_eq!(
                (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()),
                (0, 0, 0),
                "{path}"
            );
        }
    }
}

#[test]
fn an_export_is_the_same_bundle() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("copy");
    let bundle = Bundle::open_layout(layout()).unwrap();
    export(&bundle, &out).unwrap();
    let copy = Bundle::open_layout(&out).unwrap();
    assert_eq!(copy.manifest_digest(), bundle.manifest_digest());
    copy.verify().unwrap();
    assert_eq!(export(&bundle, &out).unwrap_err().code(), "rootfs_output_exists");
}

#[test]
fn assembling_is_refused_with_a_code_and_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("layout");
    let script = folder.path().join("uv");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let try_with = |yaml: &dyn Fn(String) -> String, uv: &Path| {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("rootfs/bundle.yaml"))
            .unwrap();
        let spec = BundleSpec::parse(&yaml(text)).unwrap();
        let refused = assemble(&AssembleOptions {
            spec: &spec,
            pantry_binary: pantry_binary(),
            out: &out,
            work: &folder.path().join("work"),
            uv: Some(PathBuf::from(uv)),
            progress: &|_| (),
        })
        .unwrap_err();
        assert!(!out.exists());
        assert_eq!(std::fs::read_dir(folder.path().join("work")).unwrap().count(), 0);
        refused
    };
    let git = Path::new("/usr/bin/git");
    let refused = try_with(&|yaml| yaml.replace("/usr/bin/python3\n", "/usr/bin/python9\n"), git);
    assert_eq!(refused.code(), "rootfs_file_missing");
    assert!(refused.hint().unwrap().contains("python3"));
    let refused = try_with(&|yaml| yaml, &script);
    assert_eq!(refused.code(), "rootfs_program_unusable");
    let refused = try_with(&|yaml| yaml.replace("    - /usr/bin/git\n", ""), git);
    assert_eq!(refused.code(), "rootfs_check_failed");
}
