//! The end of a run, and what is taken and left.

use std::time::{Duration, Instant};

use fs_err as fs;
use pantry::sandbox::{Cancel, End, Limit, SandboxError, SkipReason, StdinBytes};

use crate::bench::{case, here, here_ms};

case! {
    fn signals_are_told(bench: &Bench) {
        assert_eq!(bench.run(&bench.policy(&["signal", "9"])).end, End::Signaled(9));
        assert_eq!(bench.run(&bench.policy(&["signal", "15"])).end, End::Signaled(15));
        assert_eq!(bench.run(&bench.policy(&["signal", "31"])).end, End::Denied);
    }
}

case! {
    fn a_cancelled_run_ends_at_once(bench: &Bench) {
        let cancel = Cancel::new().unwrap();
        let other = cancel.clone();
        let policy = bench.policy(&["stubborn"]);
        let outcome = std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(200));
                other.cancel();
            });
            bench.sandbox.run(&policy, StdinBytes::Empty, &cancel).unwrap()
        });
        assert_eq!(outcome.end, End::Cancelled);
        assert!(outcome.wall_ms < here_ms(5000));
        // It stays cancelled, also for runs that haven't begun.
        let begun = Instant::now();
        match bench.sandbox.run(&policy, StdinBytes::Empty, &cancel) {
            Ok(outcome) => assert_eq!(outcome.end, End::Cancelled),
            Err(error) => panic!("{error}"),
        }
        assert!(begun.elapsed() < here(Duration::from_secs(5)));
    }
}

case! {
    fn output_is_taken_after_everything_is_dead(bench: &Bench) {
        let into = bench.dir.path().join("taken");
        let outcome = bench.run(&bench.policy(&["output", "/output"]).output("/output", &into));
        assert!(outcome.end.success(), "{:?}", outcome.end);
        let taken = &outcome.outputs[0];
        let report = taken.files.iter().find(|file| file.path == "report.xml").unwrap();
        // The hash is of what is stored, whatever the surviving child wrote meanwhile.
        let stored = fs::read(into.join("report.xml")).unwrap();
        assert_eq!(report.bytes, stored.len() as u64);
        assert_eq!(report.sha256, sha256(&stored));
        assert_eq!(fs::read_to_string(into.join("shut/inner")).unwrap(), "inner", "closed to us, opened again");
        let mut why: Vec<(&str, SkipReason)> =
            taken.skipped.iter().map(|entry| (entry.path.as_str(), entry.why)).collect();
        why.sort_by_key(|(path, _)| (*path).to_owned());
        let expected = [
            ("bad\\nname", SkipReason::Name),
            ("dirlink", SkipReason::Link),
            ("fifo", SkipReason::Special),
            ("link", SkipReason::Link),
        ];
        assert_eq!(why, expected);
        let mut names: Vec<_> = fs::read_dir(&into).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["report.xml", "shut"]);
        // A target that exists is nobody's to overwrite.
        let again = bench.try_run(&bench.policy(&["true"]).output("/output", &into));
        assert!(matches!(&again, Err(SandboxError::Refused { why, .. }) if why.contains("exists")), "{again:?}");
    }
}

case! {
    fn output_over_its_caps_is_a_limit_hit(bench: &Bench) {
        let into = bench.dir.path().join("taken");
        let mut policy = bench.policy(&["fill", "/output/x"]).output("/output", &into);
        policy.outputs[0].max_bytes = 1024;
        policy.outputs[0].size_bytes = 1024 * 1024;
        assert_eq!(bench.run(&policy).end, End::LimitHit(Limit::Files));
    }
}

case! {
    fn many_runs_at_once_all_end_well(bench: &Bench) {
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..8)
                .map(|n: u32| {
                    let policy = bench.policy(&["exit", Box::leak(n.to_string().into_boxed_str())]);
                    (n, scope.spawn(move || bench.run(&policy).end))
                })
                .collect();
            for (n, run) in runs {
                assert_eq!(run.join().unwrap(), End::Exited(i32::try_from(n).unwrap()));
            }
        });
    }
}

case! {
    fn nothing_is_swept_that_lives_and_leftovers_are(bench: &Bench) {
        fs::create_dir(bench.dir.path().join("jails/left")).unwrap();
        fs::write(bench.dir.path().join("jails/left/file"), "x").unwrap();
        let swept = bench.sandbox.sweep().unwrap();
        assert_eq!(swept.entries, 1);
        assert_eq!(bench.sandbox.sweep().unwrap().entries, 0);
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
