#![allow(clippy::unwrap_used)]

use super::chain::{Entry, Event, Head};
use super::{Verdict, append, list, verify};
use crate::names::{Faults, Millis};
use crate::state::{Raw, Read as _, State, Table};

const ENTRIES: Table<u64, Entry> = Table::new("audit_entries");
const ENTRY_BYTES: Table<u64, Raw> = Table::new("audit_entries");
const HEAD: Table<String, Head> = Table::new("audit_head");

fn event(number: u64) -> Event {
    Event {
        who: "peer:0".into(),
        action: "store.publish".into(),
        subject: format!("acme/weather:{number}"),
        outcome: "ok".into(),
        why: "tests passed".into(),
    }
}

/// A log of `entries`, in a folder that lives as long as the state.
async fn log_of(entries: u64) -> (tempfile::TempDir, State) {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&dir.path().join("state.redb"), Faults::none()).unwrap();
    state
        .write(move |tx| {
            (1..=entries).try_for_each(|number| append(tx, Millis(1000 + number), &event(number)))
        })
        .await
        .unwrap();
    (dir, state)
}

#[tokio::test]
async fn an_untouched_log_is_intact_over_several_pages() {
    let (_dir, state) = log_of(0).await;
    assert_eq!(verify(&state).await.unwrap(), Verdict::Intact { entries: 0 });
    let (_dir, state) = log_of(1203).await;
    assert_eq!(verify(&state).await.unwrap(), Verdict::Intact { entries: 1203 });
    let page = state.read(|view| list(view, Some(1200), 10)).await.unwrap();
    assert_eq!(page.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [1201, 1202, 1203]);
    assert_eq!(page[0].event, event(1201));
    assert_eq!(page[1].previous, page[0].hash);
}

#[tokio::test]
async fn the_entry_of_an_act_that_is_refused_is_not_written() {
    let (_dir, state) = log_of(2).await;
    let refused: Result<(), _> = state
        .write(|tx| {
            append(tx, Millis(9), &event(3))?;
            Err(crate::state::StateError::Closed)
        })
        .await;
    assert!(refused.is_err());
    assert_eq!(verify(&state).await.unwrap(), Verdict::Intact { entries: 2 });
}

#[tokio::test]
async fn each_altered_member_of_an_entry_is_found() {
    let alter: [fn(&mut Entry); 9] = [
        |entry| entry.at = Millis(entry.at.0 + 1),
        |entry| entry.event.who.push('x'),
        |entry| entry.event.action.push('x'),
        |entry| entry.event.subject.push('x'),
        |entry| entry.event.outcome.push('x'),
        |entry| entry.event.why.clear(),
        |entry| entry.sequence += 1,
        |entry| entry.previous = entry.hash.clone(),
        // A letter that moves from one text to the next must not leave the hash as it was.
        |entry| {
            let moved = entry.event.outcome.pop().unwrap();
            entry.event.why.insert(0, moved);
        },
    ];
    for change in alter {
        let (_dir, state) = log_of(7).await;
        state
            .write(move |tx| {
                let mut entry = tx.get(&ENTRIES, &4)?.unwrap();
                change(&mut entry);
                tx.put(&ENTRIES, &4, &entry)
            })
            .await
            .unwrap();
        assert_eq!(verify(&state).await.unwrap(), Verdict::Broken { at: 4 });
    }
}

#[tokio::test]
async fn an_altered_entry_with_a_fitting_hash_breaks_the_next_one_or_the_head() {
    for (number, found_at) in [(4, 5), (7, 7)] {
        let (_dir, state) = log_of(7).await;
        state
            .write(move |tx| {
                let old = tx.get(&ENTRIES, &number)?.unwrap();
                let forged = Entry::chained(number, old.at, event(99), old.previous);
                tx.put(&ENTRIES, &number, &forged)
            })
            .await
            .unwrap();
        assert_eq!(verify(&state).await.unwrap(), Verdict::Broken { at: found_at });
    }
}

#[tokio::test]
async fn bytes_that_are_no_entry_any_more_are_a_verdict_and_no_error() {
    let (_dir, state) = log_of(3).await;
    state.write(|tx| tx.put(&ENTRY_BYTES, &2, &Raw(b"{\"v\":1,\"d\":".to_vec()))).await.unwrap();
    assert_eq!(verify(&state).await.unwrap(), Verdict::Broken { at: 2 });
}

#[tokio::test]
async fn a_removed_entry_is_found_wherever_it_was() {
    for number in [1, 4, 7] {
        let (_dir, state) = log_of(7).await;
        state.write(move |tx| tx.delete(&ENTRIES, &number)).await.unwrap();
        assert_eq!(verify(&state).await.unwrap(), Verdict::Broken { at: number });
    }
}

#[tokio::test]
async fn two_entries_that_changed_places_are_found() {
    let (_dir, state) = log_of(7).await;
    state
        .write(|tx| {
            let (third, fourth) = (tx.get(&ENTRIES, &3)?.unwrap(), tx.get(&ENTRIES, &4)?.unwrap());
            tx.put(&ENTRIES, &3, &fourth)?;
            tx.put(&ENTRIES, &4, &third)
        })
        .await
        .unwrap();
    assert_eq!(verify(&state).await.unwrap(), Verdict::Broken { at: 3 });
}

#[tokio::test]
async fn a_cut_tail_a_lost_head_and_an_entry_too_much_are_found() {
    let (_dir, state) = log_of(7).await;
    state.write(|tx| (5..=7).try_for_each(|number| tx.delete(&ENTRIES, &number))).await.unwrap();
    assert_eq!(verify(&state).await.unwrap(), Verdict::Broken { at: 5 });

    let (_dir, state) = log_of(7).await;
    state.write(|tx| tx.delete(&HEAD, &"head".to_owned())).await.unwrap();
    assert_eq!(verify(&state).await.unwrap(), Verdict::Broken { at: 1 });

    let (_dir, state) = log_of(7).await;
    state
        .write(|tx| {
            let last = tx.get(&ENTRIES, &7)?.unwrap();
            tx.put(&ENTRIES, &8, &Entry::chained(8, Millis(1), event(8), last.hash))
        })
        .await
        .unwrap();
    assert_eq!(verify(&state).await.unwrap(), Verdict::Broken { at: 8 });
}

#[tokio::test]
async fn a_text_of_any_length_is_recorded_cut_and_verifies() {
    let (_dir, state) = log_of(1).await;
    let long = Event { why: "ä".repeat(100_000), ..event(2) };
    state.write(move |tx| append(tx, Millis(5), &long)).await.unwrap();
    let last = state.read(|view| list(view, Some(1), 1)).await.unwrap().remove(0);
    assert!(last.event.why.len() < 1030 && last.event.why.ends_with('…'));
    assert_eq!(verify(&state).await.unwrap(), Verdict::Intact { entries: 2 });
}
