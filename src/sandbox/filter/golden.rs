//! The filter against a table written down beside it (`x86_64.txt`), which also the jail's own tests read.
//!
//! A change of a list shows as a change of the table, where it can be read and judged call by call.

use std::collections::BTreeMap;

use super::calls::rules;
use super::interpreter::{Call, answer, verify};
use super::program::{Rules, compile};
use super::{Choice, SeccompProfile, compile as compile_for, compile_reporting, names_address, places};
use crate::sandbox::sys::Insn;
use rustix::thread::CapabilitySet;

const TABLE: &str = include_str!("x86_64.txt");
/// The last call number of the table.
const LAST: u32 = 470;

const X86_64: u32 = 0xC000_003E;
const X32: u32 = 0x4000_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const REPORT: u32 = 0x7fc0_0000;

/// The columns of the table.
const COLUMNS: [(&str, SeccompProfile, bool); 5] = [
    ("test", SeccompProfile::Test, false),
    ("build", SeccompProfile::Build, true),
    ("command", SeccompProfile::Command, false),
    ("helper", SeccompProfile::Helper, false),
    ("command as id 0", SeccompProfile::Command, true),
];

/// Every choice: the columns, without and with memory that is watched.
fn choices() -> Vec<(usize, Choice)> {
    let both = |(column, (_, profile, emulate_ownership)): (usize, (&str, SeccompProfile, bool))| {
        [false, true].map(|watched_memory| (column, Choice { profile, emulate_ownership, watched_memory }))
    };
    COLUMNS.into_iter().enumerate().flat_map(both).collect()
}

/// A call with certain arguments, and what is answered.
struct Case {
    watched_only: bool,
    number: u32,
    arguments: [u64; 6],
    answer: u32,
    line: &'static str,
}

struct Table {
    /// By number: the name, and a cell for each column.
    rows: BTreeMap<u32, (&'static str, Vec<&'static str>)>,
    cases: Vec<Case>,
}

fn value(word: &str) -> u32 {
    match word {
        "allow" => ALLOW,
        "EPERM" => ERRNO | 1,
        "ENOMEM" => ERRNO | 0xc,
        "ENOSYS" => ERRNO | 0x26,
        "success" => ERRNO,
        other => panic!("{other:?} is no answer"),
    }
}

fn number(text: &str) -> u64 {
    match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(digits), _) => u64::from_str_radix(digits, 16).unwrap(),
        (_, Some(digits)) => u64::from_str_radix(digits, 8).unwrap(),
        _ => text.parse().unwrap(),
    }
}

fn table() -> Table {
    let mut table = Table { rows: BTreeMap::new(), cases: Vec::new() };
    let lines = TABLE.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        if let Some(case) = line.strip_prefix("= ") {
            let (call, result) = case.rsplit_once(' ').unwrap();
            let (call, watched_only) =
                call.strip_prefix("watched: ").map_or((call, false), |call| (call, true));
            let (name, list) = call.trim().trim_end_matches(')').split_once('(').unwrap();
            let mut arguments = if list == "ones" { [u64::MAX; 6] } else { [0; 6] };
            for (place, word) in list.split(", ").enumerate().filter(|_| list != "ones") {
                arguments[place] = number(word);
            }
            let named = table.rows.iter().find(|(_, row)| row.0 == name);
            let number = *named.unwrap_or_else(|| panic!("{line}: no such call")).0;
            table.cases.push(Case { watched_only, number, arguments, answer: value(result), line });
            continue;
        }
        let mut words = line.split_ascii_whitespace();
        let (number, name) = (words.next().unwrap().parse().unwrap(), words.next().unwrap());
        let mut cells: Vec<_> = words.collect();
        if let [same] = cells.as_slice() {
            cells = vec![*same; COLUMNS.len()];
        }
        assert_eq!(cells.len(), COLUMNS.len(), "{line}");
        assert!(table.rows.insert(number, (name, cells)).is_none(), "{line}: twice");
    }
    table
}

fn filter(choice: Choice) -> Vec<Insn> {
    compile(&rules(choice))
}

fn said(program: &[Insn], number: u32, arguments: [u64; 6]) -> u32 {
    answer(program, &Call { number, architecture: X86_64, arguments }).unwrap()
}

/// Arguments by which rules could tell calls apart: each value that some rule asks for, in each place alone, with high
/// bits, and the table's own.
fn patterns(rules: &Rules, cases: &[&Case]) -> Vec<[u64; 6]> {
    let checks = || rules.by_number.values().flat_map(|rule| &rule.clauses).flat_map(|(checks, _)| checks);
    let mut values: Vec<u64> = checks().map(|check| check.equals.into()).collect();
    values.extend([0o777, 1 << 31, 1 << 32, u64::MAX]);
    values.sort_unstable();
    values.dedup();
    let mut patterns = vec![[0; 6], [u64::MAX; 6]];
    for place in 0..6 {
        for value in &values {
            let mut one = [0; 6];
            one[place] = *value;
            patterns.push(one);
        }
    }
    patterns.extend(cases.iter().map(|case| case.arguments));
    patterns
}

#[test]
fn every_call_is_answered_as_the_golden_table_says() {
    let table = table();
    let mut wrong = Vec::new();
    for (column, choice) in choices() {
        let rules = rules(choice);
        let program = compile(&rules);
        for call in 0..=LAST {
            let Some((name, cells)) = table.rows.get(&call) else {
                wrong.push(format!("{call} is not in the table"));
                continue;
            };
            let (plain, watched) = cells[column].split_once('/').unwrap_or((cells[column], cells[column]));
            let wanted = if choice.watched_memory { watched } else { plain };
            let cases: Vec<&Case> = table.cases.iter().filter(|case| case.number == call).collect();
            let answers: Vec<u32> = patterns(&rules, &cases)
                .into_iter()
                .map(|arguments| said(&program, call, arguments))
                .collect();
            let fits = match wanted {
                "args" => answers.iter().any(|one| *one != answers[0]),
                always => answers.iter().all(|one| *one == value(always)),
            };
            if !fits {
                wrong.push(format!("{call} {name} in {} ({choice:?}): {:#x}", COLUMNS[column].0, answers[0]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn calls_whose_arguments_count_are_answered_as_the_golden_table_says() {
    let table = table();
    for (_, choice) in choices() {
        let program = filter(choice);
        for case in table.cases.iter().filter(|case| choice.watched_memory || !case.watched_only) {
            assert_eq!(
                said(&program, case.number, case.arguments),
                case.answer,
                "{} ({choice:?})",
                case.line
            );
        }
    }
    // What the jail's own sweep calls with.
    for (call, (name, cells)) in &table.rows {
        let depends = cells.iter().any(|cell| cell.contains("args"));
        let ones = table.cases.iter().any(|case| case.number == *call && case.arguments == [u64::MAX; 6]);
        assert_eq!(depends, ones, "{name}: a case `(ones)` where arguments count, and there alone");
    }
}

#[test]
fn foreign_numbers_and_architectures_die_whatever_the_call() {
    for (_, choice) in choices() {
        let program = filter(choice);
        for call in (0..=LAST).chain([0x0fff_ffff, 0x3fff_ffff]) {
            for high in [X32, 1 << 31, X32 | 1 << 31] {
                assert_eq!(said(&program, call | high, [0; 6]), KILL_PROCESS, "{call} with {high:#x}");
            }
            // 32-bit x86, 32-bit Arm, 64-bit Arm, RISC-V, none.
            for architecture in [0x4000_0003, 0x4000_0028, 0xC000_00B7, 0xC000_00F3, 0] {
                let answered =
                    answer(&program, &Call { number: call, architecture, arguments: [0; 6] }).unwrap();
                assert_eq!(answered, KILL_PROCESS, "{call} of {architecture:#x}");
            }
        }
        for call in [LAST + 1, 999, 1000, 0x3fff_ffff] {
            assert_eq!(said(&program, call, [0; 6]), value("ENOSYS"), "{call}");
        }
    }
}

#[test]
fn every_filter_was_compiled_beforehand() {
    for (_, choice) in choices() {
        assert_eq!(super::prepared(choice), Some(filter(choice).as_slice()), "{choice:?}");
    }
}

#[test]
fn every_filter_is_one_that_the_kernel_takes() {
    for (_, choice) in choices() {
        verify(&filter(choice));
    }
}

#[test]
fn a_reporting_filter_lets_nothing_through_that_the_ordinary_one_refuses() {
    let table = table();
    let mut seen = [0; 3];
    for (_, choice) in choices() {
        for granted in [CapabilitySet::empty(), CapabilitySet::SYS_CHROOT | CapabilitySet::NET_RAW] {
            let (ordinary, reporting) = (compile_for(choice, granted), compile_reporting(choice, granted));
            verify(&reporting);
            for call in 0..=LAST + 1 {
                let cases: Vec<&Case> = table.cases.iter().filter(|case| case.number == call).collect();
                for arguments in patterns(&rules(choice), &cases) {
                    let (plain, reported) =
                        (said(&ordinary, call, arguments), said(&reporting, call, arguments));
                    let kind = match plain {
                        ALLOW => usize::from(!places(call).is_empty() || names_address(call)),
                        refused if refused == ERRNO => 0,
                        _ => 2,
                    };
                    let expected = if kind == 0 { plain } else { REPORT };
                    assert_eq!(reported, expected, "{call} {arguments:x?} {choice:?}");
                    seen[kind] += 1;
                }
            }
            for foreign in [X32, X32 | 1, 1 << 31] {
                assert_eq!(said(&reporting, foreign, [0; 6]), KILL_PROCESS);
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 1000), "{seen:?}");
}

#[test]
fn no_rule_no_clause_and_no_check_is_redundant() {
    let table = table();
    for (_, choice) in choices() {
        let whole = rules(choice);
        for (call, rule) in &whole.by_number {
            let unknown = rule.clauses.is_empty() && rule.otherwise == whole.unknown;
            assert!(!unknown, "call {call} is answered so without a rule");
            let cases: Vec<&Case> = table
                .cases
                .iter()
                .filter(|case| case.number == *call && (choice.watched_memory || !case.watched_only))
                .collect();
            let noticed = |change: &dyn Fn(&mut super::program::Rule)| {
                let mut changed = rule.clone();
                change(&mut changed);
                let rules = Rules { by_number: [(*call, changed)].into(), unknown: whole.unknown };
                let program = compile(&rules);
                cases.iter().any(|case| said(&program, *call, case.arguments) != case.answer)
            };
            for (clause, (checks, _)) in rule.clauses.iter().enumerate() {
                assert!(
                    noticed(&|rule| _ = rule.clauses.remove(clause)),
                    "call {call}: no case of the table needs clause {clause}, {checks:?}"
                );
                for check in 0..checks.len() {
                    assert!(
                        noticed(&|rule| _ = rule.clauses[clause].0.remove(check)),
                        "call {call}: no case of the table needs check {check} of clause {clause}, {checks:?}"
                    );
                }
            }
        }
    }
}
