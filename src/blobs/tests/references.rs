//! The table of references against a model.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::super::references::unreferenced_since;
use super::super::{BlobTotals, Owner, Stored, discard, is_known, link, link_known, totals, unlink};
use super::Root;
use crate::names::{Digest, Millis};
use crate::state::State;

#[derive(Clone, Debug)]
enum Act {
    Link(u8, u8),
    LinkKnown(u8, u8),
    Unlink(u8, u8),
}

fn any_act() -> impl Strategy<Value = Act> {
    let pair = || (0..4_u8, 0..3_u8);
    prop_oneof![
        pair().prop_map(|(blob, owner)| Act::Link(blob, owner)),
        pair().prop_map(|(blob, owner)| Act::LinkKnown(blob, owner)),
        pair().prop_map(|(blob, owner)| Act::Unlink(blob, owner)),
    ]
}

fn blob(n: u8) -> Stored {
    let bytes = Bytes::from(vec![n; usize::from(n)]);
    Stored::inline(Digest::of(&bytes), bytes)
}

fn owner(n: u8) -> Owner {
    // Keys that are prefixes of each other, and one kind more, must not be mixed up.
    [Owner::new("tag", "a"), Owner::new("tag", "a/b"), Owner::new("tags", "a")][usize::from(n)].clone()
}

#[derive(Default, Debug)]
struct Known {
    owners: BTreeSet<u8>,
    since: Option<Millis>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn references_follow_the_model(acts in proptest::collection::vec((any_act(), any::<bool>()), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state.redb"), crate::names::Faults::none()).unwrap();
        let mut model: BTreeMap<u8, Known> = BTreeMap::new();
        for (at, (act, refused)) in acts.into_iter().enumerate() {
            let now = Millis(at as u64 + 1);
            let performed = act.clone();
            let outcome = state.write_blocking(move |tx| {
                let answer = match performed {
                    Act::Link(n, by) => link(tx, &blob(n), &owner(by)).map(|()| true),
                    Act::LinkKnown(n, by) => link_known(tx, &blob(n).digest, &owner(by)),
                    Act::Unlink(n, by) => unlink(tx, &blob(n).digest, &owner(by), now).map(|()| true),
                };
                if refused { Err(crate::state::StateError::Closed) } else { answer }
            });
            if refused {
                continue;
            }
            let expected = match act {
                Act::Link(n, by) => {
                    let known = model.entry(n).or_default();
                    known.owners.insert(by);
                    known.since = None;
                    true
                }
                Act::LinkKnown(n, by) => model.get_mut(&n).is_some_and(|known| {
                    known.owners.insert(by);
                    known.since = None;
                    true
                }),
                Act::Unlink(n, by) => {
                    if let Some(known) = model.get_mut(&n)
                        && known.owners.remove(&by)
                        && known.owners.is_empty()
                    {
                        known.since = Some(now);
                    }
                    true
                }
            };
            prop_assert_eq!(outcome.unwrap(), expected);
            for n in 0..4 {
                let digest = blob(n).digest;
                let (size, since) = state
                    .read_blocking(|view| Ok((is_known(view, &digest)?, unreferenced_since(view, &digest)?)))
                    .unwrap();
                let known = model.get(&n);
                prop_assert_eq!(size, known.map(|_| u64::from(n)));
                prop_assert_eq!(since, known.and_then(|known| known.since));
            }
        }
    }
}

#[tokio::test]
async fn bytes_stay_readable_when_the_same_content_came_in_both_ways() {
    let root = Root::new().await;
    let bytes = Bytes::from_static(b"small");
    let inline = root.blobs.put(bytes.clone()).await.unwrap();
    root.link(&inline).await;
    // By its digest alone: what is known already is not written again.
    let file = Stored::known(inline.digest.clone(), inline.size);
    root.link(&file).await;
    assert_eq!(root.blobs.read_small(&inline.digest, 5).await.unwrap(), bytes);
}

async fn counted(root: &Root) -> (u64, u64) {
    let BlobTotals { blobs, bytes } = root.state.read(|view| totals(view)).await.unwrap();
    (blobs, bytes)
}

#[tokio::test]
async fn discarded_bytes_are_counted_no_longer() {
    let root = Root::new().await;
    let (one, two) = (Owner::new("test", "one"), Owner::new("test", "two"));
    let stored = root.blobs.put(Bytes::from_static(b"a log")).await.unwrap();
    let digest = stored.digest.clone();
    let (first, second) = (one.clone(), two.clone());
    let write = root.state.write(move |tx| {
        link(tx, &stored, &first)?;
        link(tx, &stored, &second)
    });
    write.await.unwrap();
    assert_eq!(counted(&root).await, (1, 5));
    for (owner, expected) in [(one, (1, 5)), (two.clone(), (0, 0)), (two, (0, 0))] {
        let digest = digest.clone();
        root.state.write(move |tx| discard(tx, &digest, &owner, Millis(1))).await.unwrap();
        assert_eq!(counted(&root).await, expected);
    }
}

#[tokio::test]
async fn a_blob_of_unknown_size_is_counted_with_its_own_when_it_is_healed() {
    let root = Root::new().await;
    let bytes = Bytes::from_static(b"found again");
    let digest = Digest::of(&bytes);
    // As repair records what a reference names and no record knows.
    root.link(&Stored::known(digest.clone(), 0)).await;
    assert_eq!(counted(&root).await, (1, 0));
    let stored = root.blobs.put(bytes).await.unwrap();
    root.link(&stored).await;
    assert_eq!(counted(&root).await, (1, 11));
    root.link(&stored).await;
    assert_eq!(counted(&root).await, (1, 11), "once");
}
