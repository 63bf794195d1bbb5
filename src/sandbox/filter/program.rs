//! From rules to instructions: a binary search over the call's number, then checks of arguments.

use nix::libc;

use crate::sandbox::sys::Insn;

/// What the kernel does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    /// Answers this error number without acting; 0 is success.
    Errno(u16),
    Kill,
    /// Reports it to who holds the filter's descriptor, who answers it.
    Report,
}

impl Action {
    pub(crate) fn value(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
            Self::Kill => libc::SECCOMP_RET_KILL_PROCESS,
            Self::Report => libc::SECCOMP_RET_USER_NOTIF,
        }
    }
}

/// Holds when the low 32 bits of an argument, masked, are this value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) argument: u8,
    pub(crate) mask: u32,
    pub(crate) equals: u32,
}

/// What is done with one call: the action of the first clause whose checks all hold, else the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) clauses: Vec<(Vec<Check>, Action)>,
    pub(crate) otherwise: Action,
}

impl Rule {
    pub(crate) fn always(action: Action) -> Self {
        Self { clauses: Vec::new(), otherwise: action }
    }
}

/// The rules by call number, and what happens to every other number.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) by_number: std::collections::BTreeMap<u32, Rule>,
    pub(crate) unknown: Action,
}

#[cfg(target_arch = "x86_64")]
pub(crate) const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
pub(crate) const ARCHITECTURE: u32 = 0xC000_00B7;
/// From here on numbers belong to x32, which shares the architecture's token; elsewhere they are invalid.
pub(crate) const FOREIGN_NUMBERS: u32 = 0x4000_0000;

const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

fn plain(code: u16, k: u32) -> Insn {
    Insn { code, jt: 0, jf: 0, k }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> Insn {
    Insn { code, jt, jf, k }
}

/// Compiles the rules.
pub(crate) fn compile(rules: &Rules) -> Vec<Insn> {
    let kill = plain(RETURN, Action::Kill.value());
    let mut out = vec![
        plain(LOAD_WORD, OFFSET_ARCHITECTURE),
        branch(JUMP_EQUAL, ARCHITECTURE, 1, 0),
        kill,
        plain(LOAD_WORD, OFFSET_NUMBER),
        branch(JUMP_GREATER_EQUAL, FOREIGN_NUMBERS, 0, 1),
        kill,
    ];
    out.extend(tree(&segments(rules)));
    out
}

/// Splits all numbers into runs that share a rule: each begins at its number and ends where the next begins.
fn segments(rules: &Rules) -> Vec<(u32, Rule)> {
    let unknown = Rule::always(rules.unknown);
    let mut out: Vec<(u32, Rule)> = vec![(0, unknown.clone())];
    let mut put = |start: u32, rule: &Rule| match out.last_mut() {
        Some((last, slot)) if *last == start => *slot = rule.clone(),
        Some((_, slot)) if slot == rule => {}
        _ => out.push((start, rule.clone())),
    };
    for (number, rule) in &rules.by_number {
        put(*number, rule);
        put(number + 1, &unknown);
    }
    // A replaced start can leave two equal neighbours.
    out.dedup_by(|later, earlier| later.1 == earlier.1);
    out
}

/// Jumps are relative, so that a part can be made by itself and put behind the branch that leads into it.
fn tree(segments: &[(u32, Rule)]) -> Vec<Insn> {
    let [_, .., _] = segments else {
        return segments.first().map(|(_, rule)| leaf(rule)).unwrap_or_default();
    };
    let (left, right) = segments.split_at(segments.len() / 2);
    let start = right[0].0;
    let (left, right) = (tree(left), tree(right));
    let mut out = Vec::with_capacity(left.len() + right.len() + 2);
    if let Ok(over) = u8::try_from(left.len()) {
        out.push(branch(JUMP_GREATER_EQUAL, start, over, 0));
    } else {
        let over = u32::try_from(left.len()).expect("invariant: a filter has fewer than 4,096 instructions");
        out.push(branch(JUMP_GREATER_EQUAL, start, 0, 1));
        out.push(plain(JUMP, over));
    }
    out.extend(left);
    out.extend(right);
    out
}

fn leaf(rule: &Rule) -> Vec<Insn> {
    let mut out = Vec::new();
    for (checks, action) in &rule.clauses {
        // From the last check to the first: each that fails jumps over all that follows in the clause.
        let mut clause = vec![plain(RETURN, action.value())];
        for check in checks.iter().rev() {
            let miss = u8::try_from(clause.len()).expect("invariant: a clause has at most six checks");
            let mut one = vec![plain(LOAD_WORD, OFFSET_ARGUMENTS + 8 * u32::from(check.argument))];
            if check.mask != u32::MAX {
                one.push(plain(AND, check.mask));
            }
            one.push(branch(JUMP_EQUAL, check.equals, 0, miss));
            clause.splice(0..0, one);
        }
        out.extend(clause);
    }
    out.push(plain(RETURN, rule.otherwise.value()));
    out
}
