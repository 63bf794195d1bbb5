//! Holds the table of parts and checks that every use points downwards.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Floor, part, and of the floors below (0 and 1 are free for everybody but `sandbox` and `state`) what it may use.
/// `*` stands for everything below.
const PARTS: &[(u8, &str, &[&str])] = &[
    (9, "cli", &["daemon", "*"]),
    (8, "daemon", &["*"]),
    (7, "server", &["*"]),
    (
        6,
        "store",
        &[
            "runner", "packs", "repos", "trees", "sandbox", "callback", "changes", "blobs", "keys", "access",
            "audit",
        ],
    ),
    (6, "registry", &["repos", "blobs", "access", "audit"]),
    (5, "runner", &["packs", "repos", "callback", "sandbox", "trees", "blobs"]),
    (5, "install", &["packs", "repos", "sandbox", "trees", "changes", "blobs", "access", "audit"]),
    (4, "packs", &["repos", "trees", "sandbox", "blobs", "keys", "rootfs"]),
    (3, "repos", &["blobs", "keys"]),
    (3, "trees", &["blobs", "sandbox"]),
    (3, "changes", &["blobs"]),
    (3, "callback", &["keys"]),
    (2, "blobs", &[]),
    (2, "keys", &[]),
    (2, "access", &[]),
    (2, "audit", &[]),
    (2, "rootfs", &[]),
    (1, "state", &["names"]),
    (1, "sandbox", &["names"]),
    (1, "config", &["names"]),
    (0, "names", &[]),
];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Unit tests may stand on any part below; what is shipped may not.
fn is_test(file: &Path) -> bool {
    file.components().any(|part| part.as_os_str() == "tests")
        || file.file_name().is_some_and(|name| name == "tests.rs")
}

fn files_of(part: &str) -> Vec<PathBuf> {
    let mut files = vec![sources().join(format!("{part}.rs"))];
    let mut folders = vec![sources().join(part)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
                files.push(entry.path());
            }
        }
    }
    files
}

/// The parts that a source text names as `crate::<part>` or `crate::{<part>…`, outside comments.
fn uses(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| -> String {
            text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (1, true);
            for (index, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => start = true,
                    c if depth == 1 && start && !c.is_whitespace() => {
                        found.insert(word(&group[index..]));
                        start = false;
                    }
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            found.insert(word(rest));
        }
    }
    found
}

#[test]
fn every_use_points_downwards_and_stands_in_the_table() {
    let floors: BTreeMap<&str, u8> = PARTS.iter().map(|(floor, part, _)| (*part, *floor)).collect();
    let mut wrong = Vec::new();
    for (floor, part, allowed) in PARTS {
        for file in files_of(part) {
            let text = std::fs::read_to_string(&file).unwrap();
            for used in uses(&text) {
                let Some(below) = floors.get(used.as_str()) else { continue };
                if used == *part {
                    continue;
                }
                let free =
                    *below <= 1 && used != "sandbox" && !matches!(*part, "state" | "sandbox" | "config");
                let listed = is_test(&file) || allowed.contains(&used.as_str()) || allowed.contains(&"*");
                if below >= floor || !(free || listed) {
                    wrong.push(format!(
                        "{}: {part} (floor {floor}) uses {used} (floor {below})",
                        file.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_of_the_library_is_a_part_of_the_table() {
    let library = std::fs::read_to_string(sources().join("lib.rs")).unwrap();
    let declared: BTreeSet<&str> = library
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub mod "))
        .map(|rest| rest.trim_end_matches(';'))
        .collect();
    let table: BTreeSet<&str> = PARTS.iter().map(|(_, part, _)| *part).collect();
    assert_eq!(declared, table);
}

#[test]
fn only_one_part_names_redb_and_only_one_folder_is_unsafe() {
    for (_, part, _) in PARTS {
        for file in files_of(part) {
            let text = std::fs::read_to_string(&file).unwrap();
            if *part != "state" {
                assert!(!text.contains("redb::"), "{} names redb", file.display());
            }
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let unsafe_code =
                code.clone().any(|line| line.contains("unsafe {") || line.contains("unsafe fn"));
            if unsafe_code {
                assert!(
                    file.starts_with(sources().join("sandbox/sys")),
                    "{} holds unsafe code",
                    file.display()
                );
            }
            if *part != "server" && !is_test(&file) {
                let axum = code.clone().any(|line| line.contains("axum::"));
                assert!(!axum, "{} knows axum", file.display());
            }
        }
    }
}

#[test]
fn files_stay_small_enough_to_read() {
    for (_, part, _) in PARTS {
        for file in files_of(part) {
            let lines = std::fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 800, "{} has {lines} lines: split it by meaning", file.display());
        }
    }
}

#[test]
fn the_table_reads_imports_in_every_form() {
    let text = "use crate::{a::X, b::{Y, c::Z}, d};\nlet x = crate::e::f();\n// crate::commented";
    let found: Vec<String> = uses(text).into_iter().collect();
    assert_eq!(found, ["a", "b", "d", "e"]);
}
