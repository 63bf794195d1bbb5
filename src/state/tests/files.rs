//! The file on disk: making, opening, refusing, migrating.

use std::os::unix::fs::PermissionsExt as _;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::{Raw, Read, Scan, Schema, State, Table, record, write_raw_fixture};
use super::ROWS;
use crate::names::{Faults, SubmissionId};

#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct AnyRecord(Value);
record!(AnyRecord, 1);

const SUBMISSIONS: Table<SubmissionId, AnyRecord> = Table::new("submissions");

fn names_in(folder: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> = fs_err::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_new_file_is_private_and_keeps_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let state = State::open(&path, Faults::none()).unwrap();
    assert_eq!(state.schema(), Schema { schema: 18, min_reader: 17 });
    state.write_blocking(|tx| tx.put(&ROWS, &("a".to_owned(), 1), &Raw(b"x".to_vec()))).unwrap();
    drop(state);
    assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names_in(folder.path()), ["state.redb"]);
    let state = State::open(&path, Faults::none()).unwrap();
    let row = state.read_blocking(|view| view.get(&ROWS, &("a".to_owned(), 1))).unwrap();
    assert_eq!(row, Some(Raw(b"x".to_vec())));
}

#[test]
fn a_file_in_use_is_refused_until_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let first = State::open(&path, Faults::none()).unwrap();
    let error = State::open(&path, Faults::none()).unwrap_err();
    assert_eq!((error.code(), error.hint().is_some()), ("state_in_use", true));
    tokio::runtime::Runtime::new().unwrap().block_on(first.close()).unwrap();
    State::open(&path, Faults::none()).unwrap();
}

#[test]
fn files_that_are_too_new_too_old_or_not_ours_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_raw_fixture(&path("newer"), 40, 19, &[]).unwrap();
    write_raw_fixture(&path("older"), 16, 16, &[]).unwrap();
    fs_err::write(path("text"), "no database".repeat(1_000)).unwrap();
    fs_err::write(path("empty"), "").unwrap();
    drop(redb::Database::create(path("foreign")).unwrap());
    for (name, code) in [
        ("newer", "state_schema_newer"),
        ("older", "state_schema_too_old"),
        ("text", "state_not_ours"),
        ("empty", "state_damaged"),
        ("foreign", "state_not_ours"),
    ] {
        let error = State::open(&path(name), Faults::none()).unwrap_err();
        assert_eq!((error.code(), error.hint().is_some()), (code, true), "{error}");
    }
    assert_eq!(names_in(folder.path()), ["empty", "foreign", "newer", "older", "text"]);
    let missing = State::open(&path("no/such/folder"), Faults::none()).unwrap_err();
    assert_eq!(missing.code(), "state_io_failed");
}

#[test]
fn a_newer_schema_that_only_expands_is_opened_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    write_raw_fixture(&path, 21, 18, &[]).unwrap();
    assert_eq!(State::open(&path, Faults::none()).unwrap().schema(), Schema { schema: 21, min_reader: 18 });
}

#[test]
fn what_an_interrupted_start_left_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    fs_err::write(folder.path().join("state.redb.new-1"), "half").unwrap();
    drop(State::open(&path, Faults::none()).unwrap());
    assert_eq!(names_in(folder.path()), ["state.redb"]);
}

#[test]
fn schema_17_is_migrated_by_adding_the_nonce_beside_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let row =
        |id: &str, body: Value| ("submissions", format!("{id}\0").into_bytes(), json!({"v": 1, "d": body}));
    let attempt = json!({"callback_token": "nonce-0001", "state": "dispatched"});
    let mut rows = vec![
        row(
            "00-full",
            json!({"state": "awaiting_result", "context": {}, "created_at": 1, "attempts": [attempt, attempt]}),
        ),
        row("01-no-timestamps", json!({"state": "awaiting_result", "context": null, "attempts": [attempt]})),
        row("02-no-attempts", json!({"state": "received"})),
        row("03-empty-attempts", json!({"attempts": []})),
        row("04-odd", json!({"attempts": [null, 7, {"state": "dispatched"}, {"callback_token": null}]})),
        row("05-top", json!({"callback_token": "t", "context": {"callback_token": "c"}})),
        row("06-manifest", json!({"manifest": {"callback_token": "mine"}})),
        ("submissions", b"07-broken\0".to_vec(), json!("not a record")),
        ("other", b"x\0".to_vec(), json!({"v": 1, "d": {"callback_token": "t"}})),
    ];
    rows.extend((0..1_200).map(|n| row(&format!("1-{n:04}"), json!({"attempts": [attempt]}))));
    write_raw_fixture(&path, 17, 17, &rows).unwrap();

    let state = State::open(&path, Faults::none()).unwrap();
    assert_eq!(state.schema(), Schema { schema: 18, min_reader: 17 });
    let get = |id: &str| {
        let id = SubmissionId::parse(id).unwrap();
        state.read_blocking(|view| view.get(&SUBMISSIONS, &id)).unwrap().unwrap().0
    };
    let migrated =
        json!({"callback_token": "nonce-0001", "callback_nonce": "nonce-0001", "state": "dispatched"});
    assert_eq!(
        get("00-full"),
        json!({"state": "awaiting_result", "context": {}, "created_at": 1, "attempts": [migrated, migrated]})
    );
    assert_eq!(get("01-no-timestamps")["attempts"], json!([migrated]));
    assert_eq!(get("02-no-attempts"), json!({"state": "received"}));
    assert_eq!(
        get("04-odd"),
        json!({"attempts": [null, 7, {"state": "dispatched"}, {"callback_token": null}]})
    );
    assert_eq!(get("05-top")["callback_nonce"], "t");
    assert_eq!(get("05-top")["context"]["callback_nonce"], "c");
    assert_eq!(get("06-manifest"), json!({"manifest": {"callback_token": "mine"}}));
    assert_eq!(get("1-1199")["attempts"], json!([migrated]));
    let other = Table::<String, AnyRecord>::new("other");
    let other = state.read_blocking(|view| view.get(&other, &"x".to_owned())).unwrap().unwrap();
    assert_eq!(other.0, json!({"callback_token": "t"}));
    let broken = state
        .read_blocking(|view| view.scan(&Table::<SubmissionId, Raw>::new("submissions"), &Scan::all(), 8));
    assert_eq!(broken.unwrap()[7].1, Raw(br#""not a record""#.to_vec()));

    let copy = folder.path().join("state.redb.before-18");
    let database = super::builder().open(&copy).unwrap();
    let kept = super::super::file::read_schema(&database, &copy).unwrap();
    assert_eq!(kept, Schema { schema: 17, min_reader: 17 });
    drop(database);
    drop(state);
    let state = State::open(&path, Faults::none()).unwrap();
    assert!(copy.exists(), "the copy stays until health is good");
    state.settle().unwrap();
    state.settle().unwrap();
    drop(state);
    assert_eq!(names_in(folder.path()), ["state.redb"]);
}
