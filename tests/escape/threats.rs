//! Each threat of `docs/security.md` names tests, and each test that is named exists.

use std::collections::BTreeSet;
use std::path::Path;

fn source(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The names of all test functions: what `#[test]` and its like stand before, and the cases of jails.
fn tests_below(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            tests_in(&std::fs::read_to_string(&path).unwrap(), found);
        }
    }
}

fn tests_in(text: &str, found: &mut BTreeSet<String>) {
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        let attribute = ["#[test]", "#[tokio::test", "#[rstest]", "#[case", "case! {"];
        let name =
            line.split_once("fn ").map(|(_, rest)| rest).and_then(|rest| rest.split(['(', '<']).next());
        match name {
            Some(name) if is_test && !line.starts_with("//") => {
                found.insert(name.to_owned());
                is_test = false;
            }
            _ if attribute.iter().any(|start| line.starts_with(start)) => is_test = true,
            _ if line.starts_with("#[") || line.starts_with("//") => {}
            _ => is_test = false,
        }
    }
}

/// The rows of the table of threats: number, and the text of what stands against it.
fn threats(document: &str) -> Vec<(u32, String)> {
    document
        .lines()
        .filter_map(|line| {
            let mut cells = line.trim().trim_matches('|').split(" | ");
            let number = cells.next()?.trim().strip_prefix('T')?.parse().ok()?;
            Some((number, cells.last()?.to_owned()))
        })
        .collect()
}

/// Every name in code letters that a row gives as a test's: what stands behind the word "Test", else all of them.
fn named(row: &str) -> (bool, Vec<&str>) {
    let (labelled, part) = match row.split_once("Tests: ").or_else(|| row.split_once("Test: ")) {
        Some((_, part)) => (true, part),
        None => (false, row),
    };
    (labelled, part.split('`').skip(1).step_by(2).collect())
}

/// Whether this names a test: a function, or its beginning and `…`, a file of tests, or a module of them.
fn exists(name: &str, tests: &BTreeSet<String>) -> bool {
    if name.starts_with("tests/") {
        return source(name).exists();
    }
    if let Some(module) = name.strip_suffix("::tests") {
        let path = module.replace("::", "/");
        return ["src", "src/server"].iter().any(|dir| source(&format!("{dir}/{path}.rs")).exists()) || {
            let file = format!("{path}.rs");
            any_file(&source("src"), &file)
        };
    }
    match name.strip_suffix('…') {
        Some(start) => tests.iter().any(|test| test.starts_with(start)),
        None => tests.contains(name),
    }
}

fn any_file(dir: &Path, name: &str) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { any_file(&path, name) } else { path.ends_with(name) }
    })
}

fn failings(document: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut failings = Vec::new();
    for (number, row) in threats(document) {
        let (labelled, names) = named(&row);
        if !names.iter().any(|name| exists(name, tests)) {
            failings.push(format!("T{number} names no test that exists"));
        }
        for name in names.iter().filter(|name| labelled && !exists(name, tests)) {
            failings.push(format!("T{number} names {name}, which is no test"));
        }
    }
    failings
}

#[test]
fn every_threat_names_tests_that_exist() {
    let mut tests = BTreeSet::new();
    tests_below(&source("src"), &mut tests);
    tests_below(&source("tests"), &mut tests);
    assert!(tests.len() > 500, "{}", tests.len());
    let document = std::fs::read_to_string(source("docs/security.md")).unwrap();
    let numbers: Vec<u32> = threats(&document).into_iter().map(|(number, _)| number).collect();
    let last = u32::try_from(numbers.len()).unwrap();
    assert_eq!(numbers, (1..=last).collect::<Vec<_>>(), "the rows are numbered without a gap");
    assert!(last >= 43, "{last}");
    let failings = failings(&document, &tests);
    assert!(failings.is_empty(), "{}", failings.join("\n"));
}

#[test]
fn a_threat_without_a_test_is_found() {
    let tests = BTreeSet::from(["a_test_that_is_there".to_owned()]);
    let row = |text: &str| failings(&format!("| T1 | something | {text} |"), &tests);
    assert!(row("walls. Test: `a_test_that_is_there`").is_empty());
    assert!(row("walls. Tests: `a_test_that…`").is_empty());
    assert!(row("walls; `a_test_that_is_there`").is_empty());
    assert_eq!(row("walls").len(), 1);
    assert_eq!(row("walls and `clone3`").len(), 1);
    assert_eq!(
        row("walls. Tests: `a_test_that_is_there`, `another`"),
        ["T1 names another, which is no test"]
    );
}
