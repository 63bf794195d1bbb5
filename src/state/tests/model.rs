//! Transactions against a model: a map that only successful closures change.

use std::collections::BTreeMap;

use futures_util::future::{FutureExt as _, join_all};
use proptest::prelude::*;

use super::super::{Raw, Read, Scan, StateError, Tx};
use super::{ROWS, state_in_memory};

type Key = (String, u64);
type Model = BTreeMap<Key, Vec<u8>>;

#[derive(Clone, Debug)]
enum Act {
    Put(Key, Vec<u8>),
    Delete(Key),
    Get(Key),
    Scan { prefix: Option<String>, after: Option<Key>, limit: usize },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Return,
    Fail,
    Panic,
}

/// What an act saw.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Nothing,
    Value(Option<Vec<u8>>),
    Rows(Vec<(Key, Vec<u8>)>),
}

fn any_key() -> impl Strategy<Value = Key> {
    ("[ab]{0,2}", 0..4_u64)
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (any_key(), any::<u8>()).prop_map(|(key, byte)| Act::Put(key, vec![byte])),
        2 => any_key().prop_map(Act::Delete),
        1 => any_key().prop_map(Act::Get),
        2 => (proptest::option::of("[ab]{0,2}"), proptest::option::of(any_key()), 0..6_usize)
            .prop_map(|(prefix, after, limit)| Act::Scan { prefix, after, limit }),
    ]
}

fn any_closure() -> impl Strategy<Value = (Vec<Act>, End)> {
    let end = prop_oneof![4 => Just(End::Return), 1 => Just(End::Fail), 1 => Just(End::Panic)];
    (proptest::collection::vec(any_act(), 0..8), end)
}

fn scan_of(prefix: Option<&String>, after: Option<&Key>) -> Scan {
    let scan = prefix.map_or_else(Scan::all, Scan::prefix);
    after.map_or(scan.clone(), |after| scan.after(after))
}

fn perform(tx: &mut Tx<'_>, act: &Act) -> Result<Seen, StateError> {
    Ok(match act {
        Act::Put(key, value) => {
            tx.put(&ROWS, key, &Raw(value.clone()))?;
            Seen::Nothing
        }
        Act::Delete(key) => {
            tx.delete(&ROWS, key)?;
            Seen::Nothing
        }
        Act::Get(key) => Seen::Value(tx.get(&ROWS, key)?.map(|raw| raw.0)),
        Act::Scan { prefix, after, limit } => {
            let rows = tx.scan(&ROWS, &scan_of(prefix.as_ref(), after.as_ref()), *limit)?;
            Seen::Rows(rows.into_iter().map(|(key, raw)| (key, raw.0)).collect())
        }
    })
}

fn expect(model: &mut Model, act: &Act) -> Seen {
    match act {
        Act::Put(key, value) => {
            model.insert(key.clone(), value.clone());
            Seen::Nothing
        }
        Act::Delete(key) => {
            model.remove(key);
            Seen::Nothing
        }
        Act::Get(key) => Seen::Value(model.get(key).cloned()),
        Act::Scan { prefix, after, limit } => Seen::Rows(
            model
                .iter()
                .filter(|((name, _), _)| prefix.as_ref().is_none_or(|prefix| prefix == name))
                .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
                .take(*limit)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        ),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn closures_behave_as_one_after_another_and_failed_ones_leave_nothing(
        rounds in proptest::collection::vec(proptest::collection::vec(any_closure(), 1..10), 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let state = state_in_memory();
        let mut model = Model::new();
        for round in rounds {
            // Queued in this order before the first is answered, so that they share commits.
            let outcomes = runtime.block_on(join_all(round.clone().into_iter().map(|(acts, end)| {
                state.write(move |tx| {
                    let seen = acts.iter().map(|act| perform(tx, act)).collect::<Result<Vec<_>, _>>()?;
                    match end {
                        End::Return => Ok(seen),
                        End::Fail => Err(StateError::Closed),
                        End::Panic => std::panic::resume_unwind(Box::new("on purpose")),
                    }
                }).boxed_local()
            })));
            for ((acts, end), outcome) in round.iter().zip(outcomes) {
                let mut tried = model.clone();
                let seen: Vec<Seen> = acts.iter().map(|act| expect(&mut tried, act)).collect();
                match (end, outcome) {
                    (End::Return, Ok(found)) => {
                        prop_assert_eq!(found, seen);
                        model = tried;
                    }
                    (End::Fail, Err(StateError::Closed)) | (End::Panic, Err(StateError::Panicked { .. })) => {}
                    (end, outcome) => prop_assert!(false, "{:?} gave {:?}", end, outcome),
                }
            }
            let kept = state.read_blocking(|view| view.scan(&ROWS, &Scan::all(), 1_000)).unwrap();
            let kept: Vec<(Key, Vec<u8>)> = kept.into_iter().map(|(key, raw)| (key, raw.0)).collect();
            prop_assert_eq!(kept, model.clone().into_iter().collect::<Vec<_>>());
        }
    }
}
