//! The checks of the fuzz targets on their seeds, on seeds that were changed at random, and on noise.
//!
//! `make fuzz` does the same for longer, led by what it covers.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../fuzz/checks.rs"]
mod checks;

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// The seeds of a target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    seeds.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// How often a target is run: those that make files take a hundred times as long.
fn cases(target: &str) -> u32 {
    if ["outputs", "archives"].contains(&target) { 300 } else { 3_000 }
}

/// A change to an input: bytes that take the place of some, or of none.
fn change() -> impl Strategy<Value = (Index, usize, Vec<u8>)> {
    let interesting = prop_oneof![
        Just(b"/".to_vec()),
        Just(b":".to_vec()),
        Just(b"-".to_vec()),
        Just(b"18446744073709551615".to_vec()),
        Just(b"null".to_vec()),
        Just(b"[[[[".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..4),
    ];
    (any::<Index>(), 0..6_usize, interesting)
}

#[test]
fn every_parser_keeps_its_promises_on_any_input() {
    for (target, check) in checks::ALL {
        let seeds = seeds(target);
        for seed in &seeds {
            check(seed);
        }
        let mut runner =
            TestRunner::new(Config { cases: cases(target), failure_persistence: None, ..Config::default() });
        let changed =
            (any::<Index>(), proptest::collection::vec(change(), 0..5)).prop_map(|(place, changes)| {
                let mut input = place.get(&seeds).clone();
                for (at, length, bytes) in changes {
                    let at = at.index(input.len() + 1);
                    let end = (at + length).min(input.len());
                    input.splice(at..end, bytes);
                }
                input
            });
        let checked = runner.run(&changed, |input| {
            check(&input);
            Ok(())
        });
        checked.unwrap_or_else(|error| panic!("{target}: {error}"));
        let noise = proptest::collection::vec(any::<u8>(), 0..200);
        let checked = runner.run(&noise, |input| {
            check(&input);
            Ok(())
        });
        checked.unwrap_or_else(|error| panic!("{target}: {error}"));
    }
}

#[test]
fn every_target_has_its_check() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let targets = std::fs::read_dir(root.join("targets")).unwrap().count();
    assert_eq!(targets, checks::ALL.len());
    for (target, _) in checks::ALL {
        let source = std::fs::read_to_string(root.join(format!("targets/{target}.rs"))).unwrap();
        assert!(source.contains(&format!("checks::{target}(input)")), "{target}");
        assert!(manifest.contains(&format!("path = \"targets/{target}.rs\"")), "{target}");
    }
}
