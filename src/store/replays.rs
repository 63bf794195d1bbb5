//! The end of idempotency keys: a request that is repeated after days is a new one.

use std::time::Duration;

use super::record::REPLAYS;
use crate::names::Millis;
use crate::state::{Read as _, Scan, StateError, Tx};

/// How long a repeated request with the same key gets the first answer.
pub const KEPT_FOR: Duration = Duration::from_hours(7 * 24);
/// Rows of one transaction.
const PAGE: usize = 200;

/// Looks at the keys after `after` and removes those that ran out; with `act` false only counts them. Gives from where
/// to go on, and how many there were.
///
/// # Errors
/// [`StateError`] when the state fails.
pub fn expire_replays(
    tx: &mut Tx<'_>,
    now: Millis,
    after: Option<&(String, String)>,
    act: bool,
) -> Result<(Option<(String, String)>, u64), StateError> {
    let scan = after.map_or_else(Scan::all, |key| Scan::all().after(key));
    let page = tx.scan(&REPLAYS, &scan, PAGE)?;
    let next = page.last().filter(|_| page.len() == PAGE).map(|(key, _)| key.clone());
    let mut expired = 0;
    for (key, _) in page.into_iter().filter(|(_, record)| now.since(record.at) > KEPT_FOR) {
        if act {
            tx.delete(&REPLAYS, &key)?;
        }
        expired += 1;
    }
    Ok((next, expired))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::record::ReplayRecord;
    use super::*;
    use crate::names::{Digest, Faults, SubmissionId};
    use crate::state::State;

    #[test]
    fn keys_older_than_a_week_go_and_younger_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(&folder.path().join("state.redb"), Faults::none()).unwrap();
        let week = u64::try_from(KEPT_FOR.as_millis()).unwrap();
        state
            .write_blocking(|tx| {
                for number in 0..450_u64 {
                    let record = ReplayRecord {
                        body: Digest::of(b"x"),
                        submission: SubmissionId::parse("one").unwrap(),
                        at: Millis(number),
                    };
                    tx.put(&REPLAYS, &("uid:0".to_owned(), format!("{number:04}")), &record)?;
                }
                Ok::<_, StateError>(())
            })
            .unwrap();
        let sweep = |act: bool| {
            let (mut after, mut total) = (None, 0);
            loop {
                let from = after.clone();
                let (next, expired) = state
                    .write_blocking(move |tx| expire_replays(tx, Millis(week + 300), from.as_ref(), act))
                    .unwrap();
                total += expired;
                after = next;
                if after.is_none() {
                    return total;
                }
            }
        };
        assert_eq!((sweep(false), sweep(false), sweep(true), sweep(true)), (300, 300, 300, 0));
        let left = state.read_blocking(|view| view.scan(&REPLAYS, &Scan::all(), 1_000)).unwrap();
        assert_eq!((left.len(), left[0].1.at), (150, Millis(300)));
    }
}
