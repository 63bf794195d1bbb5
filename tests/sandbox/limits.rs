//! Every limit, reached on purpose.

use pantry::sandbox::{End, Enforcement, Limit, Tmpfs};

use crate::bench::{case, here_ms};

const MIB: u64 = 1024 * 1024;

case! {
    fn pages_shared_by_forks_count_once(bench: &Bench) {
        for mode in ["sharebyfork", "sharebyvfork", "sharebyrelays"] {
            let mut policy = bench.policy(&[mode]);
            policy.limits.memory_bytes = 64 * MIB;
            let outcome = bench.run(&policy);
            assert_eq!(outcome.end, End::Exited(0), "{mode}: it is 40 MiB: {:?}", outcome.receipt);
        }
    }
}

case! {
    fn memory_that_outlives_its_mappings_is_not_to_be_had_where_mappings_are_counted(bench: &Bench) {
        let outcome = bench.run(&bench.policy(&["lasting"]));
        let watched = outcome.receipt.limits.memory.enforced_by == Enforcement::Watchdog;
        let expected = if watched {
            ["errno 12", "errno 19", "errno 38", "errno 38", "errno 38", "errno 1", "errno 1", "ok", "ok"]
        } else {
            ["ok"; 9]
        };
        assert_eq!(outcome.stdout.text().lines().collect::<Vec<_>>(), expected);
    }
}

case! {
    fn memory_files_count_too(bench: &Bench) {
        // Memory that no process has mapped is invisible to the watchdog, so there such files are not to be had.
        let call = nix::libc::SYS_memfd_create.to_string();
        // Any readable string is a name; a null one is a bad address, after the filter.
        let outcome = bench.run(&bench.policy(&["syscall", &call, "0", "0"]));
        let expected = match outcome.receipt.limits.memory.enforced_by {
            Enforcement::Watchdog => "errno 38\n",
            _ => "errno 14\n",
        };
        assert_eq!(outcome.stdout.text(), expected);
    }
}

case! {
    fn processes_are_counted_exactly(bench: &Bench) {
        let mut policy = bench.policy(&["forks", "100"]);
        policy.limits.processes = 10;
        let outcome = bench.run(&policy);
        // Refused forks are the program's business as long as it ends well.
        assert_eq!(outcome.end, End::Exited(0));
        assert_eq!(outcome.stdout.text(), "9 errno 11\n", "itself and nine more");
        policy.limits.processes = 101;
        assert_eq!(bench.run(&policy).stdout.text(), "100 errno 0\n");
    }
}

case! {
    fn wall_clock(bench: &Bench) {
        for mode in ["sleep", "stubborn", "spin"] {
            let mut policy = bench.policy(&[mode]);
            policy.limits.wall_ms = here_ms(300);
            let outcome = bench.run(&policy);
            assert_eq!(outcome.end, End::TimedOut, "{mode}");
            let allowed = here_ms(300)..here_ms(3000);
            assert!(allowed.contains(&outcome.wall_ms), "{mode}: {} ms", outcome.wall_ms);
        }
    }
}

case! {
    fn processor_time(bench: &Bench) {
        let mut policy = bench.policy(&["spin"]);
        policy.limits.wall_ms = here_ms(1500);
        policy.limits.cpu_percent = 20;
        let outcome = bench.run(&policy);
        let by = outcome.receipt.limits.cpu.enforced_by;
        // A controller slows it down until the wall clock ends it; the watchdog ends it when its budget is spent.
        let expected = if by == Enforcement::Watchdog { End::LimitHit(Limit::Cpu) } else { End::TimedOut };
        assert_eq!(outcome.end, expected, "{by}");
    }
}

case! {
    fn much_output_keeps_both_ends(bench: &Bench) {
        let outcome = bench.run(&bench.policy(&["flood-n", "300000"]));
        assert!(outcome.end.success());
        let text = outcome.stdout.text();
        assert!(text.starts_with("line 0\n") && text.ends_with("line 299999\n"));
        assert!(outcome.stdout.dropped > 0);
    }
}

case! {
    fn files_and_scratch_space(bench: &Bench) {
        let mut policy = bench.policy(&["fill", "/tmp/x"]);
        policy.tmpfs = vec![Tmpfs { at: "/tmp".into(), size_bytes: MIB, inodes: 16 }];
        assert_eq!(bench.run(&policy).stdout.text(), format!("{MIB} errno 28\n"), "a full scratch space");
        policy.limits.file_size_bytes = 128 * 1024;
        assert_eq!(bench.run(&policy).stdout.text(), "131072 errno 27\n", "a file too large");
    }
}
