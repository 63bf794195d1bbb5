//! Sharing commits, limits, closing.

use std::sync::{Arc, Barrier, mpsc};

use futures_util::future::FutureExt as _;

use super::super::{MAX_RAW_BYTES, MAX_SCAN_ROWS, Raw, Read, Scan, StateError, View};
use super::{COUNTERS, ROWS, state_in_memory};

#[test]
fn closures_that_wait_together_share_one_commit() {
    let state = state_in_memory();
    let (entered, wait_entered) = mpsc::channel();
    let gate = Arc::new(Barrier::new(2));
    let first = {
        let (state, gate) = (state.clone(), Arc::clone(&gate));
        std::thread::spawn(move || {
            state.write_blocking(move |tx| {
                entered.send(()).unwrap();
                gate.wait();
                tx.put(&ROWS, &("first".to_owned(), 0), &Raw(vec![]))
            })
        })
    };
    wait_entered.recv().unwrap();
    // The writer is inside the first closure: what is queued now has to wait for it.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut others: Vec<_> = (0..100)
            .map(|n| Box::pin(state.write(move |tx| tx.put(&ROWS, &("other".to_owned(), n), &Raw(vec![])))))
            .collect();
        for other in &mut others {
            assert!(other.now_or_never().is_none());
        }
        gate.wait();
        for other in others {
            other.await.unwrap();
        }
    });
    first.join().unwrap().unwrap();
    let counted = state.stats();
    assert_eq!((counted.closures, counted.commits), (101, 1));
    assert!(counted.commit_micros_total >= counted.commit_micros_max);
}

#[test]
fn what_changes_nothing_needs_no_commit() {
    let state = state_in_memory();
    let got = state.write_blocking(|tx| tx.get(&COUNTERS, &"none".to_owned())).unwrap();
    assert_eq!(got, None);
    assert_eq!(state.stats().commits, 0);
}

#[test]
fn limits_are_refused_with_the_table_named() {
    let state = state_in_memory();
    let error = state
        .write_blocking(|tx| tx.put(&ROWS, &(String::new(), 0), &Raw(vec![0; MAX_RAW_BYTES + 1])))
        .unwrap_err();
    assert_eq!(error.code(), "state_value_too_large");
    assert_eq!(
        error.to_string(),
        "in table `rows`: a value of 32769 bytes is larger than the 32768 bytes allowed"
    );
    let error = state.read_blocking(|view| view.scan(&ROWS, &Scan::all(), MAX_SCAN_ROWS + 1)).unwrap_err();
    assert_eq!(error.code(), "state_scan_limit");
    state.write_blocking(|tx| tx.put(&ROWS, &(String::new(), 0), &Raw(vec![0; MAX_RAW_BYTES]))).unwrap();
}

#[test]
fn pages_that_resume_by_key_give_every_row_once() {
    let state = state_in_memory();
    state
        .write_blocking(|tx| {
            (0..2_500).try_for_each(|n| {
                tx.put(&ROWS, &(if n % 2 == 0 { "a" } else { "b" }.to_owned(), n), &Raw(vec![]))
            })
        })
        .unwrap();
    let (mut seen, mut scan) = (Vec::new(), Scan::prefix(&"a".to_owned()));
    loop {
        let page = scan.clone();
        let rows = state.read_blocking(|view| view.scan(&ROWS, &page, 100)).unwrap();
        let Some((last, _)) = rows.last() else { break };
        scan = scan.after(last);
        seen.extend(rows.into_iter().map(|((_, n), _)| n));
    }
    assert_eq!(seen, (0..2_500).step_by(2).collect::<Vec<_>>());
}

#[test]
fn closing_commits_what_is_queued_and_refuses_what_comes_later() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let state = state_in_memory();
    runtime.block_on(async {
        let mut queued: Vec<_> = (0..50)
            .map(|n| Box::pin(state.write(move |tx| tx.put(&ROWS, &("row".to_owned(), n), &Raw(vec![])))))
            .collect();
        // Polled once, each is queued; on a quick machine some are committed by then.
        let polled: Vec<_> = queued.iter_mut().map(futures_util::FutureExt::now_or_never).collect();
        state.close().await.unwrap();
        for (one, polled) in queued.into_iter().zip(polled) {
            match polled {
                Some(committed) => committed.unwrap(),
                None => one.await.unwrap(),
            }
        }
        assert!(matches!(state.write(|_| Ok(())).await, Err(StateError::Closed)));
        assert!(matches!(state.read(|_| Ok(())).await, Err(StateError::Closed)));
        assert!(matches!(state.read_few(|_| Ok(())).await, Err(StateError::Closed)));
        state.close().await.unwrap();
    });
}

#[test]
fn a_write_inside_a_write_is_refused_instead_of_waiting_for_itself() {
    let state = state_in_memory();
    let inner = state.clone();
    let outcome = state.write_blocking(move |_| inner.write_blocking(|_| Ok(())));
    assert_eq!(outcome.unwrap_err().code(), "state_write_nested");
}

#[test]
fn a_read_that_panics_is_an_error_for_its_caller_only() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let state = state_in_memory();
    let panics = |_: &View<'_>| std::panic::resume_unwind(Box::new("on purpose".to_owned()));
    let outcomes: [Result<(), _>; 2] =
        [runtime.block_on(state.read(panics)), runtime.block_on(state.read_few(panics))];
    for outcome in outcomes {
        assert!(matches!(outcome, Err(StateError::Panicked { message }) if message == "on purpose"));
    }
    state.read_blocking(|_| Ok(())).unwrap();
}

#[test]
fn a_few_rows_are_read_on_the_calling_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let state = state_in_memory();
    state.write_blocking(|tx| tx.put(&ROWS, &("row".to_owned(), 1), &Raw(vec![7]))).unwrap();
    let read =
        state.read_few(|view| Ok((std::thread::current().id(), view.get(&ROWS, &("row".to_owned(), 1))?)));
    let (thread, row) = runtime.block_on(read).unwrap();
    assert_eq!((thread, row), (std::thread::current().id(), Some(Raw(vec![7]))));
}
