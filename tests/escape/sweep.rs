//! Every system call, made with all bits of all arguments set, against the golden table of the filter.

use std::collections::BTreeMap;

use pantry::sandbox::{Cancel, Enforcement, Sandbox, SeccompProfile, StdinBytes};

use crate::bench::{Bench, case};

const TABLE: &str = include_str!("../../src/sandbox/filter/x86_64.txt");
/// `uretprobe` and `uprobe`: newer kernels let them past every filter; they do nothing but in a probe's own trampoline.
const PAST_EVERY_FILTER: [u32; 2] = [335, 336];
const SIGSYS: &str = "signal 31";

/// What the table says of calls with all bits set, in a column.
fn expected(column: usize, watched: bool) -> BTreeMap<u32, (&'static str, &'static str)> {
    let ones = |name: &str| {
        let find = |start: String| TABLE.lines().find_map(|line| line.strip_prefix(&start)).map(str::trim);
        let watched_only = find(format!("= watched: {name}(ones)")).filter(|_| watched);
        watched_only.or_else(|| find(format!("= {name}(ones)"))).unwrap()
    };
    let rows = TABLE.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
    rows.map(|row| {
        let words: Vec<&str> = row.split_ascii_whitespace().collect();
        let cell = if words.len() == 3 { words[2] } else { words[2 + column] };
        let (plain, counted) = cell.split_once('/').unwrap_or((cell, cell));
        let answer = match if watched { counted } else { plain } {
            "args" => ones(words[1]),
            always => always,
        };
        (words[0].parse().unwrap(), (words[1], answer))
    })
    .collect()
}

fn answers(said: &str) -> BTreeMap<u32, String> {
    said.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(n, how)| (n.parse().unwrap(), how.to_owned()))
        .collect()
}

/// Runs the sweep inside with this profile; gives what does not fit.
fn compare(bench: &Bench, sandbox: &Sandbox, column: usize, profile: SeccompProfile) {
    let outside = answers(&String::from_utf8_lossy(&bench.outside_plain(&["sweep", "plain"]).stdout));
    let policy = bench.policy(&["sweep", "plain"]).profile(profile);
    let outcome = sandbox.run(&policy, StdinBytes::Empty, &Cancel::new().unwrap()).unwrap();
    assert!(outcome.end.success(), "{:?} {}", outcome.end, outcome.stderr.text());
    let watched = outcome.receipt.limits.memory.enforced_by == Enforcement::Watchdog;
    let inside = answers(&outcome.stdout.text());
    let expected = expected(column, watched);
    assert_eq!((expected.len(), inside.len(), outside.len()), (471, 471, 471));
    let mut wrong = Vec::new();
    let mut told_apart = 0;
    for (number, (name, wanted)) in &expected {
        let (here, there) = (inside[number].as_str(), outside[number].as_str());
        let fits = match *wanted {
            _ if PAST_EVERY_FILTER.contains(number) && here == there => true,
            "EPERM" => here == "exit 1",
            "ENOSYS" => here == "exit 38",
            "ENOMEM" => here == "exit 12",
            "success" => here == "exit 0",
            _ => here != SIGSYS && (here != "exit 38" || there == "exit 38"),
        };
        told_apart += usize::from(*wanted == "EPERM" && there != "exit 1");
        if !fits {
            wrong.push(format!("{number} {name}: {here}, not {wanted}; outside {there}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("control: {told_apart} of the denied calls answer otherwise outside");
    assert!(told_apart > 40, "{told_apart}: outside nearly nothing is denied to an ordinary id");
}

case! {
    fn every_system_call_answers_as_the_golden_table_says(bench: &Bench) {
        compare(bench, &bench.sandbox, 0, SeccompProfile::Test);
        compare(bench, &bench.sandbox, 1, SeccompProfile::Build);
        compare(bench, &bench.sandbox, 2, SeccompProfile::Command);
        compare(bench, &bench.sandbox, 3, SeccompProfile::Helper);
    }
}

case! {
    fn every_system_call_answers_in_a_learning_run_as_in_any(bench: &Bench) {
        let learning = bench.sandbox.clone().learning();
        compare(bench, &learning, 0, SeccompProfile::Test);
        compare(bench, &learning, 1, SeccompProfile::Build);
        compare(bench, &learning, 2, SeccompProfile::Command);
        compare(bench, &learning, 3, SeccompProfile::Helper);
    }
}

case! {
    fn every_system_call_with_the_x32_bit_is_killed(bench: &Bench) {
        let outside = String::from_utf8(bench.outside(&["true"]).stdout).unwrap();
        assert_eq!(outside, "");
        let inside = answers(&bench.says(&["sweep", "x32"]));
        assert_eq!(inside.len(), 471);
        for (number, how) in inside {
            assert_eq!(how, SIGSYS, "{number} with the x32 bit");
        }
        // The control: outside, the same calls kill nobody, whether this kernel has x32 or not.
        let there = answers(&String::from_utf8_lossy(&bench.outside_plain(&["sweep", "x32"]).stdout));
        assert!(there.values().all(|how| how != SIGSYS));
    }
}

case! {
    fn every_system_call_by_the_32_bit_gate_is_killed(bench: &Bench) {
        // Where the kernel runs no 32-bit calls at all, the instruction itself is a fault.
        let there = bench.outside_plain(&["int80"]);
        let expected = if there.status.success() { SIGSYS } else { "signal 11" };
        println!("control: {} outside", String::from_utf8_lossy(&there.stdout).trim());
        let inside = answers(&bench.says(&["sweep", "int80"]));
        assert_eq!(inside.len(), 471);
        for (number, how) in inside {
            assert!(how == expected || how == SIGSYS, "{number} by int 0x80: {how}");
        }
    }
}
