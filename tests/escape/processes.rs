//! Processes: those outside, those of another run, siblings, the init, and what would stay behind.

use std::time::{Duration, Instant};

use fs_err as fs;
use pantry::sandbox::{Cancel, End, StdinBytes};

use crate::bench::case;

case! {
    fn no_process_outside_is_signalled_or_traced(bench: &Bench) {
        let me = std::process::id().to_string();
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().to_string();
        for pid in [me.as_str(), parent.as_str(), "4194303"] {
            let said = bench.says(&["outward", pid]);
            for line in said.lines() {
                let expected = if line.starts_with("attach") { " 1" } else { " 3" };
                assert!(line.ends_with(expected), "{pid}: {line}");
            }
            assert_eq!(said.lines().count(), 7);
        }
        // To everybody that it sees means to nobody outside.
        assert!(bench.run(&bench.policy(&["killall"])).end.success());
        // The control: outside it is there.
        let mut control = std::process::Command::new(bench.root.join(&bench.probe[1..]))
            .arg("sleep")
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let said = bench.outside(&["outward", &control.id().to_string()]).stdout;
        control.kill().unwrap();
        control.wait().unwrap();
        assert!(said.starts_with(b"exists 0\nstop 0\ncontinue 0\n"), "{}", String::from_utf8_lossy(&said));
    }
}

case! {
    fn siblings_of_one_id_are_open_and_the_init_is_not(bench: &Bench) {
        let said = bench.says(&["siblings"]);
        let (open, rest) = said.split_once('\n').unwrap();
        // Landlock lets nobody write below /proc; without it one of the same id is open.
        assert!(["open mem 0 stopped", "open mem 13 stopped"].contains(&open), "{said}");
        assert_eq!(rest, "shut mem 13 stopped\ninit mem 13 not stopped");
    }
}

case! {
    fn two_runs_do_not_see_each_other(bench: &Bench) {
        let cancel = Cancel::new().unwrap();
        let long = bench.policy(&["sleep"]);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| bench.sandbox.run(&long, StdinBytes::Empty, &cancel).unwrap());
            for _ in 0..5 {
                let pids = bench.says(&["ls", "/proc"]).lines().filter(|name| name.parse::<u32>().is_ok()).count();
                assert_eq!(pids, 2);
                assert_eq!(bench.says(&["write", "/tmp/mine"]), "ok");
                assert!(!bench.says(&["ls", "/tmp"]).contains("mine"));
                assert!(!bench.says(&["ls", "/dev/shm"]).contains("mine"));
                // One id without root: all that it may signal is in its own run.
                assert!(bench.run(&bench.policy(&["killall"])).end.success());
            }
            cancel.cancel();
            assert_eq!(first.join().unwrap().end, End::Cancelled);
        });
    }
}

case! {
    fn a_daemon_does_not_outlive_the_run(bench: &Bench) {
        let data = bench.writable_dir("data", 1_700_300);
        let mut policy = bench.policy(&["linger", "/data/beat"]).data(&data, "/data");
        policy.identity.host_base = Some(1_700_300);
        let outcome = bench.run(&policy);
        assert!(outcome.end.success(), "{:?}", outcome.end);
        let beats = || fs::metadata(data.join("beat")).unwrap().len();
        // The control: it was there, and wrote.
        let at_the_end = beats();
        assert!(at_the_end > 0);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(beats(), at_the_end, "it writes on after the end");
        assert_eq!(bench.run(&bench.policy(&["daemon"])).stdout.text(), "left one behind\n");
    }
}

case! {
    fn ignored_signals_keep_nothing_alive(bench: &Bench) {
        let mut policy = bench.policy(&["stubborn"]);
        policy.limits.wall_ms = 300;
        let begun = Instant::now();
        assert_eq!(bench.run(&policy).end, End::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

case! {
    fn the_thread_that_started_a_run_may_end(bench: &Bench) {
        // A parent-death signal would fire here: it follows the thread, not the process.
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| bench.run(&bench.policy(&["exit", "5"]))).join().unwrap()
        });
        assert_eq!(outcome.end, End::Exited(5));
    }
}
