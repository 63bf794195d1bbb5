//! Limits by the controllers of cgroup version 2, where they are delegated to these tests. `make guest` boots a machine where
//! they are; on one where they must be, `PANTRY_TEST_CGROUP2` says so and nothing is skipped.

use pantry::sandbox::{End, Enforcement, Limit, Outcome};

use crate::bench::{Bench, case, here};

const MIB: u64 = 1024 * 1024;

/// Whether a run here is held by version 2 in everything; tells why it isn't.
fn delegated(bench: &Bench) -> bool {
    let limits = bench.run(&bench.policy(&["true"])).receipt.limits;
    let by = [limits.memory, limits.processes, limits.cpu].map(|limit| limit.enforced_by);
    if by == [Enforcement::Cgroup2; 3] {
        println!("cgroup2 holds memory, processes and cpu, says the receipt");
        return true;
    }
    assert!(std::env::var_os("PANTRY_TEST_CGROUP2").is_none(), "held by {by:?}");
    println!("skipped: no controllers of cgroup version 2 are delegated here: held by {by:?}");
    false
}

fn all_by_version_2(outcome: &Outcome) {
    let limits = &outcome.receipt.limits;
    for limit in [limits.memory, limits.processes, limits.cpu] {
        assert_eq!(limit.enforced_by, Enforcement::Cgroup2, "{:?}", outcome.receipt);
    }
    assert!(outcome.receipt.notes.is_empty(), "nothing was sampled: {:?}", outcome.receipt.notes);
}

case! {
    fn version_2_ends_memory_bombs(bench: &Bench) {
        if !delegated(bench) {
            return;
        }
        // What has no mapping counts too: sockets, pipes, page tables, files in memory.
        for mode in ["eat", "eatshared", "eatinchildren", "eatinrelay", "eattables", "eatsockets", "eatpipes"] {
            let mut policy = bench.policy(&[mode]);
            policy.limits.memory_bytes = 64 * MIB;
            let outcome = bench.run(&policy);
            println!("cgroup2 {mode}: {:?}, peak {:?}", outcome.end, outcome.receipt.peak_memory_bytes);
            assert_eq!(outcome.end, End::LimitHit(Limit::Memory), "{mode}");
            all_by_version_2(&outcome);
            // `memory.peak` is there since 5.19.
            if let Some(peak) = outcome.receipt.peak_memory_bytes {
                assert!((32 * MIB..=65 * MIB).contains(&peak), "{mode}: {peak}");
            }
        }
        let mut policy = bench.policy(&["fill", "/dev/shm/x"]);
        policy.limits.memory_bytes = 64 * MIB;
        assert!(bench.run(&policy).end.success(), "a scratch file within its own cap");
    }
}

case! {
    fn version_2_holds_fork_bombs(bench: &Bench) {
        if !delegated(bench) {
            return;
        }
        let mut policy = bench.policy(&["forkbomb"]);
        policy.limits.processes = 32;
        let outcome = bench.run(&policy);
        println!("cgroup2 forkbomb: {:?} after {} ms", outcome.end, outcome.wall_ms);
        assert_eq!(outcome.end, End::LimitHit(Limit::Processes));
        all_by_version_2(&outcome);
        assert!(u128::from(outcome.wall_ms) < here(std::time::Duration::from_secs(15)).as_millis());
        policy = bench.policy(&["forks", "100"]);
        policy.limits.processes = 10;
        assert_eq!(bench.run(&policy).stdout.text(), "9 errno 11\n", "itself and nine more");
    }
}

case! {
    fn version_2_holds_processor_hogs(bench: &Bench) {
        if !delegated(bench) {
            return;
        }
        let mut policy = bench.policy(&["hog", "3"]);
        policy.limits.cpu_percent = 20;
        let outcome = bench.run(&policy);
        all_by_version_2(&outcome);
        let used_ms: u64 = outcome.stdout.text().trim().parse().unwrap();
        println!("cgroup2 hog: {used_ms} ms of processor time in 3 s");
        // 600 are its due; the first period may be had twice.
        assert!((1..=900).contains(&used_ms), "{used_ms} ms");
    }
}
