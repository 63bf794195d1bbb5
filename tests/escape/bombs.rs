//! Everything that fills up, filled.

use std::time::{Duration, Instant};

use pantry::sandbox::{End, Enforcement, Limit, Tmpfs};

use crate::bench::{case, here};

const MIB: u64 = 1024 * 1024;

case! {
    fn a_fork_bomb_is_ended(bench: &Bench) {
        let begun = Instant::now();
        let mut policy = bench.policy(&["forkbomb"]);
        policy.limits.processes = 32;
        let outcome = bench.run(&policy);
        assert_eq!(outcome.end, End::LimitHit(Limit::Processes), "{:?}", outcome.receipt);
        assert!(begun.elapsed() < here(Duration::from_secs(15)), "before the wall clock");
    }
}

case! {
    fn threads_count_as_processes(bench: &Bench) {
        let mut policy = bench.policy(&["threads"]);
        policy.limits.processes = 32;
        assert_eq!(bench.run(&policy).stdout.text(), "31 errno 11\n", "itself and 31 more");
        policy.limits.processes = 101;
        assert_eq!(bench.run(&policy).stdout.text(), "100 errno 11\n");
    }
}

case! {
    fn a_memory_bomb_is_ended(bench: &Bench) {
        let modes = [
            "eat",
            "eatshared",
            "eatinchildren",
            "eatinrelay",
            "eatamongorphans",
            "eatheadless",
            "eattables",
            "eatsockets",
            "eatpipes",
        ];
        for mode in modes {
            let begun = Instant::now();
            let mut policy = bench.policy(&[mode]);
            policy.limits.memory_bytes = 64 * MIB;
            let outcome = bench.run(&policy);
            let watched = outcome.receipt.limits.memory.enforced_by == Enforcement::Watchdog;
            if mode == "eatshared" && watched {
                assert_eq!(outcome.end, End::Exited(3), "memory of that kind is not to be had");
                continue;
            }
            println!("{mode}: {} ms, {:?}", outcome.wall_ms, outcome.receipt.peak_memory_bytes);
            assert_eq!(outcome.end, End::LimitHit(Limit::Memory), "{mode}: {:?}", outcome.receipt);
            assert_eq!(outcome.receipt.notes.is_empty(), !watched, "what sampling can't see is said");
            assert!(begun.elapsed() < here(Duration::from_secs(10)), "{mode}");
            assert!(outcome.receipt.peak_memory_bytes.unwrap() > 32 * MIB);
        }
        assert!(bench.run(&bench.policy(&["true"])).end.success(), "the next run is well");
    }
}

case! {
    fn scratch_space_has_an_end_in_bytes_and_in_files(bench: &Bench) {
        let mut policy = bench.policy(&["fill", "/tmp/x"]);
        policy.tmpfs = vec![Tmpfs { at: "/tmp".into(), size_bytes: MIB, inodes: 16 }];
        assert_eq!(bench.run(&policy).stdout.text(), format!("{MIB} errno 28\n"));
        policy.argv = bench.argv(&["files", "/tmp"]);
        assert_eq!(bench.run(&policy).stdout.text(), "15 errno 28\n", "the directory is one of the 16");
        // /dev/shm is scratch space too.
        let said = bench.says(&["files", "/dev/shm"]);
        assert_eq!(said, "4095 errno 28");
        policy.argv = bench.argv(&["fill", "/output/x"]);
        policy = policy.output("/output", bench.dir.path().join("taken"));
        policy.outputs[0].size_bytes = MIB;
        policy.outputs[0].inodes = 8;
        assert_eq!(bench.run(&policy).stdout.text(), format!("{MIB} errno 28\n"));
        policy.argv = bench.argv(&["files", "/output"]);
        policy.outputs[0].into = bench.dir.path().join("taken-too");
        assert_eq!(bench.run(&policy).stdout.text(), "7 errno 28\n");
    }
}

case! {
    fn open_files_have_an_end(bench: &Bench) {
        let mut policy = bench.policy(&["descriptors"]);
        policy.limits.open_files = 40;
        assert_eq!(bench.run(&policy).stdout.text(), "37 errno 24\n", "and three that it has");
    }
}

case! {
    fn endless_output_is_ended(bench: &Bench) {
        let begun = Instant::now();
        let outcome = bench.run(&bench.policy(&["flood"]));
        assert_eq!(outcome.end, End::LimitHit(Limit::Output));
        assert_eq!(outcome.stdout.bytes.len() as u64, MIB);
        assert!(begun.elapsed() < here(Duration::from_secs(10)));
    }
}
