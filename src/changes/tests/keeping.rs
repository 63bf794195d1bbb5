//! What is kept of ended changes, and what is listed.

use std::time::Duration;

use super::world::{Journal, Kinds, START, World};
use crate::changes::record::{CHANGES, ChangeState, DATA, ENDED, TASKS};
use crate::changes::{NewChange, create, retention};
use crate::names::{ChangeId, Digest, Millis};
use crate::state::{Read as _, Scan, Table};

fn change(number: u64) -> NewChange {
    NewChange {
        id: ChangeId::parse(&format!("old-{number:04}")).unwrap(),
        kind: "test".into(),
        summary: String::new(),
        subject: String::new(),
        tasks: vec!["t.a", "t.b"],
        conflicts: vec![],
        data: serde_json::json!({"n": number}),
        by: String::new(),
    }
}

/// Creates and ends changes without running anything.
async fn end_many(world: &World, numbers: std::ops::Range<u64>, at: Millis) {
    world
        .state
        .write(move |tx| {
            for number in numbers.clone() {
                let change = change(number);
                create(tx, at, &change)?.unwrap();
                retention::end(tx, at, &change.id, ChangeState::Done, None)?;
            }
            Ok(())
        })
        .await
        .unwrap();
}

/// Who refers to the blob, read from the table of references.
async fn owners(world: &World, digest: &Digest) -> Vec<(String, String)> {
    const REFERENCES: Table<(Digest, String, String), ()> = Table::new("blob_references");
    let digest = digest.clone();
    let rows =
        world.state.read(move |rows| rows.scan(&REFERENCES, &Scan::prefix(&digest), 10)).await.unwrap();
    rows.into_iter().map(|((_, kind, key), ())| (kind, key)).collect()
}

async fn kept(world: &World) -> usize {
    world.state.read(|rows| Ok(rows.scan(&CHANGES, &Scan::all(), 1000)?.len())).await.unwrap()
}

#[tokio::test]
async fn a_day_is_kept_and_the_500_newest_whatever_their_age() {
    let world = World::new(Kinds::new(&Journal::default())).await;
    let day = Duration::from_hours(24);
    end_many(&world, 0..520, START).await;
    assert_eq!(kept(&world).await, 520, "none is older than a day");
    end_many(&world, 520..521, START.after(day)).await;
    assert_eq!(kept(&world).await, 521, "a day old is not older than a day");
    end_many(&world, 521..522, START.after(day + Duration::from_secs(1))).await;
    assert_eq!(kept(&world).await, 522 - 16, "one end clears sixteen away");
    end_many(&world, 522..530, START.after(day * 2)).await;
    assert_eq!(kept(&world).await, 500);
    end_many(&world, 530..531, START.after(day * 20)).await;
    assert_eq!(kept(&world).await, 500);
    let (tasks, data, ended, oldest) = world
        .state
        .read(|rows| {
            let oldest = rows.scan(&CHANGES, &Scan::all(), 1)?.remove(0).0;
            Ok((
                rows.scan(&TASKS, &Scan::all(), 1000)?.len(),
                rows.scan(&DATA, &Scan::all(), 1000)?.len(),
                rows.scan(&ENDED, &Scan::all(), 1000)?.len(),
                oldest,
            ))
        })
        .await
        .unwrap();
    assert_eq!((tasks, data, ended, oldest.as_str()), (1000, 500, 500, "old-0031"));
}

#[tokio::test]
async fn the_log_of_a_cleared_change_is_no_longer_referred_to() {
    let world = World::new(Kinds::new(&Journal::default())).await;
    let first = change(9000);
    let id = world.submit(NewChange { tasks: vec![], ..first }).await.unwrap();
    world.ended(&id).await;
    let key = id.clone();
    let record = world.state.read(move |rows| rows.get(&CHANGES, &key)).await.unwrap().unwrap();
    let digest = record.log.unwrap();
    assert_eq!(owners(&world, &digest).await, [("change-log".to_owned(), id.to_string())]);
    end_many(&world, 0..510, START.after(Duration::from_hours(30))).await;
    assert!(owners(&world, &digest).await.is_empty());
    assert!(world.changes.get(&id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_list_goes_on_from_where_it_ended_over_several_reads() {
    let world = World::new(Kinds::new(&Journal::default())).await;
    end_many(&world, 0..130, START).await;
    let first = world.changes.list(None, 120).await.unwrap();
    assert_eq!(first.len(), 120);
    assert_eq!((first[0].id.as_str(), first[119].id.as_str()), ("old-0000", "old-0119"));
    let rest = world.changes.list(Some(ChangeId::parse("old-0119").unwrap()), 120).await.unwrap();
    assert_eq!(rest.iter().map(|view| view.id.as_str()).collect::<Vec<_>>().len(), 10);
    assert_eq!(rest[0].tasks.len(), 2);
}
