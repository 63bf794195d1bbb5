//! Files that something happened to: every one is opened or refused, none brings anything down.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::super::{Raw, Read as _, Scan, State, StateError};
use super::{COUNTERS, ROWS};
use crate::names::{Faults, Random, SeededRandom};

const SEEDS: u64 = 200;

/// A file with some hundred rows, small and large, and holes where others were.
fn sound_file(path: &Path) -> Vec<u8> {
    let state = State::open(path, Faults::none()).unwrap();
    for round in 0..8_u64 {
        let put = state.write_blocking(move |tx| {
            for n in 0..60 {
                let size = usize::try_from(n % 7 * 400).unwrap();
                tx.put(&ROWS, &(format!("row{round}"), n), &Raw(vec![u8::try_from(n).unwrap(); size]))?;
                if n % 3 == 0 && round > 0 {
                    tx.delete(&ROWS, &(format!("row{}", round - 1), n))?;
                }
            }
            tx.put(&COUNTERS, &"count".to_owned(), &Raw(round.to_be_bytes().to_vec()))
        });
        put.unwrap();
    }
    drop(state);
    fs_err::read(path).unwrap()
}

fn below(random: &impl Random, limit: usize) -> usize {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    usize::try_from(u64::from_le_bytes(bytes) % u64::try_from(limit).unwrap()).unwrap()
}

/// Does one kind of damage at a random place; every second time near the start, where the header and roots are.
fn damage(bytes: &mut Vec<u8>, seed: u64) {
    let random = SeededRandom::new(seed);
    let reach = if seed.is_multiple_of(2) { bytes.len() } else { 16_384.min(bytes.len()) };
    let at = below(&random, reach - 64);
    let place = at..at + 64;
    match seed % 5 {
        0 => bytes[at] ^= 1 << below(&random, 8),
        1 => bytes[place].fill(0),
        2 => random.fill(&mut bytes[place]),
        3 => bytes.truncate(at),
        _ => {
            let page = at / 4_096 * 4_096;
            let other = below(&random, bytes.len() / 4_096) * 4_096;
            bytes.copy_within(other..other + 4_096, page);
        }
    }
}

/// Opens the file, reads all of it, writes to it and closes it.
fn use_all(path: &Path) -> Result<(), StateError> {
    let state = State::open(path, Faults::none())?;
    let mut first = None;
    let mut keep = |outcome: Result<(), StateError>| {
        if let (Err(error), None) = (outcome, &first) {
            first = Some(error);
        }
    };
    keep(state.read_blocking(|view| view.scan(&ROWS, &Scan::all(), 1_000).map(drop)));
    for round in 0..8 {
        keep(state.read_blocking(|view| view.get(&ROWS, &(format!("row{round}"), 31)).map(drop)));
    }
    keep(state.write_blocking(|tx| tx.scan(&ROWS, &Scan::all(), 1_000).map(drop)));
    keep(state.write_blocking(|tx| tx.put(&ROWS, &("row3".to_owned(), 30), &Raw(vec![7; 2_000]))));
    keep(state.write_blocking(|tx| tx.put(&COUNTERS, &"count".to_owned(), &Raw(vec![7; 8]))));
    drop(state);
    first.map_or(Ok(()), Err)
}

#[test]
fn whatever_happened_to_the_file_it_is_opened_or_refused_without_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let sound = sound_file(&folder.path().join("sound"));
    let path = folder.path().join("state.redb");
    let mut codes = std::collections::BTreeMap::<_, u64>::new();
    for seed in 0..SEEDS {
        let mut bytes = sound.clone();
        damage(&mut bytes, seed);
        fs_err::write(&path, bytes).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| use_all(&path)))
            .unwrap_or_else(|_| panic!("the damage of seed {seed} came through as a panic"));
        let code = outcome.as_ref().map_or_else(StateError::code, |()| "unharmed");
        *codes.entry(code).or_default() += 1;
        if let Err(error) = outcome {
            assert_ne!(code, "state_closure_panicked", "seed {seed}: {error}");
            if code == "state_damaged" {
                assert!(error.to_string().contains("state.redb is damaged: "), "seed {seed}: {error}");
                assert!(error.hint().unwrap().contains("backup"));
            }
        }
    }
    assert!(codes.get("state_damaged") > Some(&10), "{codes:?}");
}

#[test]
fn a_file_that_lost_its_beginning_or_its_end_is_called_damaged_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let sound = sound_file(&folder.path().join("sound"));
    let path = folder.path().join("state.redb");
    let zeroed = |mut bytes: Vec<u8>| {
        bytes[..512].fill(0);
        bytes
    };
    for (bytes, cause) in [
        (Vec::new(), "it is empty"),
        (vec![0; 8_192], "it begins with zeros"),
        (zeroed(sound.clone()), "it begins with zeros"),
        (sound[..100].to_vec(), "damaged: "),
    ] {
        fs_err::write(&path, bytes).unwrap();
        let error = State::open(&path, Faults::none()).unwrap_err();
        assert_eq!(error.code(), "state_damaged", "{error}");
        assert!(error.to_string().contains(cause), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("backup") && !hint.contains("before-18"), "{hint}");
    }
    fs_err::write(folder.path().join("state.redb.before-18"), &sound).unwrap();
    let hint = State::open(&path, Faults::none()).unwrap_err().hint().unwrap();
    assert!(hint.contains("state.redb.before-18"), "{hint}");
}

#[test]
fn a_panic_of_a_closure_inside_a_scan_is_its_own_and_no_damage() {
    struct Explosive;
    impl super::super::Value for Explosive {
        const MAX_BYTES: usize = 10;
        fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
            Ok(vec![1])
        }
        fn from_bytes(_: &[u8]) -> Result<Self, StateError> {
            std::panic::resume_unwind(Box::new("on purpose".to_owned()))
        }
    }
    const TABLE: super::super::Table<String, Explosive> = super::super::Table::new("explosive");
    let state = super::state_in_memory();
    state.write_blocking(|tx| tx.put(&TABLE, &"a".to_owned(), &Explosive)).unwrap();
    let outcome = state.write_blocking(|tx| tx.scan(&TABLE, &Scan::all(), 1).map(drop));
    assert_eq!(outcome.unwrap_err().code(), "state_closure_panicked");
    state.write_blocking(|tx| tx.put(&TABLE, &"b".to_owned(), &Explosive)).unwrap();
}
