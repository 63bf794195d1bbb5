//! What the kernel makes of a filter: its answer to a call, for learning runs and tests, and its checks of a program.
//!
//! Written from the kernel's description of classic BPF and of `struct seccomp_data`, without the compiler's constants,
//! so that a wrong constant there is no wrong constant here.

use crate::sandbox::sys::Insn;

/// A system call as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) architecture: u32,
    pub(crate) arguments: [u64; 6],
}

impl Call {
    /// `struct seccomp_data`: number, architecture, instruction pointer, six arguments.
    fn bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0..4].copy_from_slice(&self.number.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.architecture.to_ne_bytes());
        bytes[8..16].copy_from_slice(&0x0040_1000_u64.to_ne_bytes());
        for (index, argument) in self.arguments.iter().enumerate() {
            bytes[16 + 8 * index..24 + 8 * index].copy_from_slice(&argument.to_ne_bytes());
        }
        bytes
    }
}

/// Panics where the kernel would refuse to load the program.
#[cfg(all(test, target_arch = "x86_64"))]
pub(super) fn verify(program: &[Insn]) {
    assert!(!program.is_empty() && program.len() <= 4096, "{} instructions", program.len());
    for (at, insn) in program.iter().enumerate() {
        let left = program.len() - at - 1;
        match insn.code {
            0x20 => assert!(insn.k < 64 && insn.k.is_multiple_of(4), "{at} reads beside the call"),
            0x05 => assert!((insn.k as usize) < left, "{at} jumps out"),
            0x15 | 0x25 | 0x35 | 0x45 => {
                assert!(usize::from(insn.jt.max(insn.jf)) < left, "{at} jumps out");
            }
            0x54 | 0x06 => {}
            other => panic!("{at} is {other:#x}, which these programs have no need of"),
        }
    }
    assert_eq!(program.last().map(|insn| insn.code), Some(0x06), "the last one returns");
}

/// The value that the program returns for a call; none if it has what the kernel wouldn't load.
pub(super) fn answer(program: &[Insn], call: &Call) -> Option<u32> {
    let data = call.bytes();
    let mut accumulator = 0_u32;
    let mut at = 0;
    loop {
        // Jumps lead forward only, so this ends.
        let insn = program.get(at)?;
        at += 1;
        let branch = |holds: bool| usize::from(if holds { insn.jt } else { insn.jf });
        match insn.code {
            0x20 => {
                let from = insn.k as usize;
                let word = data.get(from..from.checked_add(4)?)?;
                accumulator = u32::from_ne_bytes(word.try_into().ok()?);
            }
            0x54 => accumulator &= insn.k,
            0x05 => at = at.checked_add(insn.k as usize)?,
            0x15 => at += branch(accumulator == insn.k),
            0x25 => at += branch(accumulator > insn.k),
            0x35 => at += branch(accumulator >= insn.k),
            0x45 => at += branch(accumulator & insn.k != 0),
            0x06 => return Some(insn.k),
            _ => return None,
        }
    }
}
