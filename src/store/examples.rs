//! The examples are what their table in `docs/rejections.md` says, as far as that is known without running them.

use std::path::{Path, PathBuf};

use super::manifest::{MANIFEST_FILE, parse_yaml};

fn examples() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found: Vec<(String, PathBuf)> = fs_err::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .filter(|(_, path)| path.join(MANIFEST_FILE).exists())
        .collect();
    found.sort();
    found
}

#[test]
fn every_manifest_of_an_example_is_without_a_fault() {
    let all = examples();
    assert!(all.len() >= 11, "{all:?}");
    for (name, path) in all {
        let manifest = parse_yaml(&fs_err::read(path.join(MANIFEST_FILE)).unwrap()).unwrap();
        assert_eq!(manifest.name.as_str(), name);
        for file in ["README.md", "LICENSE"] {
            assert!(path.join(file).is_file(), "{name} has no {file}");
        }
        for component in &manifest.components {
            assert!(path.join(&component.path).is_file(), "{name}: {}", component.path);
        }
    }
}

#[test]
fn every_broken_example_stands_in_the_table_with_a_known_code() {
    let document = include_str!("../../docs/rejections.md");
    for (name, _) in examples().into_iter().filter(|(name, _)| name.starts_with("broken-")) {
        let row = document.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let code = row.unwrap_or_else(|| panic!("{name} is not in the table")).split('|').nth(2).unwrap();
        let code = code.trim().trim_matches('`');
        assert!(super::ReasonCode::parse(code).is_some(), "{name}: {code}");
    }
}

#[test]
fn the_lockfile_of_its_example_is_over_the_cap() {
    let (_, path) = examples().into_iter().find(|(name, _)| name == "broken-lockfile").unwrap();
    let manifest = parse_yaml(&fs_err::read(path.join(MANIFEST_FILE)).unwrap()).unwrap();
    let lines: usize = manifest.packages.iter().map(|package| package.len() + 1).sum();
    assert!(lines > super::resolver::LOCKFILE_CAP, "{lines}");
}
